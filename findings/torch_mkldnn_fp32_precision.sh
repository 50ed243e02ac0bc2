#!/bin/sh
# torch 2.14.1: setting the precision of oneDNN alone sets that of every backend.
#
# torch.backends has an `fp32_precision` for everything, one for each backend (cudnn, mkldnn) and one for each kind of
# operation. One expects that `torch.backends.mkldnn.fp32_precision = "bf16"`, a choice for the CPU, leaves CUDA alone.
# But its getter reads ("mkldnn", "all") and its setter writes ("generic", "all"): matrix products and convolutions on
# a GPU follow wherever they have no precision of their own. `torch.backends.cudnn.fp32_precision` writes its own place,
# and so does `torch.backends.mkldnn.flags(fp32_precision=...)`.
# Seen: after mkldnn.fp32_precision = "ieee" the precision of everything, of cuDNN and of its convolutions is ieee.
# Who sets a precision for a while must put back the widest place too: reading and writing mkldnn's is not enough.
#
# Exits with 0 if this is still so, with 1 if it has changed. Needs 6 GB of disk for torch.
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
