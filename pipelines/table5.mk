# Table 5: WRN-34-10 under AutoAttack and RayS.
# The paper quotes its other rows from leaderboards, with other networks and two radii. Here all rows are trained and
# evaluated in the same way.
smoke.strong := --queries 500 --limit 100
small.strong := --queries 2000 --limit 500
medium.strong := --queries 2000 --limit 500
paper.strong := --queries 40000
table5.evaluate := --attack natural,autoattack,rays $($(SCALE).strong)
$(call row,table5,wide,$(few),--method at)
$(call row,table5,wide,$(few),--method fast-at)
$(call row,table5,wide,$(few),--method trades)
$(call row,table5,wide,$(few),--method bs)
$(call paper-table,table5)

table5: $(call printed,table5) ## Table 5: WRN-34-10 under AutoAttack and RayS
	@cat $(filter %.txt,$^)

.PHONY: table5
