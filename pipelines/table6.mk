# Table 6: sensitivity to gamma.
table6.by := gamma
$(call row,table6,cifar10,$(few),--method bs --gamma 0.1)
$(call row,table6,cifar10,$(few),--method bs --gamma 0.5)
$(call row,table6,cifar10,$(few),--method bs)
$(call row,table6,cifar10,$(few),--method bs --gamma 2)
$(call row,table6,cifar10,$(few),--method bs --gamma 5)
$(call row,table6,cifar100,$(few),--method bs --gamma 0.1)
$(call row,table6,cifar100,$(few),--method bs --gamma 0.5)
$(call row,table6,cifar100,$(few),--method bs)
$(call row,table6,cifar100,$(few),--method bs --gamma 2)
$(call row,table6,cifar100,$(few),--method bs --gamma 5)
$(call paper-table,table6)

table6: $(call printed,table6) ## Table 6: sensitivity to gamma
	@cat $(filter %.txt,$^)

.PHONY: table6
