#!/bin/sh
# torchattacks 3.5.1: APGD, APGDT, Square and FAB reset torch's global generator, so later epochs repeat each other.
#
# Expected: an attack may advance torch's global generator, as PGD does by its random start. Observed: these four seed it
# with their own `seed`, 0 by default, and leave it there. A training that evaluates with one of them after every epoch
# shuffles its images in the same order in every later epoch, whatever its own seed is; crops, flips and random starts
# of attacks repeat as well, as far as they come from the global generator. `torchattacks.AutoAttack` seeds it with the
# time, so that a training with a fixed seed cannot be repeated. pyautoattack 0.2.0 does the same: with `seed=0` the
# epochs repeat each other, without it the time is the seed.
# `torch.random.fork_rng()` around the attack, or a generator of one's own for the loader, avoids it.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip="$folder/env/bin/pip --quiet --disable-pip-version-check install"
$pip 'torch==2.14.1' 'torchvision==0.29.1' scipy tqdm requests
$pip --no-deps 'torchattacks==3.5.1' 'pyautoattack==0.2.0'
cat > "$folder/look.py" <<'PYTHON'
import time
from importlib.metadata import version

import pyautoattack
import torch
import torchattacks
from torch.utils.data import DataLoader

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)).eval()
x = torch.rand(32, 3, 8, 8)
y = model(x).argmax(dim=1)


def of_reference(**seed):
    attack = pyautoattack.AutoAttack(model, eps=0.5, attacks=["apgd-ce"], version="custom", **seed)
    return attack.run_standard_evaluation(x, y)


ways = {
    "no attack": lambda: None,
    "torchattacks.PGD": lambda: torchattacks.PGD(model, steps=2)(x, y),
    "torchattacks.APGD": lambda: torchattacks.APGD(model, steps=2)(x, y),
    "torchattacks.APGDT": lambda: torchattacks.APGDT(model, steps=2)(x, y),
    "torchattacks.Square": lambda: torchattacks.Square(model, n_queries=2)(x, y),
    "torchattacks.FAB": lambda: torchattacks.FAB(model, steps=2, n_classes=10)(x, y),
    "torchattacks.AutoAttack": lambda: torchattacks.AutoAttack(model, eps=0.5)(x, y),
    "pyautoattack.AutoAttack, seed 0": lambda: of_reference(seed=0),
    "pyautoattack.AutoAttack": lambda: of_reference(),
}


def epochs(evaluate, seed):
    """Return the order of the images in four epochs of a training with this seed, with an evaluation after each."""
    torch.manual_seed(seed)
    loader, orders = DataLoader(range(1000), batch_size=1000, shuffle=True), []
    for _ in range(4):
        orders += [tuple(batch.tolist()) for batch in loader]
        evaluate()
    return orders


print("torch", torch.__version__, *(f"{name} {version(name)}" for name in ("torchattacks", "pyautoattack")))
repeats, reproducible = {}, {}
for name, evaluate in ways.items():
    first = epochs(evaluate, seed=1)
    time.sleep(0.01)
    again, other = epochs(evaluate, seed=1), epochs(evaluate, seed=2)
    repeats[name] = len(set(first[1:])) == 1 and first[1] == other[1]
    reproducible[name] = first == again
    print(f"{name}: epochs 2 to 4 {'have one order, with any seed' if repeats[name] else 'have orders of their own'};",
          f"the same seed gives {'the same' if reproducible[name] else 'another'} training")
assert [name for name in ways if repeats[name]] == [
    "torchattacks.APGD", "torchattacks.APGDT", "torchattacks.Square", "torchattacks.FAB",
    "pyautoattack.AutoAttack, seed 0",
]
assert [name for name in ways if not reproducible[name]] == ["torchattacks.AutoAttack", "pyautoattack.AutoAttack"]
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
