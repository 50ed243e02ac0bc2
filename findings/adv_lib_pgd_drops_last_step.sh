#!/bin/sh
# adv-lib 0.2.8: PGD never judges its last step, so with one step it returns the images unchanged.
#
# pgd_linf(..., steps=K) is expected to return the best of the start and K steps; with steps=1 and no random start it
# would be FGSM. Observed: each step judges the point before it. The last step is taken and thrown away: K steps cost K
# passes back and attack as K - 1. With steps=1 the accuracy is that of the unperturbed images, or of random noise.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1'
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'setuptools==80.9.0' wheel tqdm
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-build-isolation 'visdom==0.2.4'  # needs pkg_resources
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps 'adv-lib==0.2.8'
cat > "$folder/look.py" <<'PYTHON'
import torch
from adv_lib.attacks import pgd_linf
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval()
x, eps = torch.rand(64, 3, 8, 8), 8 / 255
y = net(x).argmax(1)
leaf = x.clone().requires_grad_()
gradient, = torch.autograd.grad(nn.functional.cross_entropy(net(leaf), y, reduction="sum"), leaf)
fgsm = (x + eps * gradient.sign()).clamp(0, 1)
print(f"FGSM by hand: {int((net(fgsm).argmax(1) == y).sum())} of 64 stand")
for steps in (1, 2):
    images = pgd_linf(net, x, y, eps, steps=steps, random_init=False, absolute_step_size=eps)
    stand, moved = int((net(images).argmax(1) == y).sum()), int((images != x).flatten(1).any(1).sum())
    print(f"pgd_linf, steps={steps}: {stand} of 64 stand, {moved} images differ from the clean ones")
    assert (moved == 0, stand == 64) == (steps == 1, steps == 1)
PYTHON
"$folder/env/bin/python" "$folder/look.py"
