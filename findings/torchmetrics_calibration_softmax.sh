#!/bin/sh
# torchmetrics 1.9.0: one probability of 1.0000001 turns a calibration error of 0.03 into one of 0.56.
#
# `MulticlassCalibrationError` takes probabilities or logits. It decides by the values: if any of a batch is outside [0,
# 1], it applies a softmax to the whole batch. Expected: probabilities stay what they are. Observed: the mean of ten
# float32 softmaxes, added up as p / 10, is 1.0000001 for an image on which all ten are certain. Then all images of that
# call get a second softmax, which leaves a confidence below 0.24 of ten classes. Other calls do not, so the result
# depends on the batch size and on the order of the images. Nothing warns. Logits have the reverse: cosine similarities,
# which lie in [0, 1], are taken for probabilities.
#
# The mean over passes is usual for networks with randomised inputs, dropout or several members, and calibration of
# robust networks is often reported. `probabilities.clamp(max=1)` avoids it; for logits apply the softmax yourself.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchmetrics==1.9.0' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
from importlib.metadata import version

import torch
from torchmetrics.classification import MulticlassCalibrationError

IMAGES, CLASSES, PASSES = 1000, 10, 10
torch.manual_seed(0)
logits = torch.randn(IMAGES, CLASSES)
logits[torch.arange(IMAGES), torch.randint(0, CLASSES, (IMAGES,))] += 4
logits[0, 3] += 40  # one image on which the network is certain
mean = torch.zeros(IMAGES, CLASSES)
for _ in range(PASSES):
    mean += torch.softmax(logits + 0.1 * torch.randn(IMAGES, CLASSES), dim=1) / PASSES
labels = torch.multinomial(mean, 1).flatten()


def error(probabilities, batch):
    metric = MulticlassCalibrationError(CLASSES, n_bins=15)
    for rows in torch.arange(IMAGES).split(batch):
        metric.update(probabilities[rows], labels[rows])
    return round(metric.compute().item(), 3)


print("torch", torch.__version__, "torchmetrics", version("torchmetrics"))
print("largest probability", mean.max().item(), "values above 1:", int((mean > 1).sum()))
found = {batch: (error(mean, batch), error(mean.clamp(max=1), batch)) for batch in (1000, 500, 250, 100, 1)}
for batch, (as_it_is, clamped) in found.items():
    print(f"calibration error in batches of {batch}: {as_it_is}, clamped to 1: {clamped}")
cosine = torch.rand(IMAGES, CLASSES)
print("values in [0, 1] as logits:", error(cosine, IMAGES), "after a softmax:", error(torch.softmax(cosine, 1), IMAGES))
assert mean.max() == 1 + 2**-23 and int((mean > 1).sum()) == 1
assert found[1000][0] > 0.4 and len({each[0] for each in found.values()}) > 3
assert len({each[1] for each in found.values()}) == 1 and found[1][1] < 0.1
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
