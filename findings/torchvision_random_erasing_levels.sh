#!/bin/sh
# torchvision 0.29.1: `RandomErasing(value="random")` paints images almost black, or outside the range from 0 to 1.
#
# Its documentation erases each pixel "with random values", after a paper that draws them from 0 to 255. Expected: on
# uint8 images any level, on float images values in [0, 1]; other transforms know the range by the dtype. Observed:
# it draws standard normal numbers whatever the image is. On uint8 they are truncated: two thirds of the levels are 0,
# the others 1 to 4 and, from negative numbers that wrap around (x86), 252 to 255. So the patch is black with white and
# nearly black dots: ten levels at most, not 256. On float images two thirds of the values lie outside [0, 1],
# between about -4 and 4. It suits images after a normalisation by mean and std, for which it was made.
#
# Adversarial training works on [0, 1], with the normalisation in the network. Its attack ends with clamp(0, 1), which
# moves a value of -3 by 3, where the radius is 8/255. These pixels leave the ball, and in an L2 or L1 ball they alone
# take more than the whole radius. A loss of clean and adversarial images, as TRADES has, sees another patch in each.
# Nothing warns. Clamp after the transform, or erase with a `value` of your own.
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
from torchvision import transforms
from torchvision.transforms import v2

EPS = 8 / 255
print("torch", torch.__version__, "torchvision", torchvision.__version__)


def patch(module, image):
    """Return the image with a patch, and the values of the patch."""
    torch.manual_seed(0)
    erased = module.RandomErasing(p=1, scale=(0.3, 0.3), value="random")(image)
    return erased, erased[erased != image[0, 0, 0]]


gray8, gray = torch.full((3, 128, 128), 128, dtype=torch.uint8), torch.full((3, 128, 128), 0.5)
for module in (transforms, v2):
    levels = patch(module, gray8)[1]
    black = (levels == 0).float().mean().item()
    image, values = patch(module, gray)
    outside = ((values < 0) | (values > 1)).float().mean().item()
    print(f"{module.__name__}: uint8: levels {levels.unique().tolist()}, {black:.0%} of them 0; float: from",
          f"{values.min():.2f} to {values.max():.2f}, {outside:.0%} outside [0, 1]")
    assert len(levels.unique()) < 16 and not ((levels > 8) & (levels < 248)).any() and black > 0.6
    assert 0.6 < outside < 0.75 and values.min() < -2 and values.max() > 2
    step = EPS * torch.randn(image.shape).sign()
    attacked = (image + step).clamp(0, 1)
    print(f"largest change by an attack of radius {EPS:.4f}: {(attacked - image).abs().max():.2f}")
    assert (attacked - image).abs().max() > 2
noise = v2.GaussianNoise(sigma=0.1)(gray8).unique()
print("levels of v2.GaussianNoise on the same uint8 image:", len(noise))
assert len(noise) > 64
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
