# The README's table: CIFAR-10 images, a narrow ResNet-18, two radii. One thread a job: `make -j` runs as many jobs
# as there are cores, which is faster than a job on all of them, and the seconds are those of one core.
readme := --model resnet18-16 --schedule cyclic --lr 0.2
$(eval $(call setting,readme8,$(OUT)/readme8,cifar10-small,1,--eps 8/255 --epochs 15 $(readme)))
$(eval $(call setting,readme16,$(OUT)/readme16,cifar10-small,1,--eps 16/255 --epochs 12 $(readme)))

$(foreach r,readme8 readme16,$(call row,$(r),$(r),1 2 3,--method bs))
$(call row,readme8,readme8,1 2 3,--method fast-at)
$(call row,readme16,readme16,1 2 3,--method fast-at --step 16/255)
$(foreach r,readme8 readme16,$(call row,$(r),$(r),1 2 3,--method fast-trades))
$(foreach r,readme8 readme16,$(call row,$(r),$(r),1 2 3,--method fast-trades-2))
$(foreach r,readme8 readme16,$(call row,$(r),$(r),1,--method trades))
$(foreach r,readme8 readme16,$(call table,$(r),$(OUT)))

readme-table: $(INSTALLED) ## The README's table: CIFAR-10, 8/255 and 16/255; hours on a CPU (CIFAR10=archive)
	@$(MAKE) --no-print-directory -j$(JOBS) $(OUT)/readme8/table.txt $(OUT)/readme16/table.txt
	@cat $(OUT)/readme8/table.txt $(OUT)/readme16/table.txt

.PHONY: readme-table
