# Figure 1: Fast AT by step size, ten seeds.
figure1.by := step
$(call row,figure1,cifar10,$(ten),--method fast-at --step $(call step,6))
$(call row,figure1,cifar10,$(ten),--method fast-at --step $(call step,7))
$(call row,figure1,cifar10,$(ten),--method fast-at --step $(call step,8))
$(call row,figure1,cifar10,$(ten),--method fast-at --step $(call step,9))
$(call row,figure1,cifar10,$(ten),--method fast-at)
$(call paper-figure,figure1,boxes --by step,results)

figure1: $(call drawn,figure1) ## Figure 1: Fast AT by step size, ten seeds
	@cat $(filter %.txt,$^)

.PHONY: figure1
