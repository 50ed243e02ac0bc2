#!/bin/sh
# adversarial-robustness-toolbox 1.20.1: an attack leaves the network in eval mode.
#
# Expected: `generate` computes in eval mode and then restores the mode, as torchattacks does. Observed: it puts the
# network in eval mode and leaves it there. A usual training loop calls `model.train()` once per epoch. If it computes
# adversarial images by an attack of ART, the loss of every batch is then computed in eval mode: the running statistics
# of batch norm keep their initial values, 0 and 1, and dropout is off. Nothing raises, and the loss falls.
# `model.train()` before each loss avoids it.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1' \
    'adversarial-robustness-toolbox==1.20.1' packaging
cat > "$folder/look.py" <<'PYTHON'
from importlib.metadata import version

import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import nn

BATCHES, SIZE = 20, 32


def epoch(train_before_each_loss):
    """Return the network after an epoch of adversarial training, and in how many batches it was in train mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))
    loss, optimiser = nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1)
    classifier = PyTorchClassifier(model, loss, (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu")
    attack = ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.05, max_iter=2, verbose=False)
    model.train()
    trained = 0
    for _ in range(BATCHES):
        x, y = torch.rand(SIZE, 1, 8, 8), torch.arange(SIZE) % 10
        x_adv = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
        if train_before_each_loss:
            model.train()
        trained += model.training
        optimiser.zero_grad()
        loss(model(x_adv), y).backward()
        optimiser.step()
    return model, trained


print("torch", torch.__version__, "adversarial-robustness-toolbox", version("adversarial-robustness-toolbox"))
found = []
for each in (False, True):
    model, trained = epoch(each)
    found.append((trained, int(model[2].num_batches_tracked), bool(model[2].running_mean.any())))
    print(f"model.train() {'before each loss' if each else 'at the start'}: {trained} of {BATCHES} batches in train mode,",
          f"{found[-1][1]} in the statistics of batch norm")
assert found == [(0, 0, False), (BATCHES, BATCHES, True)]
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
