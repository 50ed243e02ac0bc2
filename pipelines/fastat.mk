# Published fast methods at equal cost, that of 15 epochs of bs: the number of epochs nearest to 120 passes per training
# image, forward plus backward. Each is trained plainly, and with averaged weights and smoothed labels as in
# FastAT_Benchmark, whose numbers are shown for comparison. fgsm-mep is fgsm-pgi.
fastat.evaluate := --attack natural,autoattack --audit $(if $(filter smoke small,$(SCALE)),30,100) $(if $(filter small,$(SCALE)),--limit 1000)
fastat-averaged.evaluate := $(fastat.evaluate)
fastat-averaged.weights := .ema
fastat-epochs.evaluate := $(fastat.evaluate)
bench = $(foreach method,$(2),\
  $(call row,fastat,cyclic,$(few),--method $(method) --epochs $(1)) \
  $(call row,fastat-averaged,cyclic,$(few),--method $(method) --epochs $(1) --ema 0.9995 --label-smoothing 0.4) \
  $(call row,fastat-epochs,cyclic,$(few),--method $(method) --epochs 15))
$(call bench,15,bs multi-grad)
$(call bench,30,fast-at fast-at-plus n-fgsm zero-grad rs-aaer n-aaer atas)
$(call bench,24,liet fgsm-pgi uap cuap rs-cs)
$(call bench,20,bs-alone bs-at nuat gat ssat)
$(call bench,17,fast-trades gradalign pco)
$(call bench,13,fast-trades-2)
$(call bench,12,elle)
$(call bench,8,free-at)
$(call bench,5,at trades mart dynamic-at)
$(call bench,4,llr)
fastats := fastat fastat-averaged fastat-epochs
fastat.title := --title 'Fast methods at 120 passes, SCALE=$(SCALE)'
fastat-averaged.title := --title 'Fast methods at 120 passes with averaged weights and smoothed labels, SCALE=$(SCALE)'
fastat-epochs.title := --title 'Fast methods at 15 epochs, SCALE=$(SCALE)'
$(foreach t,$(fastats),$(eval $(t).cyclic.compare := --pareto --paper fastat)$(call table,$(t),$(call here,$(t))))

fastat.tables := fastat fastat-averaged
fastat: $(foreach t,$(fastat.tables),$(call here,$(t))/cyclic/table.txt $(call here,$(t))/cyclic/curves.svg) ## Published fast methods at equal passes, plain and averaged, with FastAT_Benchmark's numbers
	@cat $(filter %.txt,$^)

fastat-epochs: $(call here,fastat-epochs)/cyclic/table.txt ## The same methods at equal epochs
	@cat $<

.PHONY: fastat fastat-epochs
