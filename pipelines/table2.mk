# Table 2: CIFAR-10.
# The paper's Fast AT is the best of ten runs; its mean is in table 1.
$(call row,table2,cifar10,$(few),--method at)
$(call row,table2,cifar10,$(few),--method fast-at)
$(call row,table2,cifar10,$(few),--method trades)
$(call row,table2,cifar10,$(few),--method fast-trades)
$(call row,table2,cifar10,$(few),--method fast-trades-2)
$(call row,table2,cifar10,$(few),--method bs)
$(call paper-table,table2)

table2: $(call printed,table2) ## Table 2: CIFAR-10
	@cat $(filter %.txt,$^)

.PHONY: table2
