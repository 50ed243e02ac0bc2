# Sweep gamma with several seeds each and draw the result: make -f examples/gamma.mk -j2
BSK    ?= bsk
OUT    ?= out/gamma
EPOCHS ?= 10
SEEDS  ?= 1 2 3
runs   := $(foreach gamma,0.5 1 2,$(foreach seed,$(SEEDS),$(OUT)/gamma-$(gamma)-$(seed)))

$(OUT)/gamma.png: $(runs:=.jsonl.done)
	$(BSK) plot boxes $(runs:=.eval.jsonl) --by gamma --out $@

$(OUT)/%.jsonl.done: data/digits.safetensors
	$(BSK) train --data $< --method bs --epochs $(EPOCHS) --schedule cyclic --threads 1 --quiet \
	  --gamma $(word 2,$(subst -, ,$*)) --seed $(word 3,$(subst -, ,$*)) --out $(OUT)/$*.safetensors > /dev/null
	$(BSK) evaluate $(OUT)/$*.safetensors --data $< --attack natural,pgd-20 --quiet --out $(OUT)/$*.eval.jsonl > /dev/null
	touch $@

data/digits.safetensors:
	$(BSK) prepare-data digits --quiet > /dev/null
