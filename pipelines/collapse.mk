# Catastrophic overfitting as measured by the monitor: accuracy under FGSM and PGD-10, and the cosine of two gradients,
# for one step from the image itself, one step from a uniform start (Fast AT), and Backward Smoothing. At SCALE=small
# there are no crops and flips and twice as many updates, since it does not occur with the usual flags.
$(call scaled,smoke,collapsing,digits-collapse,digits,1,--eps 0.4 --epochs 30 --batch-size 100 --lr 0.1 --schedule cyclic)
$(call scaled,small,collapsing,cifar10-collapse,cifar10-small,1,--model resnet18-16 --eps 16/255 --epochs 12 --batch-size 64 --augment none --lr 0.1 --schedule cyclic)
$(call scaled,medium,collapsing,cifar10-collapse,cifar10-medium,1,--model resnet18-16 --eps 16/255 --epochs 15 --schedule cyclic --lr 0.2 --precision bf16)
$(call scaled,paper,collapsing,cifar10-collapse,cifar10,,--model resnet18 --eps 16/255 --epochs 30 --schedule cyclic --lr 0.2)
collapse.unevaluated := yes
collapse.by := start
$(call row,collapse,collapsing,$(few),--method fast-at --start zero)
$(call row,collapse,collapsing,$(few),--method fast-at)
$(call row,collapse,collapsing,$(few),--method bs)
collapse.title := --title 'Catastrophic overfitting, SCALE=$(SCALE)'
$(call table,collapse,$(call here,collapse))
$(eval $(call drawing,$(call here,collapse)/collapsing,logs,curves --by start --y monitor_fgsm$(comma)monitor_pgd$(comma)monitor_cosine $(collapse.title),$(addsuffix .train.json,$(call runs,collapse,collapsing))))

collapse: $(call here,collapse)/collapsing/picture.png ## Catastrophic overfitting as measured by the monitor, for three starts

.PHONY: collapse
