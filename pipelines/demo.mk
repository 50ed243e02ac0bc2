# The paper's result in miniature: real digits, a small network, three seeds, minutes on a laptop.
demo.data    := $(DATA)/digits.safetensors
demo.threads := 1
demo.flags   := --epochs 30 --batch-size 100 --schedule cyclic --lr 0.1 --threads 1 --quiet
demo.attacks := natural,pgd-20
demo.rows    := fast-at bs trades natural
demo.natural.flags := --method natural
demo.fast-at.flags := --method fast-at
demo.bs.flags      := --method bs
demo.trades.flags  := --method trades
$(foreach row,$(demo.rows),$(eval demo.$(row).seeds := 1 2 3))
$(eval $(call experiment,demo))

demo: $(INSTALLED) ## Train, attack and compare four methods on the digits; minutes
	@$(MAKE) --no-print-directory -j$(JOBS) $(OUT)/demo/table.txt
	$(BSK) attack $(OUT)/demo/bs-1.safetensors --data $(demo.data) --attack pgd-20 --limit 100 \
	  --out $(OUT)/demo/bs-1-adversarial.safetensors --quiet > $(OUT)/demo/attack.json
	@cat $(OUT)/demo/table.txt
	@echo "picture: $(OUT)/demo/figure.png; try: $(BSK) compare $(OUT)/demo/results.jsonl | sort -t$$'\t' -k5 -nr"

.PHONY: demo
