#!/bin/sh
# torch 2.14.1: within one `autocast` region a changed weight is not seen, so adversarial weight perturbation does nothing.
#
# `autocast` keeps the low-precision copy of each weight that needs a gradient until the outermost region ends, and does
# not compare the weight's version. Expected: after `weight.add_(...)` or `optimizer.step()` the next forward pass uses
# the new weight, as it does without autocast. Observed: it uses the old one. The usual code for adversarial weight
# perturbation (AWP) changes the weights between two forward passes; under one `with torch.autocast(...)` around the
# whole update its second loss equals the first to the bit, and the trained network is one without AWP. Nothing warns.
# A training whose region spans several updates computes every gradient at the initial weights.
# Each forward pass in a region of its own, or `cache_enabled=False`, sees the new weights.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1'
cat > "$folder/look.py" <<'PYTHON'
import contextlib
import copy

import torch
import torch.nn.functional as F

torch.manual_seed(0)
x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
fresh = torch.nn.Linear(8, 3)


def region(**options):
    return torch.autocast("cpu", torch.bfloat16, **options)


def perturbed(outer, inner):
    """Return the losses before and after a step of AWP up the gradient of all weights."""
    network = copy.deepcopy(fresh)
    with outer:
        with inner():
            before = F.cross_entropy(network(x), y)
        gradients = torch.autograd.grad(before, list(network.parameters()))
        with torch.no_grad():
            for weight, gradient in zip(network.parameters(), gradients):
                weight.add_(gradient)
        with inner():
            after = F.cross_entropy(network(x), y)
    return before.item(), after.item()


def trained(outer, inner):
    """Return the losses of four updates."""
    network, losses = copy.deepcopy(fresh), []
    optimiser = torch.optim.SGD(network.parameters(), 0.5)
    with outer:
        for _ in range(4):
            with inner():
                loss = F.cross_entropy(network(x), y)
            losses.append(loss.item())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return losses


none = contextlib.nullcontext
print("torch", torch.__version__)
found = {}
for name, outer, inner in (
    ("one region", region(), none),
    ("a region a pass", none(), region),
    ("one region without cache", region(cache_enabled=False), none),
):
    found[name] = perturbed(outer, inner), trained(outer, inner)
    print(f"{name}: losses around AWP {found[name][0]}, of four updates {found[name][1]}")
assert torch.__version__.split("+")[0] == "2.14.1"
awp, updates = found.pop("one region")
assert awp[0] == awp[1] and len(set(updates)) == 1
for awp, updates in found.values():
    assert awp[1] > awp[0] + 0.01 and updates == sorted(updates, reverse=True) and updates[-1] < updates[0] - 0.01
PYTHON
"$folder/env/bin/python" "$folder/look.py"
