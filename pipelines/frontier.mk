# What a budget of training buys: each fast method for as many epochs as fit into 16, 48 and 160 passes of every training
# image, forward and backward counted alike (methods table: bs has 4F + 4B, so 2, 6 and 20 epochs), with averaged weights. Ten steps do not fit into 16 passes: at and trades have one epoch there.
frontier.also := .ema
frontier.evaluate := --attack natural,screen
affordable = $(foreach epochs,$(2),$(call row,frontier,cyclic,$(few),--method $(1) --epochs $(epochs) --ema 0.999))
$(call affordable,fast-at,4 12 40)
$(call affordable,n-fgsm,4 12 40)
$(call affordable,liet,3 8 27)
$(call affordable,fast-trades,2 7 23)
$(call affordable,bs,2 6 20)
$(call affordable,trades,1 2 6)
$(call affordable,at,1 2 7)
frontier.title := --title 'Frontier, SCALE=$(SCALE)'
frontier.cyclic.compare := --pareto
$(call table,frontier,$(call here,frontier))

frontier: $(call here,frontier)/cyclic/table.txt ## What 16, 48 and 160 passes an image buy, by method: the table and its Pareto frontier
	@cat $<

.PHONY: frontier
