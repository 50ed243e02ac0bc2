# Accuracy for a given training budget: every fast method for the number of epochs nearest to 16, 48 and 160 passes per
# training image, forward plus backward (bs has 4F + 4B, so 2, 6 and 20 epochs), with averaged weights. Ten-step methods
# exceed 16 passes, so at and trades have one epoch there. The middle budget is also evaluated by autoattack.
frontier.weights := .ema
frontier.evaluate := --attack natural,screen $(if $(filter small,$(SCALE)),--limit 1000)
budget.weights := .ema
budget.evaluate := --attack natural,autoattack --limit 1000
averaged = $(call row,$(1),cyclic,$(few),--method $(2) --epochs $(3) --ema 0.999)
affordable = $(foreach epochs,$(2),$(call averaged,frontier,$(1),$(epochs)))$(call averaged,budget,$(1),$(word 2,$(2)))
$(call affordable,fast-at,4 12 40)
$(call affordable,n-fgsm,4 12 40)
$(call affordable,liet,3 10 32)
$(call affordable,fast-trades,2 7 23)
$(call affordable,bs,2 6 20)
$(call affordable,trades,1 2 6)
$(call affordable,at,1 2 7)
frontier.title := --title 'Frontier, SCALE=$(SCALE)'
frontier.cyclic.compare := --pareto
budget.title := --title 'Budget of 48 passes, SCALE=$(SCALE)'
$(foreach t,frontier budget,$(call table,$(t),$(call here,$(t))))

frontier: $(call here,frontier)/cyclic/table.txt ## Accuracy for 16, 48 and 160 passes per image, by method: the table and its Pareto frontier
	@cat $<

budget: $(call here,budget)/cyclic/table.txt ## Accuracy for 48 passes per image, under autoattack on 1,000 images
	@cat $<

.PHONY: frontier budget
