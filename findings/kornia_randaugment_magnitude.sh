#!/bin/sh
# kornia 0.9.0: RandAugment draws its operations once per batch, and several are weakest at a medium magnitude.
#
# RandAugment applies n random operations to an image, and a larger magnitude m means a stronger change, as in
# torchvision's class of the same name. kornia's augmentations draw for each image of a batch. Expected: so does its
# RandAugment(n, m), with m between 0 and 30. Observed: the operations are drawn once per call, so that all images of
# a batch get the same ones. One call for 64 equal images mostly gives one kind of image, 64 calls give about 20.
#
# And m is a position in the range of each operation. Brightness, contrast, colour and sharpness have factors from 0.1
# to 1.9, so that m = 15 is the factor 1, and these four do nothing. m = 1 leaves a sixth of the contrast. The threshold
# of solarize grows with m: m = 1 inverts almost the whole image, m = 29 almost nothing. On average m = 1 changes an
# image more than m = 15; in torchvision m = 15 changes it three to four times as much. Whoever lowers m for small
# images, or because adversarial training suffers from strong augmentation, makes it stronger. Nothing warns. Call it
# once per image, with a `policy` of your own.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1' \
    'kornia==0.9.0' 'scikit-learn==1.9.1' 'pillow==13.0.0' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import kornia
import torch
import torchvision
from kornia.augmentation.auto import RandAugment
from sklearn.datasets import load_sample_image

photo = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)[None].float() / 255
image = torch.nn.functional.interpolate(photo[..., :400, :400], size=32, mode="area")
image = (image * 255).round() / 255
batch = image.expand(64, -1, -1, -1).clone()
FACTORS = dict.fromkeys(("brightness", "contrast", "color", "sharpness"), (0.1, 1.9))
RANGES = {**FACTORS, "solarize": (0.0, 1.0), "rotate": (-30.0, 30.0)}  # those of kornia's own policy
torch.manual_seed(0)


def change(augment, calls=1):
    """Return by how many levels of 255 the images change on average."""
    return round(sum(255 * (augment(batch) - batch).abs().mean().item() for _ in range(calls)) / calls, 1)


def kinds(images):
    """Return how many different images there are."""
    left, found = list(images), 0
    while left:
        found += 1
        left = [each for each in left if (each - left[0]).abs().max() > 0.02]
    return found


print("torch", torch.__version__, "torchvision", torchvision.__version__, "kornia", kornia.__version__)
found = {}
for m in (1, 5, 10, 15, 20, 25, 29):
    found[m] = {name: change(RandAugment(1, m, policy=[[(name, *ends)]])) for name, ends in RANGES.items()}
    print(f"m = {m}, change of each operation in levels: {found[m]}")
whole = {m: change(RandAugment(2, m), 300) for m in (1, 15)}
levels = (batch * 255).to(torch.uint8)
other = {}
for m in (1, 15, 29):
    augment = torchvision.transforms.RandAugment(2, m)
    other[m] = round(sum((augment(levels[0]).float() - levels[0]).abs().mean().item() for _ in range(300)) / 300, 1)
print("two operations of the default policy:", whole, "torchvision's:", other)
augment = RandAugment(1, 10)
together = sorted(kinds(augment(batch)) for _ in range(101))
alone = sorted(kinds(torch.cat([augment(each[None]) for each in batch])) for _ in range(5))
print("different images of 64, median: in one call", together[50], "in 64 calls", alone[2])
assert all(found[15][name] == 0 and found[1][name] > found[10][name] > 0 for name in FACTORS)
assert found[1]["solarize"] > 100 and found[29]["solarize"] < 1 and found[29]["rotate"] > found[1]["rotate"]
assert whole[1] > whole[15] and other[29] > other[15] > other[1]
assert together[50] <= 2 and together[70] <= 2 and alone[0] > 15
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
