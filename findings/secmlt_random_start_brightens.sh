#!/bin/sh
# SecML-Torch 1.5 (secml-torch): the random start of its own PGD in Linf is the same brighter image every time.
#
# PGD(..., random_start=True, backend="native") is expected to start from a uniform point of the ball. Observed: the
# start's perturbation is the image plus the noise, cut to the ball. All pixels above eps thus move by +eps, whatever
# the noise: at 8/255 that is 97 % of uniformly drawn pixels. Several restarts begin at nearly the same image, and a
# network that is robust to brightness seems robust to random starts. In L2 the start is the image's own direction.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1'
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps 'secml-torch==1.5'
cat > "$folder/look.py" <<'PYTHON'
import torch
from secmlt.adv.evasion.pgd import PGD

torch.manual_seed(0)
x, eps = torch.rand(64, 3, 32, 32), 8 / 255
starts = {}
for norm, radius in (("linf", eps), ("l2", 0.5)):
    pgd = PGD(norm, radius, 10, radius / 4, random_start=True, backend="native")
    starts[norm] = [pgd.initializer(x) for _ in range(2)]
first, second = starts["linf"]
up = (first > 0.999 * eps).float().mean().item()
alike = torch.nn.functional.cosine_similarity(first.flatten(1), second.flatten(1)).mean().item()
uniform = eps * (2 * torch.rand(2, 64, 3072) - 1)
usual = torch.nn.functional.cosine_similarity(*uniform).mean().item()
along = torch.nn.functional.cosine_similarity(starts["l2"][0].flatten(1), x.flatten(1)).mean().item()
print(f"Linf: {up:.1%} of the pixels start at +eps; cosine between two starts {alike:.3f}, of uniform noise {usual:.3f}")
print(f"L2: cosine between the start's perturbation and the image {along:.3f}")
assert up > 0.95 and alike > 0.95 and abs(usual) < 0.01 and along > 0.95
PYTHON
"$folder/env/bin/python" "$folder/look.py"
