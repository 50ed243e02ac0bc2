#!/bin/sh
# torch 2.14.1: the gradient of `kl_div` in its target is NaN where a target probability is 0, though the loss is finite.
#
# TRADES-like losses are KL(softmax(clean) || softmax(adversarial)), differentiated through both. Published code writes
# `F.kl_div(F.log_softmax(adversarial, 1), F.softmax(clean, 1))`. Expected: a clean probability that underflows to 0
# contributes 0 to the gradient, as in the limit, and as `kl_div` treats it in the loss. Observed: the whole row of the
# gradient is NaN, the loss is not, and every weight is NaN after the update. It takes a gap of 104 between the logits
# of an image in fp32, but of only 18 in fp16, which robust networks reach on images that they are sure of.
# With `log_target=True` and `F.log_softmax(clean, 1)` the same loss has finite gradients.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1'
cat > "$folder/look.py" <<'PYTHON'
import torch
import torch.nn.functional as F


def look(gap, dtype, logs):
    """Return the loss and whether its gradient in the clean logits is finite."""
    clean = torch.tensor([[gap, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    other = torch.tensor([[1.0, 2.0, 3.0]], dtype=dtype)
    target = F.log_softmax(clean, 1) if logs else F.softmax(clean, 1)
    loss = F.kl_div(F.log_softmax(other, 1), target, reduction="batchmean", log_target=logs)
    return loss.item(), bool(torch.autograd.grad(loss, clean)[0].isfinite().all())


print("torch", torch.__version__)
found = {}
for dtype, gaps in ((torch.float32, (100.0, 110.0)), (torch.float16, (12.0, 18.0))):
    for gap in gaps:
        for logs in (False, True):
            found[dtype, gap, logs] = look(gap, dtype, logs)
            print(f"{dtype}, gap {gap:g}, log_target={logs}: loss {found[dtype, gap, logs][0]:.4f},",
                  "finite gradient" if found[dtype, gap, logs][1] else "NaN in the gradient")
assert torch.__version__.split("+")[0] == "2.14.1"
for (dtype, gap, logs), (loss, finite) in found.items():
    assert abs(loss - 2.4076) < 0.002
    assert finite == (logs or gap in (100.0, 12.0))
PYTHON
"$folder/env/bin/python" "$folder/look.py"
