# Table 8: cyclic schedule and mixed precision.
# The paper quotes Fast AT+ from Li et al. (2020), with another machine and protocol.
$(call row,table8,cyclic,$(few),--method at)
$(call row,table8,cyclic,$(few),--method fast-at)
$(call row,table8,cyclic,$(few),--method fast-at-plus)
$(call row,table8,cyclic,$(few),--method trades)
$(call row,table8,cyclic,$(few),--method fast-trades)
$(call row,table8,cyclic,$(few),--method fast-trades-2)
$(call row,table8,cyclic,$(few),--method bs)
$(call paper-table,table8)

table8: $(call printed,table8) ## Table 8: cyclic schedule and mixed precision
	@cat $(filter %.txt,$^)

.PHONY: table8
