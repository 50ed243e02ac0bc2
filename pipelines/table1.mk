# Table 1: the gap between single-step and multi-step training (section 4.1).
# The paper gives the mean and the best of ten runs of Fast AT; the column `best` is the best of our runs.
$(call row,table1,cifar10,$(ten),--method fast-at)
$(call row,table1,cifar10,$(few),--method at)
$(call row,table1,cifar10,$(few),--method trades)
$(call paper-table,table1)

table1: $(call printed,table1) ## Table 1: the gap between single-step and multi-step training
	@cat $(filter %.txt,$^)

.PHONY: table1
