#!/bin/sh
# torchmetrics 1.9.0: `MulticlassAccuracy` counts classes without images as classes with an accuracy of 0.
#
# By default it is the mean of the accuracies of the classes (macro); `Accuracy(task="multiclass")` of the same package
# is the fraction of images. Expected: if all classes have as many images, both are equal, and a class without an image
# does not enter the mean, as in scikit-learn's balanced accuracy and in torcheval. Observed: it is left out only while
# it is never predicted. One wrong prediction of it adds an accuracy of 0 / 0 = 0 to the mean. A network with ImageNet's
# 1,000 classes that is right on 60 % of the images of 200 of them, as ImageNet-A and ImageNet-R have, gets 60 % or
# 12 %, depending on where its mistakes go.
#
# The same holds for a few images of CIFAR-100, and for the value that the metric returns for each batch: a batch of 100
# images lacks 37 classes, and the mean over the batches is 50 % instead of 60 %. An attack sends predictions to absent
# classes, so that robust accuracy falls by more than the images that are lost. Nothing warns. `average="micro"` is the
# fraction of images.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchmetrics==1.9.0' \
    'scikit-learn==1.9.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
from importlib.metadata import version

import torch
from sklearn.metrics import balanced_accuracy_score
from torchmetrics.classification import Accuracy, MulticlassAccuracy

IMAGES = 10_000
torch.manual_seed(0)


def percent(value):
    return round(100 * float(value), 1)


print("torch", torch.__version__, "torchmetrics", version("torchmetrics"))
labels = torch.arange(IMAGES) % 200  # 50 images of each of the first 200 of 1,000 classes
right = torch.arange(IMAGES) // 200 % 10 < 6  # 60 % of each class
found = {}
for classes in (200, 1000):
    guesses = torch.where(right, labels, (labels + torch.randint(1, classes, (IMAGES,))) % classes)
    found[classes] = (
        percent(MulticlassAccuracy(num_classes=1000)(guesses, labels)),
        percent(Accuracy(task="multiclass", num_classes=1000)(guesses, labels)),
        percent(balanced_accuracy_score(labels, guesses)),
    )
    print(f"1,000 classes, images of 200, mistakes among {classes}: MulticlassAccuracy {found[classes][0]} %,")
    print(f"    Accuracy {found[classes][1]} %, scikit-learn's balanced accuracy {found[classes][2]} %")

labels = (torch.arange(IMAGES) % 100)[torch.randperm(IMAGES)]
guesses = torch.where(torch.rand(IMAGES) < 0.6, labels, (labels + torch.randint(1, 100, (IMAGES,))) % 100)
fraction = percent((guesses == labels).float().mean())
means = {}
for batch in (10_000, 1000, 200, 100, 50):
    metric, batches = MulticlassAccuracy(num_classes=100), torch.arange(IMAGES).split(batch)
    means[batch] = percent(sum(metric(guesses[rows], labels[rows]) for rows in batches) / len(batches))
    print(f"100 classes, mean over batches of {batch}: {means[batch]} %, fraction of images {fraction} %")
assert found[200] == (60.0, 60.0, 60.0)
assert found[1000][1:] == (60.0, 60.0) and found[1000][0] < 15
assert abs(means[10_000] - fraction) < 0.1 and means[100] < 55 and means[50] < 50
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
