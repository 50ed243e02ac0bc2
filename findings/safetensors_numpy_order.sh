#!/bin/sh
# safetensors 0.8.0: `safetensors.numpy.save_file` writes another array than it is given, unless the array is in C order.
#
# Expected: as with safetensors 0.7.0 the file holds the values, or as in `safetensors.torch` such an array is refused.
# Observed: the bytes are written as they lie in memory, with the shape of the view, and no error. Images (N, H, W, C)
# that are turned into (N, C, H, W) by `transpose` or `moveaxis` come back scrambled, as do Fortran-ordered weights,
# slices with a step and broadcast arrays. Shapes, dtypes, minimum and maximum are right, so that a check of these
# passes; a slice comes back with rows that are not of the slice. Big-endian arrays are right.
# `numpy.ascontiguousarray` before saving avoids it. Reported as issue 825 of safetensors, open in August 2026.
#
# Exits with 0 if the problem still exists, with 1 if not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'safetensors==0.8.0' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import os
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
weights = np.arange(12, dtype=np.float32).reshape(3, 4)
arrays = {
    "images, NHWC to NCHW by transpose": images.transpose(0, 3, 1, 2),
    "images, NHWC to NCHW by moveaxis": np.moveaxis(images, 3, 1),
    "weights in Fortran order": np.asfortranarray(weights),
    "transposed weights": weights.T,
    "every second image": images[::2],
    "one row broadcast to three": np.broadcast_to(weights[0], (3, 4)),
    "transposed, then made contiguous": np.ascontiguousarray(weights.T),
    "big-endian weights": weights.astype(">f4"),
}
path = os.path.join(sys.argv[1], "t.safetensors")
print("safetensors", safetensors.__version__, "numpy", np.__version__)
wrong = []
for name, array in arrays.items():
    save_file({"array": array}, path)
    back = load_file(path)["array"]
    assert back.shape == array.shape and back.dtype == array.dtype.newbyteorder("=")
    share = (back != array).mean()
    wrong.append(bool(share > 0))
    print(f"{name}: {'equal' if not share else f'{share:.0%} of the values differ'}")
assert wrong == [True] * 6 + [False] * 2
PYTHON
"$folder/env/bin/python" "$folder/look.py" "$folder"
