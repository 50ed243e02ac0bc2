# The tables of docs/results.md: CIFAR-10, a narrow ResNet-18, two radii. The table for 16/255 uses the trainings of
# SCALE=small (8/127.5 is 16/255, as written for figure 1). Each job has one thread: `make -j` with one job per core is
# faster than one job on all cores, and the seconds are those of one core.
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

readme-table.tables := readme8 readme16
readme-table: $(INSTALLED) $(if $(filter-out readme-table,$(MAKECMDGOALS)),$(readme-table.tables:%=$(OUT)/%/table.txt)) ## The tables of docs/results.md: CIFAR-10, 8/255 and 16/255; hours on a CPU (CIFAR10=archive)
	@$(MAKE) --no-print-directory -j$(JOBS) $(readme-table.tables:%=$(OUT)/%/table.txt)
	@cat $(readme-table.tables:%=$(OUT)/%/table.txt)

.PHONY: readme-table
