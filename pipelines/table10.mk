# Table 10: Backward Smoothing alone, CIFAR-10.
$(call row,table10,cifar10,$(few),--method fast-at)
$(call row,table10,cifar10,$(few),--method fast-trades)
$(call row,table10,cifar10,$(few),--method bs-alone)
$(call paper-table,table10)

table10: $(call printed,table10) ## Table 10: Backward Smoothing alone, CIFAR-10
	@cat $(filter %.txt,$^)

.PHONY: table10
