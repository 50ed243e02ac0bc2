#!/bin/sh
# torchattacks 3.5.1: its AutoAttack makes 10 steps where AutoAttack makes 100.
#
# Expected: `torchattacks.AutoAttack(version="standard")` is the standard AutoAttack: APGD-CE, targeted APGD and
# targeted FAB with 100 iterations each, and Square with 5,000 queries. Observed: the three attacks that use gradients
# are made without a number of steps, and the default of the classes is 10. The class has no parameter to change it. On
# images that survive, it computes a ninth of the gradients of pyautoattack 0.2.0, a packaging of the authors' code.
#
# So a number from it is not AutoAttack's, and it errs towards more robustness. On small networks Square makes up for
# most of it: 31 of 100 digits remain, and 29 with 100 steps. To be sure, set `steps = 100` on the first three of
# `attack._autoattack.attacks`, or use the authors' code.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch, and a minute or two.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip="$folder/env/bin/pip --quiet --disable-pip-version-check install"
$pip 'torch==2.14.1' 'torchvision==0.29.1' 'numpy==2.4.6' 'pyautoattack==0.2.0' 'scikit-learn==1.9.1' scipy tqdm requests
$pip --no-deps 'torchattacks==3.5.1'
cat > "$folder/look.py" <<'PYTHON'
import logging
from importlib.metadata import version

import torch
import torchattacks
from pyautoattack import AutoAttack
from sklearn.datasets import load_digits
from torch import nn

EPS, IMAGES = 0.2, 100
logging.disable()
torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
    nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
)
optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(20):
    for rows in torch.randperm(1400).split(100):
        x_adv = torchattacks.PGD(model, eps=0.15, alpha=0.04, steps=5)(x[rows], y[rows])
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x_adv), y[rows]).backward()
        optimiser.step()
model.eval()
x, y = x[1400 : 1400 + IMAGES], y[1400 : 1400 + IMAGES]
passes = {"forward": 0, "gradient": 0}


def count(module, inputs, output):
    passes["forward"] += len(output)
    if output.requires_grad:
        output.register_hook(lambda gradient: passes.update(gradient=passes["gradient"] + len(gradient)))


model[-1].register_forward_hook(count)


def of_torchattacks(steps=None):
    attack = torchattacks.AutoAttack(model, norm="Linf", eps=EPS, version="standard", n_classes=10, seed=0)
    for each in attack._autoattack.attacks[:3] if steps else ():
        each.steps = steps
    return attack(x, y)


def of_the_authors():
    return AutoAttack(model, norm="Linf", eps=EPS, version="standard", seed=0).run_standard_evaluation(x, y)[0]


print(*(f"{name} {version(name)}" for name in ("torch", "torchattacks", "pyautoattack")))
attack = torchattacks.AutoAttack(model, seed=0)
steps = {type(each).__name__: each.steps for each in attack._autoattack.attacks[:3]}
print("steps of torchattacks:", steps)
found = {}
runs = {"torchattacks": of_torchattacks, "with 100 steps": lambda: of_torchattacks(100), "authors": of_the_authors}
for name, run in runs.items():
    passes.update(forward=0, gradient=0)
    x_adv = run()
    found[name] = passes["gradient"]
    gradients, forwards = (round(passes[kind] / IMAGES) for kind in ("gradient", "forward"))
    remain = int((model(x_adv).argmax(1) == y).sum())
    print(f"{name}: {gradients} gradients and {forwards} forward passes per image, {remain} of {IMAGES} images remain")
assert set(steps.values()) == {10}
assert found["authors"] / found["torchattacks"] > 5 and found["with 100 steps"] / found["torchattacks"] > 5
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
