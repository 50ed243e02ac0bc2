# Table 11: Backward Smoothing alone, CIFAR-100.
$(call row,table11,cifar100,$(few),--method fast-at)
$(call row,table11,cifar100,$(few),--method fast-trades)
$(call row,table11,cifar100,$(few),--method bs-alone)
$(call paper-table,table11)

table11: $(call printed,table11) ## Table 11: Backward Smoothing alone, CIFAR-100
	@cat $(filter %.txt,$^)

.PHONY: table11
