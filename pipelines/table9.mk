# Table 9: sensitivity to beta.
table9.by := beta
$(call row,table9,cifar10,$(few),--method bs --beta 2)
$(call row,table9,cifar10,$(few),--method bs --beta 4)
$(call row,table9,cifar10,$(few),--method bs --beta 6)
$(call row,table9,cifar10,$(few),--method bs --beta 8)
$(call row,table9,cifar10,$(few),--method bs)
$(call row,table9,cifar10,$(few),--method bs --beta 12)
$(call row,table9,cifar100,$(few),--method bs --beta 2)
$(call row,table9,cifar100,$(few),--method bs --beta 4)
$(call row,table9,cifar100,$(few),--method bs --beta 6)
$(call row,table9,cifar100,$(few),--method bs --beta 8)
$(call row,table9,cifar100,$(few),--method bs)
$(call row,table9,cifar100,$(few),--method bs --beta 12)
$(call paper-table,table9)

table9: $(call printed,table9) ## Table 9: sensitivity to beta
	@cat $(filter %.txt,$^)

.PHONY: table9
