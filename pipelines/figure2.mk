# Figure 2: Fast TRADES by step size, ten seeds.
figure2.by := step
$(call row,figure2,cifar10,$(ten),--method fast-trades --step $(call step,6))
$(call row,figure2,cifar10,$(ten),--method fast-trades --step $(call step,7))
$(call row,figure2,cifar10,$(ten),--method fast-trades)
$(call row,figure2,cifar10,$(ten),--method fast-trades --step $(call step,9))
$(call row,figure2,cifar10,$(ten),--method fast-trades --step $(call step,10))
$(call paper-figure,figure2,boxes --by step,results)

figure2: $(call drawn,figure2) ## Figure 2: Fast TRADES by step size, ten seeds
	@cat $(filter %.txt,$^)

.PHONY: figure2
