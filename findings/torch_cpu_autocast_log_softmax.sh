#!/bin/sh
# torch 2.14.1: within CPU autocast `log_softmax` and `softmax` stay in bf16, and `kl_div` of them returns fp32.
#
# TRADES-like losses are KL(softmax(clean) || softmax(adversarial)), in published code
# `F.kl_div(F.log_softmax(adversarial, 1), F.softmax(clean, 1))`, within `torch.autocast`. Expected: the three functions
# compute in fp32, as on a GPU, where autocast casts all of them; the loss is fp32, which seems to confirm it. Observed on
# a CPU: autocast casts `kl_div` alone, so that its inputs are rounded to 8 bits first. Of 1,000 pairs of logits that
# differ by 0.1, 171 have a negative divergence, which is impossible, and the median is off by half. `cross_entropy` is
# cast, but `nll_loss(log_softmax(...))`, which it is equal to, is not: they differ by up to 0.02.
# With `logits.float()` all of them are right.
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


def kl(adversarial, clean):
    """Return KL(softmax(clean) || softmax(adversarial)) of each row."""
    return F.kl_div(F.log_softmax(adversarial, 1), F.softmax(clean, 1), reduction="none").sum(1)


print("torch", torch.__version__)
torch.manual_seed(0)
clean = torch.randn(1000, 10).bfloat16()
adversarial = (clean + 0.1 * torch.randn(1000, 10)).bfloat16()
y = torch.zeros(1000, dtype=torch.long)
right = kl(adversarial.float(), clean.float())
with torch.autocast("cpu", torch.bfloat16):
    logs = F.log_softmax(adversarial, 1)
    found = kl(adversarial, clean)
    whole, parts = F.cross_entropy(adversarial, y, reduction="none"), F.nll_loss(logs, y, reduction="none")
    casted = kl(adversarial.float(), clean.float())
negative, off = int((found < 0).sum()), ((found - right).abs() / right).median().item()
apart = (whole - parts).abs().max().item()
print(f"log_softmax: {logs.dtype}, kl_div: {found.dtype}, cross_entropy: {whole.dtype}, nll_loss: {parts.dtype}")
print(f"KL below 0: {negative} of 1000, in fp32 {int((right < 0).sum())}; median relative error {off:.2f}")
print(f"cross_entropy and nll_loss of log_softmax differ by up to {apart:.3f}")
assert torch.__version__.split("+")[0] == "2.14.1"
assert logs.dtype == torch.bfloat16 and found.dtype == whole.dtype == parts.dtype == torch.float32
assert negative > 50 and off > 0.2 and apart > 0.005 and not int((right < 0).sum())
assert torch.equal(casted, right)
PYTHON
"$folder/env/bin/python" "$folder/look.py"
