# SCALE selects data, networks and radii for the paper's experiments; the rows of their tables are the same.
#
#   smoke  digits at eps 0.2, a small network: minutes on a laptop, including ten seeds
#   small  9,000 CIFAR images at eps 16/255, narrow networks: hours on a CPU
#   medium all training images at the paper's radius, narrow networks, 15 epochs: days on a CPU
#   paper  the paper's setting; needs a GPU
$(if $(filter $(SCALE),smoke small medium paper),,$(error SCALE=$(SCALE): no such scale; smoke, small, medium or paper))

# Seeds: `few` for what the paper runs once (or does not say), `ten` for what it runs ten times. SEEDS= overrides both.
SEEDS ?=
few.smoke := 1 2 3
few.small := 1 2 3
few.medium := 1 2 3
few.paper := 1
few := $(or $(SEEDS),$(few.$(SCALE)))
ten := $(or $(SEEDS),1 2 3 4 5 6 7 8 9 10)

# $(call step,K): the paper's step size K/255, given for the radius 8/255, at this scale's radius: 0.2 is 8/40, and 16/255
# is 8/127.5.
unit.smoke := 40
unit.small := 127.5
unit.medium := 255
unit.paper := 255
step = $(1)/$(unit.$(SCALE))

# The data set of the paper's numbers that each setting is compared with.
cifar10.published       := cifar10
cyclic.published        := cifar10
cifar100.published      := cifar100
tiny-imagenet.published := tiny-imagenet
wide.published          := cifar10

# $(call scaled,SCALE,SETTING,FOLDER,DATA,THREADS,FLAGS): a setting at one scale. Settings in one folder share trainings.
scaled = $(if $(filter $(1),$(SCALE)),$(eval $(call setting,$(2),$(OUT)/$(SCALE)/runs/$(3),$(4),$(5),$(6)))$(eval $(2).usual := $(call get,usual.$(1))))

# smoke, small and medium use the cyclic schedule, since a piecewise one needs more epochs than are affordable on a CPU
# (after 12 on the digits, `bs` is below Fast TRADES). So table 8 is table 2 plus Fast AT+.
smoke := --epochs 12 --batch-size 100 --schedule cyclic --lr 0.2 --log-divergence
$(foreach s,cifar10 cyclic cifar100 tiny-imagenet wide,$(call scaled,smoke,$(s),digits,digits,1,$(smoke)))

small := --eps 16/255 --epochs 12 --schedule cyclic --lr 0.2 --log-divergence
narrow := --model resnet18-16 $(small)
$(foreach s,cifar10 cyclic,$(call scaled,small,$(s),cifar10,cifar10-small,1,$(narrow)))
$(call scaled,small,cifar100,cifar100,cifar100-small,1,$(narrow))
$(call scaled,small,tiny-imagenet,tiny-imagenet,tiny-imagenet-small,1,--model resnet50-16 $(small))
$(call scaled,small,wide,cifar10-wide,cifar10-small,1,--model wrn-16-2 $(small))

# A quarter of the paper's width and a seventh of its epochs, in bf16, which CPUs support.
usual.medium := --attack natural,pgd-100,screen
medium := --eps 0.031 --epochs 15 --schedule cyclic --lr 0.2 --precision bf16 --log-divergence
$(foreach s,cifar10 cyclic,$(call scaled,medium,$(s),cifar10,cifar10-medium,1,--model resnet18-16 $(medium)))
$(call scaled,medium,cifar100,cifar100,cifar100-medium,1,--model resnet18-16 $(medium))
$(call scaled,medium,tiny-imagenet,tiny-imagenet,tiny-imagenet-medium,1,--model resnet50-16 $(medium))
$(call scaled,medium,wide,cifar10-wide,cifar10-medium,1,--model wrn-16-2 $(medium))

# Section 5.1. The paper gives neither the number of epochs of the cyclic schedule (here 15, as in Wong et al., its
# authors) nor the kind of half precision.
paper := --eps 0.031 --epochs 100 --schedule piecewise --lr 0.1 --precision fp32 --log-divergence
$(call scaled,paper,cifar10,cifar10,cifar10,,--model resnet18 $(paper))
$(call scaled,paper,cyclic,cifar10-cyclic,cifar10,,--model resnet18 --eps 0.031 --epochs 15 --schedule cyclic --lr 0.2 --precision fp16)
$(call scaled,paper,cifar100,cifar100,cifar100,,--model resnet18 $(paper))
$(call scaled,paper,tiny-imagenet,tiny-imagenet,tiny-imagenet,,--model resnet50 $(paper))
$(call scaled,paper,wide,cifar10-wide,cifar10,,--model wrn-34-10 $(paper))

# $(call paper-table,TABLE): a table of the paper, with the paper's numbers next to ours.
# $(call paper-figure,FIGURE,KIND AND FLAGS,SOURCE): a figure, by bsk plot from results or logs, and a table of its data.
here = $(OUT)/$(SCALE)/$(1)
title = --title '$(subst table,Table ,$(subst figure,Figure ,$(subst section54,Section 5.4,$(1)))), SCALE=$(SCALE)'
paper-table = $(eval $(1).title := $(call title,$(1)))$(foreach s,$($(1).settings),$(eval $(1).$(s).compare := --paper $(1:table%=%)/$($(s).published)))$(call table,$(1),$(here))
paper-figure = $(eval $(1).title := $(call title,$(1)))$(call table,$(1),$(here))$(foreach s,$($(1).settings),$(eval $(call drawing,$(here)/$(s),$(3),$(2) $(call title,$(1)),$(addsuffix .train.json,$(call runs,$(1),$(s))))))
printed = $(call tables,$(1),$(here))
drawn = $(call tables,$(1),$(here)) $($(1).settings:%=$(here)/%/picture.png)
