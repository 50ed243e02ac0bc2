# Fast methods, the paper's and later ones, under one protocol, compared with ten-step training.
$(foreach method,fast-at fast-at-plus fast-trades fast-trades-2 bs n-fgsm liet at trades,$(call row,fast,cyclic,$(few),--method $(method)))
fast.title := --title 'Fast methods, SCALE=$(SCALE)'
fast.cyclic.compare := --pareto
$(call table,fast,$(call here,fast))

fast: $(call here,fast)/cyclic/table.txt ## Fast methods under one protocol: the table and its Pareto frontier
	@cat $<

.PHONY: fast
