#!/bin/sh
# torch 2.14.1: setting the fp32 precision of oneDNN only sets that of every backend.
#
# torch.backends has a global `fp32_precision`, one for each backend (cudnn, mkldnn) and one for each kind of operation.
# Expected: `torch.backends.mkldnn.fp32_precision = "bf16"`, a setting for the CPU, does not affect CUDA. Observed: its
# getter reads ("mkldnn", "all") but its setter writes ("generic", "all"), so matrix products and convolutions on a GPU
# change too, unless they have a precision of their own. `torch.backends.cudnn.fp32_precision` writes its own setting,
# and so does `torch.backends.mkldnn.flags(fp32_precision=...)`.
# Measured: after mkldnn.fp32_precision = "ieee", the precisions of everything, of cuDNN and of its convolutions are ieee.
# Code that sets a precision temporarily must restore the global setting too; restoring that of mkldnn is not enough.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1'
cat > "$folder/look.py" <<'PYTHON'
import torch

b = torch.backends
PLACES = {"everything": b, "cudnn": b.cudnn, "cudnn.conv": b.cudnn.conv, "mkldnn": b.mkldnn}


def seen():
    return {name: place.fp32_precision for name, place in PLACES.items()}


print("torch", torch.__version__)
start = seen()
print("at first                      ", start)
b.cudnn.fp32_precision = "ieee"
own = seen()
print("cudnn.fp32_precision = ieee   ", own)
b.cudnn.fp32_precision = "none"
b.mkldnn.fp32_precision = "ieee"
wide = seen()
print("mkldnn.fp32_precision = ieee  ", wide)
b.mkldnn.fp32_precision = "none"
with b.mkldnn.flags(enabled=True, fp32_precision="ieee"):
    within = seen()
print("within mkldnn.flags of ieee   ", within)
assert torch.__version__.split("+")[0] == "2.14.1"
assert own["cudnn"] == "ieee" and own["everything"] == start["everything"] == "none", "cuDNN's is its own"
assert set(wide.values()) == {"ieee"}, "oneDNN's was everybody's"
assert within["mkldnn"] == "ieee" and within["everything"] == "none", "its context manager's is its own"
PYTHON
"$folder/env/bin/python" "$folder/look.py"
