#!/bin/sh
# torch 2.14.1: weighted `cross_entropy` has another scale for one-hot targets than for the same labels as indices.
#
# With class weights the mean over labels given as indices is divided by the sum of the weights of the images. So the
# weights are relative: multiplied by 100 they give the same loss. Expected: targets given as probabilities, as mixup,
# CutMix and distillation make them, give the same loss if they are one-hot. Observed: there the sum is divided by the
# number of images. The loss and every gradient have the size of the weights. Without weights, and with label smoothing
# of indices, nothing differs, so that a test without weights does not reveal it.
#
# Usual weights of a rare class are 1 / its number of images: 0.01 to 0.1 here, and less on larger data. Whoever adds
# mixup to a weighted training then trains at a fraction of the learning rate: with one-hot labels the mean accuracy of
# ten classes falls by more than ten points. Where a loss has two parts, such as the clean one on indices and the
# robust one on soft targets, their ratio changes too. Nothing warns. Divide by `(target @ weight).sum()` instead, with
# `reduction="sum"`, or scale the weights so that the weighted images have the mean 1.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'scikit-learn==1.9.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(images))
train, test = order[:1200], order[1200:]
train = torch.cat([train[labels[train] == k][: 100 if k < 5 else 10] for k in range(10)])
weight = 1 / labels[train].bincount().float()  # of the classes, by their frequency


def index(y):
    return y


def one_hot(y):
    return F.one_hot(y, 10).float()


def accuracy(target, scale):
    """Train with weights times `scale`, and return the mean accuracy of the classes in percent."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(512, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(15):
        for rows in train[torch.randperm(len(train))].split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(images[rows]), target(labels[rows]), weight * scale).backward()
            optimizer.step()
    right = model(images[test]).argmax(1) == labels[test]
    return round(100 * sum(right[labels[test] == k].float().mean().item() for k in range(10)) / 10, 1)


print("torch", torch.__version__)
logits, y = torch.randn(len(train), 10), labels[train]
losses = {}
for name, target in (("indices", index(y)), ("one-hot", one_hot(y))):
    for scale in (1, 100):
        losses[name, scale] = F.cross_entropy(logits, target, weight * scale).item()
    print(name, "loss", round(losses[name, 1], 4), "with weights times 100:", round(losses[name, 100], 4))
unweighted = F.cross_entropy(logits, index(y)).item(), F.cross_entropy(logits, one_hot(y)).item()
print("without weights", round(unweighted[0], 4), round(unweighted[1], 4))
found = {}
for name, target in (("indices", index), ("one-hot", one_hot)):
    found[name] = accuracy(target, 1), accuracy(target, 10)
    print("trained with", name, "accuracy", found[name][0], "with weights times 10:", found[name][1])
assert abs(losses["indices", 1] - losses["indices", 100]) < 1e-4
assert abs(losses["one-hot", 1] * 100 - losses["one-hot", 100]) < 1e-2
assert losses["one-hot", 1] < losses["indices", 1] / 20 and abs(unweighted[0] - unweighted[1]) < 1e-4
assert found["indices"][0] - found["one-hot"][0] > 10
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
