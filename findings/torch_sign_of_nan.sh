#!/bin/sh
# torch 2.14.1: the sign of NaN is 0, so attacks report robustness where gradients are NaN.
#
# A step of FGSM or PGD is x + step * sign(gradient). If the gradient is NaN, the sign is expected to be NaN, as numpy's
# is. Then the image is NaN, its logits are too, and the fault is noticed. Observed: torch.sign(NaN) is 0. The attack
# leaves each such image as it is and counts it as robust. Nothing warns.
#
# A gradient is NaN at finite logits where a square root of 0 is derived: `x.var(dim).sqrt()` of equal numbers has the
# gradient infinity times 0. (`x.std(dim)` has the gradient 0 there, which does not move the image either.) Below, a
# network has the standard deviation over the colour channels as a further feature, and the images are grey. FGSM of
# torchattacks and its PGD without a random start lower its accuracy by nothing. Within the square root 1e-12 is added,
# with the same weights: now they lower it to a small part. A random start hides the problem here.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1' \
    'scikit-learn==1.9.1' 'numpy==2.4.6'
"$folder/env/bin/pip" install --quiet --disable-pip-version-check requests scipy tqdm
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps 'torchattacks==3.5.1'
cat > "$folder/look.py" <<'PYTHON'
import numpy as np
import torch
import torchattacks
from sklearn.datasets import load_digits
from torch import nn

images, labels = load_digits(return_X_y=True)
x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8).expand(-1, 3, -1, -1).contiguous()  # grey
y = torch.tensor(labels)


class Colours(nn.Module):
    """A network whose further feature is how much the colour channels of each pixel differ."""

    def __init__(self):
        super().__init__()
        self.added = 0.0  # within the square root
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4 * 64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        differ = (x.var(dim=1, keepdim=True) + self.added).sqrt()
        return self.layers(torch.cat([x, differ], dim=1))


torch.manual_seed(0)
net = Colours()
optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
for _ in range(150):
    optimiser.zero_grad()
    nn.functional.cross_entropy(net(x), y).backward()
    optimiser.step()
net.eval()
accuracy = lambda images: (net(images).argmax(1) == y).float().mean().item()
natural, found = accuracy(x), {}
for added in (0.0, 1e-12):
    net.added = added
    for name, attack in (
        ("FGSM", torchattacks.FGSM(net, eps=0.1)),
        ("PGD-20", torchattacks.PGD(net, eps=0.1, alpha=0.02, steps=20, random_start=False)),
    ):
        adversarial = attack(x, y)
        found[name, added] = accuracy(adversarial), (adversarial != x).any().item()
        print(f"{name}, {added:g} added: accuracy {natural:.3f}, under attack {found[name, added][0]:.3f}")
nan = float("nan")
print("sign of NaN:", torch.sign(torch.tensor(nan)).item(), "in torch,", np.sign(nan), "in numpy")
assert torch.sign(torch.tensor(nan)) == 0 and np.isnan(np.sign(nan))
assert natural > 0.95
for name in ("FGSM", "PGD-20"):
    assert found[name, 0.0] == (natural, False) and found[name, 1e-12][0] < 0.5
PYTHON
"$folder/env/bin/python" "$folder/look.py"
