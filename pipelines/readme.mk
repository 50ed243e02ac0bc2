# The README's table: CIFAR-10 images, a narrow ResNet-18, two radii. One thread a job: `make -j` runs as many jobs
# as there are cores, which is faster than a job on all of them, and the seconds are those of one core.
readme-rows := bs fast-at fast-trades fast-trades-2 trades

readme8.flags  := --eps 8/255 --epochs 15
readme16.flags := --eps 16/255 --epochs 12
$(foreach e,readme8 readme16,$(eval $(e).data := $(DATA)/cifar10.safetensors))
$(foreach e,readme8 readme16,$(eval $(e).threads := 1))
$(foreach e,readme8 readme16,$(eval $(e).attacks := natural,pgd-100))
$(foreach e,readme8 readme16,$(eval $(e).rows := $(readme-rows)))
$(foreach e,readme8 readme16,$(eval $(e).flags += --model resnet18-16 --schedule cyclic --lr 0.2 --threads 1 --quiet))
$(foreach e,readme8 readme16,$(foreach r,$(readme-rows),$(eval $(e).$(r).flags := --method $(r))))
$(foreach e,readme8 readme16,$(foreach r,$(readme-rows),$(eval $(e).$(r).seeds := 1 2 3)))
$(foreach e,readme8 readme16,$(eval $(e).trades.seeds := 1))
readme16.fast-at.flags += --step 16/255
$(foreach e,readme8 readme16,$(eval $(call experiment,$(e))))

readme-table: $(INSTALLED) ## The README's table: CIFAR-10, 8/255 and 16/255; hours on a CPU (CIFAR10=archive)
	@$(MAKE) --no-print-directory -j$(JOBS) $(OUT)/readme8/table.txt $(OUT)/readme16/table.txt
	@cat $(OUT)/readme8/table.txt $(OUT)/readme16/table.txt

.PHONY: readme-table
