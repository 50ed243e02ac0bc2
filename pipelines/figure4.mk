# Figure 4 (a sketch in the paper): where uniform and backward starts land in the output space of a trained network.
figure4 := $(call here,figure4)/cifar10
figure4.run := $(cifar10.folder)/bs_seed-$(firstword $(few))
figure4.unevaluated := yes
$(call row,figure4,cifar10,$(firstword $(few)),--method bs)

figure4.starts := $(figure4)/landings.jsonl
$(figure4.starts).checkpoint := $(figure4.run).safetensors
$(figure4.starts).flags := --data $(cifar10.data) --start uniform,backward --limit 200
$(figure4.starts).noted := $(figure4.starts)
$(figure4.starts): $(figure4.run).train.json $(call noted,$(figure4.starts))
	mkdir -p $(@D)
	$(LAUNCH) $(BSK) starts $($@.checkpoint) $($@.flags) --device $(DEVICE) --quiet $(written)

$(figure4)/picture.png.flags := landings $(call title,figure4)
$(figure4)/picture.png: $(figure4)/landings.jsonl $(call noted,$(figure4)/picture.png)

figure4: $(figure4)/picture.png ## Figure 4: where uniform and backward starts land in output space

.PHONY: figure4
