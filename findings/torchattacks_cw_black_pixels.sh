#!/bin/sh
# torchattacks 3.5.1: CW cannot change pixels that are exactly black or white.
#
# CW searches in w, where the image is (tanh(w) + 1) / 2. A pixel of exactly 0 or 1 has an infinite w. Expected: the
# attack moves such values inwards first, as the authors' code does by a factor of 0.999999. Observed: it does not. At
# infinity the gradient of tanh is 0, so these pixels stay as they are, in every step. Nothing warns.
#
# More than half of the pixels of the digits are exactly 0 or 1, as are the saturated ones of photographs. With 1,000
# steps the L2 distance that CW needs is a third too large here, and so is the robustness that one reads off. If the
# same images are first clamped to [1e-6, 1 - 1e-6], all pixels move. CW of foolbox 3.3.4 finds nearly that distance
# without it.
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
model.eval()
test = test[model(images[test]).argmax(1) == labels[test]]
x, y = images[test], labels[test]
extreme = (x == 0) | (x == 1)


def look(name, x, x_adv):
    """Print how many pixels changed, and the mean L2 distance; every image is fooled."""
    assert (model(x_adv).argmax(1) != y).all()
    moved = [round(100 * (x_adv != x)[rows].float().mean().item()) for rows in (extreme, ~extreme)]
    distance = (x_adv - x).flatten(1).norm(dim=1).mean().item()
    print(f"{name}: {moved[0]} % of the black and white pixels changed, {moved[1]} % of the others; L2 {distance:.3f}")
    return moved, distance


print(f"{len(x)} images, all right; {100 * extreme.float().mean():.0f} % of their pixels are exactly 0 or 1")
attack = torchattacks.CW(model, c=1, steps=1000, lr=0.01)
as_given = look("torchattacks", x, attack(x, y))
inside = x.clamp(1e-6, 1 - 1e-6)
clamped = look("torchattacks, images in [1e-6, 1 - 1e-6]", inside, attack(inside, y))
other = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=1, initial_const=1, steps=1000, abort_early=False)
theirs = look("foolbox", x, other(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=None)[1])
assert as_given[0][0] == 0 and as_given[0][1] > 90 and clamped[0][0] > 90
assert as_given[1] > 1.2 * clamped[1] and abs(theirs[1] / clamped[1] - 1) < 0.1
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
