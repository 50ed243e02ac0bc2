# Figure 5: stability of the fast methods, ten seeds.
$(call row,figure5,cifar10,$(ten),--method fast-at)
$(call row,figure5,cifar10,$(ten),--method fast-trades)
$(call row,figure5,cifar10,$(ten),--method fast-trades-2)
$(call row,figure5,cifar10,$(ten),--method bs)
$(call paper-figure,figure5,boxes --by method,results)

figure5: $(call drawn,figure5) ## Figure 5: stability of the fast methods, ten seeds
	@cat $(filter %.txt,$^)

.PHONY: figure5
