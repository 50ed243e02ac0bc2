# Figure 3: the KL divergence after the start and after the ascent, by epoch.
$(call row,figure3,cifar10,$(few),--method fast-trades)
$(call row,figure3,cifar10,$(few),--method bs)
$(call paper-figure,figure3,curves --y kl_start$(comma)kl_ascent,logs)

figure3: $(call drawn,figure3) ## Figure 3: the KL divergence after the start and after the ascent
	@cat $(filter %.txt,$^)

.PHONY: figure3
