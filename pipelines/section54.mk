# Section 5.4: the backward start for Fast AT, ten seeds.
$(call row,section54,cifar10,$(ten),--method fast-at)
$(call row,section54,cifar10,$(ten),--method bs-at)
$(call paper-table,section54)

section54: $(call printed,section54) ## Section 5.4: the backward start for Fast AT
	@cat $(filter %.txt,$^)

.PHONY: section54
