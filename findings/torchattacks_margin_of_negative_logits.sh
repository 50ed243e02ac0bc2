#!/bin/sh
# torchattacks 3.5.1: CW, and UPGD with the margin loss, do nothing to networks whose logits are all negative.
#
# A margin is the true logit minus the largest other one. Neither it nor the probabilities change if a constant is added
# to all logits. Expected: the attack does not depend on it either. Observed: to leave out the true class, its logit is
# multiplied by 0 before the maximum, so that the "largest other logit" is at least 0. If all logits are negative, both
# terms of the margin of CW are 0, the loss has no gradient, and the attack returns the images unchanged.
#
# Networks that end in `log_softmax` are the usual case; their loss is `nll_loss`. CW then reports that they are as
# robust as they are accurate: 96 % here, where it fools each image of the same network with logits.
# `UPGD(loss="margin")` likewise reports 96 % instead of 9 %. Nothing warns. UPGD with the cross entropy or the DLR
# loss, and FAB, fool all four alike, and so does CW of foolbox 3.3.4.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchattacks==3.5.1' \
    'foolbox==3.3.4' 'scikit-learn==1.9.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
from importlib.metadata import version

import foolbox
import torch
import torch.nn.functional as F
import torchattacks
from sklearn.datasets import load_digits
from torch import nn

print("torch", torch.__version__, *(f"{name} {version(name)}" for name in ("torchattacks", "foolbox")))
torch.set_num_threads(1)
torch.manual_seed(0)
digits = load_digits()
images, labels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)
order = torch.randperm(len(images))
train, test = order[:1200], order[1200:1300]
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimiser = torch.optim.Adam(model.parameters(), 1e-2)
for _ in range(30):
    for rows in train[torch.randperm(len(train))].split(100):
        optimiser.zero_grad()
        F.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimiser.step()


class Shifted(nn.Module):
    """The network with a constant added to its logits."""

    def __init__(self, constant):
        super().__init__()
        self.model, self.constant = model, constant

    def forward(self, x):
        return self.model(x) + self.constant


networks = {
    "logits": model.eval(),
    "logits + 50": Shifted(50.0).eval(),
    "logits - 50": Shifted(-50.0).eval(),
    "log_softmax": nn.Sequential(model, nn.LogSoftmax(1)).eval(),
}
x, y, eps = images[test], labels[test], 0.15


def accuracy(x):
    return round(100 * (model(x).argmax(1) == y).float().mean().item())


def cw_of_foolbox(net):
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=1, initial_const=1, steps=200, stepsize=0.05)
    return lambda x, y: attack(foolbox.PyTorchModel(net, bounds=(0, 1)), x, y, epsilons=None)[1]


attacks = {
    "CW": lambda net: torchattacks.CW(net, c=1, steps=100, lr=0.05),
    "UPGD, margin": lambda net: torchattacks.UPGD(net, eps=eps, alpha=eps / 4, loss="margin"),
    "UPGD, dlr": lambda net: torchattacks.UPGD(net, eps=eps, alpha=eps / 4, loss="dlr"),
    "UPGD, ce": lambda net: torchattacks.UPGD(net, eps=eps, alpha=eps / 4),
    "FAB": lambda net: torchattacks.FAB(net, eps=eps, steps=20, n_classes=10),
    "CW of foolbox": cw_of_foolbox,
}
print(f"accuracy without an attack: {accuracy(x)} %")
found = {}
for name, attack in attacks.items():
    for kind, network in networks.items():
        x_adv = attack(network)(x, y)
        found[name, kind] = accuracy(x_adv), torch.equal(x_adv, x)
    print(name, *(f"{kind}: {found[name, kind][0]} %" for kind in networks), sep="; ")
for name in ("CW", "UPGD, margin"):
    assert found[name, "logits"][0] < 15 and found[name, "logits + 50"][0] < 15
    for kind in ("logits - 50", "log_softmax"):
        assert found[name, kind] == (accuracy(x), True)
for name in ("UPGD, dlr", "UPGD, ce", "FAB", "CW of foolbox"):
    assert all(found[name, kind][0] < 15 for kind in networks)
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
