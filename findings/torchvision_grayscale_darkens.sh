#!/bin/sh
# torchvision 0.29.1: `Grayscale` of a uint8 tensor makes gray images darker by one level.
#
# Expected: an image whose three channels are equal is gray already, and stays as it is. So it does as a PIL image.
# Observed: as a uint8 tensor every level but 0 becomes the level below, 255 becomes 254. The three weights 0.2989,
# 0.587 and 0.114 add up to 0.9999, and the result is truncated, not rounded. Each call takes another level. A colour
# image comes out half a level darker on average than PIL's. In float, white becomes 0.9999. `RandomGrayscale` does the
# same, and `adjust_saturation` by less than 1, thus ColorJitter too.
#
# One level is 1/255, an eighth of the usual radius 8/255, in every pixel and in the same direction. A network that is
# trained on gray images from PIL and evaluated on tensors gets other images, and a perturbation measured against the
# original file begins one level away from 0. Images stored with three equal channels (digits, X-rays) match their
# originals no longer, so a search for duplicates between train and test misses them. Convert as PIL images, or take one
# channel of gray data.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1' 'numpy==2.4.6' \
    'pillow==13.0.0'
cat > "$folder/look.py" <<'PYTHON'
import torch
import torchvision
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

print("torch", torch.__version__, "torchvision", torchvision.__version__)
levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
gray = levels.expand(3, 16, 16).contiguous()


def change(image, after):
    difference = after.int() - image.int()
    return {int(each): int((difference[0] == each).sum()) for each in difference.unique()}


to_gray = v2.Grayscale(num_output_channels=3)
as_pil = F.pil_to_tensor(to_gray(F.to_pil_image(gray)))
found = {
    "Grayscale, PIL": change(gray, as_pil),
    "Grayscale, uint8 tensor": change(gray, to_gray(gray)),
    "RandomGrayscale, uint8 tensor": change(gray, v2.RandomGrayscale(p=1.0)(gray)),
    "adjust_saturation(0.5), uint8 tensor": change(gray, F.adjust_saturation(gray, 0.5)),
}
for name, counts in found.items():
    print(f"{name}: change of the 256 gray levels", counts)
repeated = gray
for _ in range(6):
    repeated = to_gray(repeated)
white = float(to_gray(torch.ones(3, 1, 1))[0, 0, 0])
print("white after six calls:", int(repeated[0, -1, -1]), "and in float after one:", white)
torch.manual_seed(0)
colour = torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8)
difference = (to_gray(colour).float() - F.pil_to_tensor(to_gray(F.to_pil_image(colour))).float()).mean().item()
print(f"random colours: on average {difference:.2f} levels against PIL")
assert found["Grayscale, PIL"] == {0: 256}
assert found["Grayscale, uint8 tensor"] == found["RandomGrayscale, uint8 tensor"] == {-1: 255, 0: 1}
assert found["adjust_saturation(0.5), uint8 tensor"].get(-1, 0) > 100
assert int(repeated[0, -1, -1]) == 249 and difference < -0.4
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
