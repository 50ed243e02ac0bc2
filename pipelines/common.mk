# The three rules of every experiment: train, evaluate, compare.
#
# A SETTING is a data set and the flags that all its trainings share. Its trainings are in one folder:
#   $(eval $(call setting,SETTING,FOLDER,DATA,THREADS,FLAGS))
# A TABLE has rows. A row is one method with its flags, run with several seeds:
#   $(call row,TABLE,SETTING,SEEDS,FLAGS)
#   TABLE.evaluate      flags of its evaluations, if not the usual ones
#   TABLE.unevaluated   "yes" if its networks are not evaluated
#   TABLE.starts        the output file of bsk starts, if it uses that
#   TABLE.weights       suffix of the evaluated checkpoint, if not the run's best: .ema
# $(call table,TABLE,FOLDER) then makes, for each of its settings, in FOLDER/SETTING/
#   results.jsonl, table.txt .tsv .md .tex .jsonl, figure.png   by bsk compare with TABLE.title and TABLE.SETTING.compare
#   logs.jsonl, curves.svg   by bsk plot curves, one line per value of TABLE.by (default: per method)
# from these files in the setting's folder. A RUN is named by its flags, so that tables share runs.
#   RUN.safetensors, .last.safetensors, .jsonl   by bsk train
#   RUN.train.json          its record, written last, when the training is complete
#   RUN.evaluations.jsonl   by bsk evaluate, written gradually
#   RUN.eval.jsonl          the same, when complete; RUN.TABLE.eval.jsonl if the table has its own flags
# Every target is written to a temporary file and then renamed, so that a killed make resumes where it stopped. The
# temporary file is named by its process, so that two makes in one OUT do not write to the same one. If the flags of a
# setting change (FOLDER/setting.flags), all its runs are made again; bsk train then refuses to overwrite the
# old ones: remove the folder, or use OUT=. If the flags or runs of an evaluation, a table or a picture change, it is made
# again. PARTIAL=yes makes tables and curves from the runs that exist.

space := $(subst x, ,x)
comma := ,

# CIFAR10=, CIFAR100=, TINY=: an archive, folder or URL; by default the official archive is downloaded.
CIFAR10  ?=
CIFAR100 ?=
TINY     ?=
$(DATA)/digits.safetensors.flags := digits
$(DATA)/cifar10.safetensors.flags := cifar10 $(if $(CIFAR10),--from '$(CIFAR10)')
$(DATA)/cifar100.safetensors.flags := cifar100 $(if $(CIFAR100),--from '$(CIFAR100)')
$(DATA)/tiny-imagenet.safetensors.flags := tiny-imagenet $(if $(TINY),--from '$(TINY)')
$(foreach d,cifar10 cifar100 tiny-imagenet,$(eval \
  $(DATA)/$(d)-small.safetensors.flags := $($(DATA)/$(d).safetensors.flags) --train-limit 9000 --test-limit 2000) \
  $(eval $(DATA)/$(d)-medium.safetensors.flags := $($(DATA)/$(d).safetensors.flags) --test-limit 2000))

$(DATA)/%.safetensors: | $(INSTALLED)
	$(flagged)$(BSK) prepare-data $($@.flags) --out $@ > /dev/null
	@printf '%s\n' $(call quoted,$(strip $($@.flags))) > $@.made

%.train.json: | $(INSTALLED)
	$(flagged)mkdir -p $(@D)
	$(LAUNCH) $(BSK) train $($@.flags) --device $(DEVICE) --out $*.safetensors --quiet $(written)

%.eval.jsonl: | $(INSTALLED)
	$(flagged)$(LAUNCH) $(BSK) evaluate $($@.checkpoint) $($@.flags) --device $(DEVICE) --out $($@.run).evaluations.jsonl --quiet \
	  $(written)

%/results.jsonl:
	@$(call some,$(filter-out %.flags,$^))

%.flags:
	@mkdir -p $(@D)
	@printf '%s\n' $(call quoted,$(strip $($@))) $(written)

# $(call noted,X): the file X.flags, which is made again if its content differs from the variable X.flags.
noted = $(1).flags$(if $(call differ,$(strip $(file <$(1).flags)),$(strip $($(1).flags))),$(eval $(1).flags: FORCE))
differ = $(subst x$(1)x,,x$(2)x)$(subst x$(2)x,,x$(1)x)
flagged = $(if $($@.flags),,$(error $@: no such run of the pipelines))
written = > $@.$$$$.tmp && mv $@.$$$$.tmp $@ || { code=$$?; rm -f $@.$$$$.tmp; exit $$code; }
some = $(if $(1),cat $(1) $(written),echo "$@: none of its runs exists; give SEEDS= of existing runs, or run it without PARTIAL=yes" >&2; exit 2)
quoted = '$(subst ','\'',$(1))'
FORCE:
.PHONY: FORCE

# Data are not prepared again if the archive is named in another way, since all trainings would be due: a warning says it.
$(foreach v,CIFAR10:cifar10 CIFAR100:cifar100 TINY:tiny-imagenet,$(if $($(firstword $(subst :, ,$(v)))),$(foreach \
  d,$(addprefix $(DATA)/$(lastword $(subst :, ,$(v))),.safetensors -small.safetensors -medium.safetensors),$(if \
  $(and $(wildcard $(d).made),$(call differ,$(strip $(file <$(d).made)),$(strip $($(d).flags)))),$(warning $(d): \
  was made by prepare-data $(strip $(file <$(d).made)); remove it to make it from $($(firstword $(subst :, ,$(v)))))))))

%/table.txt: %/results.jsonl | $(INSTALLED)
	$(BSK) compare $< $($@.flags) $(foreach end,tsv md tex jsonl,--out $*/table.$(end)) --plot $*/figure.png \
	  --format table $(written)

%/logs.jsonl:
	@$(call some,$(patsubst %.train.json,%.jsonl,$(filter-out %.flags,$^)))

%/curves.svg: %/logs.jsonl | $(INSTALLED)
	$(BSK) plot curves $< $($@.flags) --y loss$(comma)val_natural$(comma)val_robust$(comma)passes$(comma)seconds --out $@ --quiet

%/picture.png: | $(INSTALLED)
	$(BSK) plot $($@.flags) $< --out $*/picture.svg --out $@

# The run name of flags: bs_step-6of255 for --method bs --step 6/255; its seed 3 is bs_step-6of255_seed-3.
slug = $(subst /,of,$(subst $(space),-,$(subst $(space)--,_,$(strip $(subst --method,,$(1))))))

usual := --attack natural,pgd-100
get = $(if $(filter undefined,$(origin $(1))),,$($(1)))
once = $(1) $(if $(filter $(2),$(1)),,$(2))
known :=

define setting
$(1).folder  := $(2)
$(1).data    := $(DATA)/$(3).safetensors
$(1).threads := $(if $(4),--threads $(4))
$(1).flags   := $(5)
$(2)/setting.flags := $(3) $(5)
endef

row = $(foreach seed,$(3),$(eval $(call run,$(1),$(2),$(seed),$(4),$($(2).folder)/$(call slug,$(4))_seed-$(seed),$(call ending,$(1)))))
ending = $(if $(call get,$(1).evaluate),.$(1)).eval.jsonl

define run
$(1).settings := $(call once,$(call get,$(1).settings),$(2))
$(1).$(2).seeds := $(call once,$(call get,$(1).$(2).seeds),$(3))
$(1).$(2).runs := $(call get,$(1).$(2).runs) $(3):$(5)
$(if $(filter $(5).train.json,$(known)),,$(call training,$(5).train.json,$(2),--data $($(2).data) $($(2).flags) $($(2).threads) $(4) --seed $(3)))
$(if $(filter $(5)$(6),$(known)),,$(call evaluation,$(5)$(6),$(5),$($(2).folder)/$(if $(call get,$(1).evaluate),$(1),usual),--data $($(2).data) $(or $(call get,$(1).evaluate),$(if $(filter command,$(origin usual)),$(usual)),$(call get,$(2).usual),$(usual)) $($(2).threads),$(call get,$(1).weights)))
endef

define training
known += $(1)
$(1).flags := $(3)
$(1).noted := $($(2).folder)/setting
$(1): $($(2).data) $(call noted,$($(2).folder)/setting)

endef

define evaluation
known += $(1)
$(1).run := $(2)
$(1).checkpoint := $(2)$(5).safetensors
$(1).flags := $(4)
$(1).noted := $(3)
$(3).flags := $(4)
$(1): $(2).train.json $$(call noted,$(3))

endef

table = $(foreach s,$($(1).settings),$(eval $(call comparison,$(2)/$(s),$(call evaluations,$(1),$(s)),$(call get,$(1).title) $(call get,$(1).$(s).compare)))$(eval $(call training-curves,$(2)/$(s),$(addsuffix .train.json,$(call runs,$(1),$(s))),--by $(or $(call get,$(1).by),method) $(call get,$(1).title))))
tables = $(foreach s,$($(1).settings),$(2)/$(s)/table.txt $(2)/$(s)/curves.svg)
# All rows of one seed come before the next seed, so that a partial experiment is informative.
runs = $(foreach seed,$($(1).$(2).seeds),$(patsubst $(seed):%,%,$(filter $(seed):%,$($(1).$(2).runs))))
evaluations = $(addsuffix $(call ending,$(1)),$(call runs,$(1),$(2)))

$(if $(filter-out yes no,$(PARTIAL)),$(error PARTIAL=$(PARTIAL): yes or no))
there = $(if $(filter yes,$(PARTIAL)),$(wildcard $(1)),$(1))
# $(call titled,FLAGS,FILES): FLAGS, with a title that says how many of the files exist, if not all do.
titled = $(if $(filter-out $(call there,$(2)),$(2)),$(subst SCALE=$(SCALE)',SCALE=$(SCALE)$(comma) $(words $(call there,$(2))) of $(words $(2)) runs',$(1)),$(1))

define comparison
$(1)/results.jsonl.flags := $(call there,$(2))
$(1)/results.jsonl: $(call there,$(2)) $$(call noted,$(1)/results.jsonl)
$(1)/table.txt.flags := $(call titled,$(3),$(2))
$(1)/table.txt: $$(call noted,$(1)/table.txt)
endef

define training-curves
$(1)/logs.jsonl.flags := $(call there,$(2))
$(1)/logs.jsonl: $(call there,$(2)) $$(call noted,$(1)/logs.jsonl)
$(1)/curves.svg.flags := $(call titled,$(3),$(2))
$(1)/curves.svg: $$(call noted,$(1)/curves.svg)
endef

define drawing
$(1)/picture.png.flags := $(call titled,$(3),$(4))
$(1)/picture.png: $(1)/$(2).jsonl $$(call noted,$(1)/picture.png)
endef

tab := $(subst x,	,x)
trainings = $(foreach s,$($(1).settings),$(addsuffix .train.json,$(call runs,$(1),$(s))))
distinct = $(if $(1),$(firstword $(1)) $(call distinct,$(filter-out $(firstword $(1)),$(1))))
jobs = $(call distinct,$(foreach e,$(1),$(foreach s,$($(e).settings),prepare-data:$($(s).data)) \
  $(addprefix train:,$(call trainings,$(e))) \
  $(if $(call get,$(e).unevaluated),,$(foreach s,$($(e).settings),$(addprefix evaluate:,$(call evaluations,$(e),$(s))))) \
  $(addprefix starts:,$(call get,$(e).starts))))
job = $(info $(1)$(tab)$(2)$(tab)$(if $(filter evaluate starts,$(1)),$($(2).checkpoint) )$($(2).flags)$(if $(wildcard $(2)),$(call changed,$(2),$(call get,$(2).noted))))
changed = $(if $(2),$(if $(call differ,$(strip $(file <$(2).flags)),$(strip $($(2).flags)))$(shell test '$(2).flags' -nt '$(1)' && echo newer),$(tab)changed))

# A target that makes several tables names them in TARGET.tables.
paper.tables = $(experiments)
known-table = $(if $(filter paper $(others) $(experiments) $(readmes),$(1)),,$(error $(1): no such table or figure; make help lists them))
jobs-%: ## List the jobs of TABLE as TSV: command, target, flags, and "changed" if they differ from those it was made with
	@: $(call known-table,$*) $(foreach j,$(call jobs,$(or $(call get,$*.tables),$*)),$(call job,$(firstword $(subst :, ,$(j))),$(lastword $(subst :, ,$(j)))))

plan-%: $(INSTALLED) ## Predict the cost of each job of TABLE here: passes, hours, disk; runs nothing
	@: $(call known-table,$*)
	@$(MAKE) --silent --no-print-directory jobs-$* | $(BSK) plan --device $(DEVICE)
