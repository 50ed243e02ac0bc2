# Table 7: sensitivity to the step size.
table7.by := step
$(call row,table7,cifar10,$(few),--method bs --step $(call step,6))
$(call row,table7,cifar10,$(few),--method bs --step $(call step,7))
$(call row,table7,cifar10,$(few),--method bs)
$(call row,table7,cifar10,$(few),--method bs --step $(call step,9))
$(call row,table7,cifar10,$(few),--method bs --step $(call step,10))
$(call row,table7,cifar10,$(few),--method bs --step $(call step,11))
$(call row,table7,cifar10,$(few),--method bs --step $(call step,12))
$(call row,table7,cifar100,$(few),--method bs --step $(call step,6))
$(call row,table7,cifar100,$(few),--method bs --step $(call step,7))
$(call row,table7,cifar100,$(few),--method bs)
$(call row,table7,cifar100,$(few),--method bs --step $(call step,9))
$(call row,table7,cifar100,$(few),--method bs --step $(call step,10))
$(call row,table7,cifar100,$(few),--method bs --step $(call step,11))
$(call row,table7,cifar100,$(few),--method bs --step $(call step,12))
$(call paper-table,table7)

table7: $(call printed,table7) ## Table 7: sensitivity to the step size
	@cat $(filter %.txt,$^)

.PHONY: table7
