# Table 4: Tiny ImageNet, ResNet-50.
$(call row,table4,tiny-imagenet,$(few),--method at)
$(call row,table4,tiny-imagenet,$(few),--method fast-at)
$(call row,table4,tiny-imagenet,$(few),--method trades)
$(call row,table4,tiny-imagenet,$(few),--method fast-trades)
$(call row,table4,tiny-imagenet,$(few),--method fast-trades-2)
$(call row,table4,tiny-imagenet,$(few),--method bs)
$(call paper-table,table4)

table4: $(call printed,table4) ## Table 4: Tiny ImageNet, ResNet-50
	@cat $(filter %.txt,$^)

.PHONY: table4
