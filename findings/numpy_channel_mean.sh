#!/bin/sh
# numpy 2.4.6: the mean per channel of CIFAR-10's images in float32 is a third too small.
#
# For a normalisation one computes `images.mean(axis=(0, 1, 2))` and `std` of images (N, H, W, C) in [0, 1]. Expected: a
# relative error of 1e-5 or so, since `mean` sums in pairs. Observed: it sums in pairs along the last axis only. Along
# the others it adds one value after another, in float32. As soon as a sum is 2^24 = 16.8 million, adding a value below
# 1 leaves it unchanged; for values below 1/2 that happens at 2^23. CIFAR-10 has 51.2 million values per channel. So the
# mean of a channel is at most 16.8 / 51.2 = 0.328, whatever the images are. The std is wrong too. Nothing warns. 3,000
# images have an error of 0.3 % at most. (N, C, H, W) has none, nor has `images.mean()`, or float64, which `uint8 / 255`
# gives.
#
# A network that is trained on images normalised by such numbers learns well. But whoever normalises by the mean
# computed in float64, or with torch, or by the published numbers, shifts its input by half a standard deviation.
# Accuracy falls, and a radius divided by the std is another radius. `mean(axis=(0, 1, 2), dtype=numpy.float64)` avoids
# it.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 2 GB of memory.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import numpy as np

print("numpy", np.__version__)
rng = np.random.default_rng(0)
pixels = rng.integers(0, 241, (1000, 32, 32, 3), dtype=np.uint8)
pixels[..., 2] //= 2  # the third channel is darker
images = np.tile(pixels.astype(np.float32) / 255, (50, 1, 1, 1))
axes = (0, 1, 2)


def relative_error(found, right):
    return np.abs(found / right - 1).round(5)


right = images[:1000].mean(axis=axes, dtype=np.float64), images[:1000].std(axis=axes, dtype=np.float64)
found = {n: (images[:n].mean(axis=axes), images[:n].std(axis=axes)) for n in (3000, 50_000)}
print("float64:", "mean", right[0].round(4), "std", right[1].round(4))
for n, (mean, std) in found.items():
    print(f"float32, {n} images {images[:n].shape[1:]}: mean", mean.round(4), "std", std.round(4),
          "error of the mean", relative_error(mean, right[0]))
total = np.mean([images[i : i + 1000].mean() for i in range(0, 50_000, 1000)])
print("all channels together, float32:", images.mean().round(4), "in parts:", total.round(4))
planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
del images
nchw = planes.mean(axis=(0, 2, 3))
print("float32, NCHW: mean", nchw.round(4))
assert relative_error(found[3000][0], right[0]).max() < 5e-3
assert relative_error(found[50_000][0], right[0]).max() > 0.25
assert (found[50_000][0] <= 2**24 / 51.2e6 + 1e-6).all()
assert relative_error(nchw, right[0]).max() < 1e-3
PYTHON
"$folder/env/bin/python" "$folder/look.py"
