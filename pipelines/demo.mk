# The paper's main result at a small scale: digits, a small network, three seeds; minutes on a laptop.
$(eval $(call setting,demo,$(OUT)/demo,digits,1,--epochs 30 --batch-size 100 --schedule cyclic --lr 0.1))
demo.evaluate := --attack natural,pgd-20
$(call row,demo,demo,1 2 3,--method fast-at)
$(call row,demo,demo,1 2 3,--method bs)
$(call row,demo,demo,1 2 3,--method trades)
$(call row,demo,demo,1 2 3,--method natural)
$(call table,demo,$(OUT))

# Beside other targets its runs are prerequisites, since a second make would begin the same jobs.
demo: $(INSTALLED) $(if $(filter-out demo,$(MAKECMDGOALS)),$(OUT)/demo/table.txt) ## Train, attack and compare four methods on the digits; minutes
	@$(MAKE) --no-print-directory -j$(JOBS) $(OUT)/demo/table.txt
	$(BSK) attack $(OUT)/demo/bs_seed-1.safetensors --data $(demo.data) --attack pgd-20 --limit 100 \
	  --out $(OUT)/demo/bs_seed-1-adversarial.safetensors --quiet > $(OUT)/demo/attack.json
	@cat $(OUT)/demo/table.txt
	@echo "picture: $(OUT)/demo/figure.png; try: $(BSK) compare $(OUT)/demo/results.jsonl | sort -t$$'\t' -k5 -nr"

.PHONY: demo
