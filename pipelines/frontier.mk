# What a budget of training buys: each fast method for the whole number of epochs nearest to 16, 48 and 160 passes of every
# training image, forward and backward counted alike (bs has 4F + 4B, so 2, 6 and 20 epochs), with averaged weights. Ten
# steps do not fit into 16 passes: at and trades have one epoch there. The middle budget also by autoattack.
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

frontier: $(call here,frontier)/cyclic/table.txt ## What 16, 48 and 160 passes an image buy, by method: the table and its Pareto frontier
	@cat $<

budget: $(call here,budget)/cyclic/table.txt ## What 48 passes an image buy, by autoattack on 1,000 images
	@cat $<

.PHONY: frontier budget
