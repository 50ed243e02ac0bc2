#!/bin/sh
# foolbox 3.3.4 and cleverhans 4.0.0: an attack adds its own gradients to those of the weights.
#
# Expected: an attack differentiates in the images alone, as torchattacks does. Observed: both call `backward`, which adds
# the gradient of every step of the attack to `grad` of every weight. An adversarial training that calls `zero_grad`
# before it computes the images, instead of before the backward pass of its loss, then descends on all of them. After ten
# steps on 64 images the update is 11 times as large with cleverhans, and 633 times with foolbox, which sums over the
# images where the loss takes the mean. The direction differs little (cosine 0.99), so that a small learning rate hides
# it. Each step also pays for gradients of the weights that nobody uses. `zero_grad` after the attack avoids it.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip="$folder/env/bin/pip --quiet --disable-pip-version-check install"
$pip 'torch==2.14.1' 'torchvision==0.29.1' 'foolbox==3.3.4' scipy tqdm requests
$pip --no-deps 'cleverhans==4.0.0' 'torchattacks==3.5.1'
cat > "$folder/look.py" <<'PYTHON'
from importlib.metadata import version

import foolbox
import numpy as np
import torch
import torch.nn.functional as F
import torchattacks
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

EPS, STEP, STEPS = 0.03, 0.01, 10


def of_foolbox(model, x, y):
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=False)
    return attack(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=EPS)[1]


def of_cleverhans(model, x, y):
    return projected_gradient_descent(
        model, x, EPS, STEP, STEPS, np.inf, clip_min=0, clip_max=1, y=y, rand_init=False
    )


def of_torchattacks(model, x, y):
    return torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=False)(x, y)


def update(attack, zero_after):
    """Return the change of all weights in one step of SGD on adversarial images."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10)
    )
    x, y = torch.rand(64, 3, 8, 8), torch.arange(64) % 10
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [each.detach().clone() for each in model.parameters()]
    optimiser.zero_grad()
    x_adv = attack(model.eval(), x, y)
    if zero_after:
        optimiser.zero_grad()
    F.cross_entropy(model.train()(x_adv), y).backward()
    optimiser.step()
    return torch.cat([(now - old).detach().flatten() for now, old in zip(model.parameters(), before)])


print("torch", torch.__version__, *(f"{name} {version(name)}" for name in ("foolbox", "cleverhans", "torchattacks")))
ratios = {}
for attack in (of_foolbox, of_cleverhans, of_torchattacks):
    right, wrong = update(attack, zero_after=True), update(attack, zero_after=False)
    ratios[attack] = float(wrong.norm() / right.norm())
    cosine = float(F.cosine_similarity(right, wrong, dim=0))
    print(f"{attack.__name__}: the update is {ratios[attack]:.1f} times that with zero_grad after the attack,",
          f"cosine {cosine:.3f}")
    assert cosine > 0.98
assert 600 < ratios[of_foolbox] < 700 and 10 < ratios[of_cleverhans] < 12 and ratios[of_torchattacks] == 1
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
