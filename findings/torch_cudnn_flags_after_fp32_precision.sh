#!/bin/sh
# torch 2.14.1: after the fp32 precision of cuDNN is set, `torch.backends.cudnn.flags(deterministic=True)` raises.
#
# Since torch 2.9 TF32 is controlled by `fp32_precision`. Code that never names TF32 should not notice. Expected: the
# context manager `torch.backends.cudnn.flags` sets what it is given, here `deterministic`. Observed: it reads and writes
# all flags, also the old `allow_tf32`, and reading that raises a RuntimeError once any new setting has turned TF32 off,
# even if convolutions and RNNs have equal settings: its text says that they differ and that old and new settings were
# mixed. Assigning `torch.backends.cudnn.deterministic` works.
# Measured: it raises after fp32_precision = "ieee" for everything, for cuDNN, and for its convolutions and RNNs both; it
# does not raise if nothing was set, or both were set to "tf32". No GPU is needed to see it.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1'
cat > "$folder/look.py" <<'PYTHON'
import sys

import torch

b = torch.backends
WAYS = {
    "nothing": ("tf32", []),
    "convolutions and RNNs, tf32": ("tf32", [b.cudnn.conv, b.cudnn.rnn]),
    "everything, ieee": ("ieee", [b]),
    "cuDNN, ieee": ("ieee", [b.cudnn]),
    "convolutions and RNNs, ieee": ("ieee", [b.cudnn.conv, b.cudnn.rnn]),
}
precision, places = WAYS[sys.argv[1]]
for place in places:
    place.fp32_precision = precision
equal = b.cudnn.conv.fp32_precision == b.cudnn.rnn.fp32_precision == precision
assert equal, "convolutions and RNNs have the same setting"
try:
    with b.cudnn.flags(enabled=True, deterministic=True):
        raised = ""
except RuntimeError as error:
    raised = str(error).split(".")[0]
before = b.cudnn.deterministic
b.cudnn.deterministic = True
assert b.cudnn.deterministic and not before
print(f"torch {torch.__version__}, set: {sys.argv[1]}: {raised or 'works'}")
sys.exit(0 if bool(raised) == (precision == "ieee") else 1)
PYTHON
for way in "nothing" "convolutions and RNNs, tf32" "everything, ieee" "cuDNN, ieee" "convolutions and RNNs, ieee"; do
  "$folder/env/bin/python" -W ignore "$folder/look.py" "$way" || exit 1
done
