#!/bin/sh
# torchmetrics 1.9.0: two metrics of a MetricCollection become one for good if the first batch does not tell them apart.
#
# After its first update a collection compares the counts of its metrics. Those with equal counts form a group; from
# then on only the first of a group is updated, and the others use its counts. Expected: metrics with different
# arguments, such as `top_k=1` and `top_k=5`, or two thresholds, are different metrics. Observed: only the class's
# states and their present values are compared, not the arguments. If each image of the first batch is right at top 1,
# the counts of top 1 and top 5 are equal, and the collection reports one number for both, whatever follows.
#
# It depends on the size and the order of the batches. A network that is right on 80 % gets top 5 = top 1 in four of
# five evaluations image by image, as slow attacks and certificates need, in half of those with batches of 4, and never
# with batches of 100. The accuracy without class 0 (`ignore_index=0`) becomes that with it if the first batch has no
# image of class 0. Two thresholds of a detector of adversarial images become one if its first scores are clear.
# `reset` keeps the groups, so the next evaluations have them too. Nothing warns. `compute_groups=False` avoids it.
# Several issues of torchmetrics report cases of it, such as 2596 and 2916.
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
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy

IMAGES, CLASSES, ORDERS = 300, 10, 40
print("torch", torch.__version__, "torchmetrics", version("torchmetrics"))
torch.manual_seed(0)
torch.set_num_threads(1)
labels = torch.arange(IMAGES) % CLASSES
logits = torch.randn(IMAGES, CLASSES)
logits[torch.arange(IMAGES), labels] += 2.5


def tops(size, order, **options):
    """Return top 1 and top 5 of a collection that gets the images in batches."""
    metrics = {f"top {k}": MulticlassAccuracy(CLASSES, top_k=k) for k in (1, 5)}
    collection = MetricCollection(metrics, **options)
    for batch in order.split(size):
        collection.update(logits[batch], labels[batch])
    return [round(value.item(), 3) for value in collection.compute().values()]


share = {}
for size in (1, 4, 100):
    found = [tops(size, torch.randperm(IMAGES)) for _ in range(ORDERS)]
    share[size] = sum(one == five for one, five in found) / ORDERS
    print(f"batches of {size}: top 1 and top 5 in the first orders {found[:3]}, equal in {share[size]:.0%} of {ORDERS}")
collection = MetricCollection({f"top {k}": MulticlassAccuracy(CLASSES, top_k=k) for k in (1, 5)})
easy = logits.argmax(1) == labels
collection.update(logits[easy], labels[easy])
collection.reset()
collection.update(logits, labels)
later = [round(value.item(), 3) for value in collection.compute().values()]
print("all images at once, after `reset` of a collection that first saw only the right ones:", later)
apart = tops(1, torch.arange(IMAGES), compute_groups=False)
print("compute_groups=False:", apart)


def pair(first, second, batches):
    """Return both metrics of a collection, and the second one alone."""
    collection, alone = MetricCollection({"first": first, "second": second}), second.clone()
    for batch in batches:
        collection.update(*batch)
        alone.update(*batch)
    return [round(value.item(), 3) for value in (*collection.compute().values(), alone.compute())]


some = labels != 0
batches = [(logits[some], labels[some]), (logits[~some] - 2 * torch.eye(CLASSES)[0], labels[~some])]
ignoring = pair(*(MulticlassAccuracy(CLASSES, average="micro", ignore_index=i) for i in (None, 0)), batches)
adversarial = torch.randint(0, 2, (200,))
scores = torch.rand(200)
batches = [(torch.where(adversarial[:8] == 1, 0.99, 0.01), adversarial[:8]), (scores, adversarial)]
thresholds = pair(BinaryAccuracy(0.5), BinaryAccuracy(0.9), batches)
print("all classes", ignoring[0], "without class 0", ignoring[1], "alone", ignoring[2])
print("threshold 0.5:", thresholds[0], "0.9:", thresholds[1], "alone", thresholds[2])
assert apart[1] > apart[0] + 0.1 and later[0] == later[1]
assert share[1] > 0.6 and share[1] > share[4] > 0.1 and share[100] == 0
assert all(first == second != alone for first, second, alone in (ignoring, thresholds))
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
