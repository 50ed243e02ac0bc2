# The three rules of every experiment: train, evaluate, compare.
#
# An experiment NAME is
#   NAME.data     the prepared data file
#   NAME.flags    flags of every training
#   NAME.attacks  what every model is evaluated under
#   NAME.rows     one name for each row of the printed table, each with
#   NAME.ROW.flags and NAME.ROW.seeds
# and $(eval $(call experiment,NAME)) makes, under $(OUT)/NAME/,
#   ROW-SEED.safetensors, .last.safetensors, .jsonl   by bsk train
#   ROW-SEED.train.json   its record, written last: the training is done
#   ROW-SEED.evaluations.jsonl   by bsk evaluate, as it goes
#   ROW-SEED.eval.jsonl   the same, complete
#   table.txt .tsv .md, figure.png   by bsk compare
# Each target appears whole (written aside, then moved), so that a killed make goes on where it was.

$(DATA)/digits.safetensors: | $(INSTALLED)
	$(BSK) prepare-data digits --out $@ > /dev/null

# CIFAR10=archive, folder or URL; without it the official archive is downloaded.
CIFAR10 ?=
$(DATA)/cifar10.safetensors: | $(INSTALLED)
	$(BSK) prepare-data cifar10 $(if $(CIFAR10),--from '$(CIFAR10)') --out $@ > /dev/null

# All rows of one seed before the next seed, so that a half-done experiment can be read.
seeds = $(sort $(foreach row,$($(1).rows),$($(1).$(row).seeds)))
runs = $(foreach seed,$(seeds),$(foreach row,$($(1).rows),$(if $(filter $(seed),$($(1).$(row).seeds)),$(OUT)/$(1)/$(row)-$(seed))))

define experiment
$(foreach row,$($(1).rows),$(foreach seed,$($(1).$(row).seeds),$(eval $(call training,$(1),$(row),$(seed)))))

$(OUT)/$(1)/results.jsonl: $(addsuffix .eval.jsonl,$(call runs,$(1)))
	cat $$^ > $$@.tmp && mv $$@.tmp $$@

$(OUT)/$(1)/table.txt: $(OUT)/$(1)/results.jsonl
	$(BSK) compare $$< --format tsv > $$(@D)/table.tsv
	$(BSK) compare $$< --format markdown > $$(@D)/table.md
	$(BSK) compare $$< --format table --plot $$(@D)/figure.png > $$@.tmp && mv $$@.tmp $$@
endef

define training
$(OUT)/$(1)/$(2)-$(3).train.json: $($(1).data) | $(INSTALLED)
	mkdir -p $$(@D)
	$(LAUNCH) $(BSK) train --data $($(1).data) $($(1).flags) $($(1).$(2).flags) --seed $(3) --device $(DEVICE) \
	  --out $$(@:.train.json=.safetensors) > $$@.tmp && mv $$@.tmp $$@

$(OUT)/$(1)/$(2)-$(3).eval.jsonl: $(OUT)/$(1)/$(2)-$(3).train.json
	$(LAUNCH) $(BSK) evaluate $$(@:.eval.jsonl=.safetensors) --data $($(1).data) --attack $($(1).attacks) \
	  --device $(DEVICE) $(if $($(1).threads),--threads $($(1).threads)) \
	  --out $$(@:.eval.jsonl=.evaluations.jsonl) > $$@.tmp && mv $$@.tmp $$@
endef
