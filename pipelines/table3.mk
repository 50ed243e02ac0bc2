# Table 3: CIFAR-100.
$(call row,table3,cifar100,$(few),--method at)
$(call row,table3,cifar100,$(few),--method fast-at)
$(call row,table3,cifar100,$(few),--method trades)
$(call row,table3,cifar100,$(few),--method fast-trades)
$(call row,table3,cifar100,$(few),--method fast-trades-2)
$(call row,table3,cifar100,$(few),--method bs)
$(call paper-table,table3)

table3: $(call printed,table3) ## Table 3: CIFAR-100
	@cat $(filter %.txt,$^)

.PHONY: table3
