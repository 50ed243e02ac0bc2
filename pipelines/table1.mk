# Table 1: What single-step training leaves to be gained.
# Section 4.1. The paper gives the mean and the best of ten runs of Fast AT; `best` in the table is the best of ours.
$(call row,table1,cifar10,$(ten),--method fast-at)
$(call row,table1,cifar10,$(few),--method at)
$(call row,table1,cifar10,$(few),--method trades)
$(call paper-table,table1)

table1: $(call printed,table1) ## Table 1: What single-step training leaves to be gained
	@cat $(filter %.txt,$^)

.PHONY: table1
