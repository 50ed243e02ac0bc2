# The tables of docs/results.md: CIFAR-10 images, a narrow ResNet-18, two radii; 16/255 is SCALE=small, whose trainings these are
# (8/127.5 is 16/255, as figure 1 writes it). One thread a job: `make -j` runs as many jobs as there are cores, which is
# faster than a job on all of them, and the seconds are those of one core.
$(eval $(call setting,readme8,$(OUT)/readme8,cifar10-small,1,--model resnet18-16 --eps 8/255 --epochs 15 --schedule cyclic --lr 0.2))
$(eval $(call setting,readme16,$(OUT)/small/runs/cifar10,cifar10-small,1,$(narrow)))

$(foreach r,readme8 readme16,$(call row,$(r),$(r),1 2 3,--method bs))
$(call row,readme8,readme8,1 2 3,--method fast-at)
$(call row,readme16,readme16,1 2 3,--method fast-at --step 8/127.5)
$(foreach r,readme8 readme16,$(call row,$(r),$(r),1 2 3,--method fast-trades))
$(foreach r,readme8 readme16,$(call row,$(r),$(r),1 2 3,--method fast-trades-2))
$(call row,readme8,readme8,1,--method trades)
$(call row,readme16,readme16,1 2 3,--method trades)
$(foreach r,readme8 readme16,$(call table,$(r),$(OUT)))

readme-table: $(INSTALLED) ## The tables of docs/results.md: CIFAR-10, 8/255 and 16/255; hours on a CPU (CIFAR10=archive)
	@$(MAKE) --no-print-directory -j$(JOBS) $(OUT)/readme8/table.txt $(OUT)/readme16/table.txt
	@cat $(OUT)/readme8/table.txt $(OUT)/readme16/table.txt

.PHONY: readme-table
