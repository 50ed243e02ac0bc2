#!/bin/sh
# torch 2.14.1: the gradient of `clamp` at its bounds is 0. In torch 2.13.0 it is 1, as since version 0.4.1.
#
# This matters for images, which have many values of exactly 0 and 1. If a network clamps its images (or an attack
# differentiates through `(x + delta).clamp(0, 1)`), black and white pixels have no gradient from 2.14 on. Gradient
# attacks then never change them, since the sign of 0 is 0: they raise the loss less, and the network seems more robust.
# Expected: the same code gives the same adversarial images in both versions. Observed: one sign step on the digits of
# scikit-learn, where half of all pixels are 0, moves every pixel in 2.13.0 and less than half of them in 2.14.1.
# `clamp_min`, `clamp_max` and `clip` changed likewise. With tensors as bounds, both of them given, the gradient at the
# bounds is 0.5 in 2.14.1 (1 in 2.13.0). `relu6` and `hardtanh` have 0 in both versions.
#
# Exits with 0 if the versions still differ as described, with 1 if not. Needs 12 GB of disk for torch, twice.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.py" <<'PYTHON'
import sys

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits


def slope(function):
    x = torch.tensor([0.0, 0.5, 1.0], requires_grad=True)
    return torch.autograd.grad(function(x).sum(), x)[0].tolist()


data = load_digits()
x = torch.tensor(data.images[:500] / 16, dtype=torch.float32)[:, None]
y = torch.tensor(data.target[:500])
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
optimiser = torch.optim.SGD(network.parameters(), 0.5)
for _ in range(200):
    optimiser.zero_grad()
    F.cross_entropy(network(x), y).backward()
    optimiser.step()


def step(model, eps=0.2):
    """Return the share of pixels that FGSM moves, before clipping, and the accuracy on the clipped images."""
    leaf = x.clone().requires_grad_()
    sign = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)[0].sign()
    accuracy = (network((x + eps * sign).clamp(0, 1)).argmax(dim=1) == y).float().mean()
    return float((sign != 0).float().mean()), float(accuracy)


zeros, ones = torch.zeros(3), torch.ones(3)
plain, clamped = step(network), step(lambda x: network(x.clamp(0, 1)))
print("torch", torch.__version__, "share of pixels of 0 or 1:", float(((x == 0) | (x == 1)).float().mean()))
print("gradient of clamp(0, 1) at 0, 0.5, 1:", slope(lambda x: x.clamp(0, 1)))
print("tensors as bounds:", slope(lambda x: x.clamp(zeros, ones)), "hardtanh:", slope(lambda x: F.hardtanh(x, 0, 1)))
print("FGSM without a clamp: moves %.3f of the pixels, accuracy %.3f" % plain)
print("FGSM with a clamp in the network: moves %.3f of the pixels, accuracy %.3f" % clamped)
new = sys.argv[1] == "2.14.1"
assert torch.__version__.split("+")[0] == sys.argv[1]
assert slope(lambda x: x.clamp(0, 1)) == slope(lambda x: x.clip(0, 1)) == ([0, 1, 0] if new else [1, 1, 1])
assert slope(lambda x: x.clamp(min=0)) == slope(lambda x: x.clamp_min(0)) == ([0, 1, 1] if new else [1, 1, 1])
assert slope(lambda x: x.clamp(zeros, ones)) == ([0.5, 1, 0.5] if new else [1, 1, 1])
assert slope(lambda x: F.hardtanh(x, 0, 1)) == [0, 1, 0]
assert plain[0] > 0.99
assert (clamped[0] < 0.6 and clamped[1] > plain[1] + 0.05) if new else clamped == plain
PYTHON
for version in 2.13.0 2.14.1; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "torch==$version" 'scikit-learn==1.9.1'
    "$folder/$version/bin/python" "$folder/look.py" "$version"
done
