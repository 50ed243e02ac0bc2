#!/bin/sh
# transformers 5.24.0: an image processor divides images in [0, 1] by 255 again, without a warning.
#
# The processors divide by 255 by default, for images of 0 to 255. Attacks return tensors in [0, 1]. A processor sees
# the dtype and the values of what it gets; it is expected to leave floats in [0, 1] alone, or to warn, as that of ViViT
# does. Observed: that of ViT, like most, divides them and says nothing. The network gets an almost black image, and
# every number about its robustness is wrong. Pass do_rescale=False, or attack the network behind the processor.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1' \
    'transformers==5.24.0' 'pillow==13.0.0' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import io
import logging
import warnings

import numpy as np
import torch
from transformers import ViTImageProcessor
from transformers.utils import logging as theirs

said = io.StringIO()
theirs.set_verbosity_info()
theirs.get_logger("transformers").addHandler(logging.StreamHandler(said))
torch.manual_seed(0)
bytes_ = torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8)
kinds = {"uint8 tensor": bytes_, "float tensor": bytes_ / 255, "float array": (bytes_ / 255).numpy()}
processor, ranges = ViTImageProcessor(), {}
with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter("always")
    for name, image in kinds.items():
        done = processor(images=image, return_tensors="pt")["pixel_values"]
        ranges[name] = done.min().item(), done.max().item()
        print(f"{type(processor).__name__}, {name}: {ranges[name][0]:.4f} to {ranges[name][1]:.4f}")
told = said.getvalue() + "".join(str(each.message) for each in warned)
print("said:", repr(told))
assert np.allclose(ranges["uint8 tensor"], (-1, 1)) and "rescale" not in told.lower()
assert all(np.allclose(ranges[name], (-1, -1 + 2 / 255), atol=1e-4) for name in ("float tensor", "float array"))
PYTHON
"$folder/env/bin/python" "$folder/look.py"
