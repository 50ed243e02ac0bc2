#!/bin/sh
# torchvision 0.29.1 and matplotlib 3.11.2: saving an adversarial image moves it out of the eps-ball.
#
# An 8-bit image x and eps = 8/255 are whole levels, so x - eps and x + eps are too. Expected: the saved image has
# exactly these levels. Observed: `to_pil_image`, `ToPILImage` and `matplotlib.image.imsave` multiply by 255 and
# truncate. In float32, x - 8/255 times 255 is a little below the level for 15 of the 256 levels, which come out 9
# levels away from x. x + eps is not affected, nor is x itself, so that a round trip of clean images finds nothing.
# `torchvision.utils.save_image` rounds.
#
# An image with perturbations of +-eps has such values in 3 % of its values, so every image leaves the ball. Whoever
# saves a set of adversarial examples, or attacks a network through 8-bit images, then reports a radius of 8/255 for one
# of 9/255, and a check of the radius fails. Perturbations between two levels are moved towards black instead of to the
# nearer one. Round first: `(x * 255).round().to(torch.uint8)`.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1' 'numpy==2.4.6' \
    'pillow==13.0.0' 'matplotlib==3.11.2'
cat > "$folder/look.py" <<'PYTHON'
import io

import matplotlib
import matplotlib.image
import torch
import torchvision
from PIL import Image
from torchvision.transforms.v2 import functional as F

EPS = 8
print("torch", torch.__version__, "torchvision", torchvision.__version__, "matplotlib", matplotlib.__version__)
torch.manual_seed(0)
clean = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
x = clean / 255
adversarial = (x + EPS / 255 * torch.randn_like(x).sign()).clamp(0, 1)


def by_imsave(image, file):
    matplotlib.image.imsave(file, image.permute(1, 2, 0).numpy(), format="png")


def by_save_image(image, file):
    torchvision.utils.save_image(image, file, format="png")


def read_back(write, image):
    buffer = io.BytesIO()
    write(image, buffer)
    buffer.seek(0)
    return F.pil_to_tensor(Image.open(buffer).convert("RGB"))


ways = {
    "to_pil_image": lambda image: F.pil_to_tensor(F.to_pil_image(image)),
    "imsave": lambda image: read_back(by_imsave, image),
    "save_image": lambda image: read_back(by_save_image, image),
}
print("in float32 no pixel is further away than", round(float((adversarial - x).abs().max() * 255), 4), "levels")
found = {}
for name, way in ways.items():
    assert torch.equal(torch.stack([way(image) for image in x]), clean)
    distance = (torch.stack([way(image) for image in adversarial]).int() - clean.int()).abs()
    outside = distance > EPS
    found[name] = int(distance.max()), int(outside.flatten(1).any(dim=1).sum())
    print(f"{name}: up to {found[name][0]} levels, {found[name][1]} of {len(x)} images outside,",
          f"in {100 * float(outside.float().mean()):.1f} % of their values")
assert found == {"to_pil_image": (9, 20), "imsave": (9, 20), "save_image": (8, 0)}, found
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
