#!/bin/sh
# pyautoattack 0.2.0 (the authors' AutoAttack), torch 2.14.1: APGD-L1 counts values as changed that its projection reset.
#
# At every checkpoint APGD-L1 measures the sparsity of its perturbation, as the number of values in which x_adv differs
# from x, and derives from it how many values the next steps change. The projection onto the L1 ball and the box resets
# most values: there, step and correction add up to exactly 0. Expected: these values equal those of x again. Observed:
# the iterate is computed as (x + step) + correction, which for 4 % of such values differs from x by one rounding error, at
# most 6e-8. All of them are counted, so the attack takes its perturbation to be a fifth denser than it is. Adding step
# and correction first would leave x unchanged.
# Measured on 3x32x32 images with radius 12 and a dense step: on average 536 of 3,072 values change, but 646 are counted.
# numpy is installed explicitly, since the package needs it but does not declare it.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'numpy==2.4.6' 'pyautoattack==0.2.0'
cat > "$folder/look.py" <<'PYTHON'
from importlib.metadata import version

import torch
from pyautoattack.autopgd_base import L1_projection
from pyautoattack.other_utils import L0_norm

torch.manual_seed(0)
x = torch.rand(100, 3, 32, 32)
step = 0.05 * torch.randn_like(x)
correction = L1_projection(x, step, 12.0)
left = (step + correction).flatten(1)
assert float(left.abs().sum(1).max()) < 12.01
iterate = (x + step + correction).clamp(0.0, 1.0)  # as the attack computes it
changed, counted = (left != 0).sum(1), L0_norm(iterate - x)
put_back = left == 0
residue = (iterate - x).flatten(1)[put_back]
other = L0_norm((x + (step + correction)).clamp(0.0, 1.0) - x)
print("pyautoattack", version("pyautoattack"), "torch", torch.__version__)
print("changed by the projection", float(changed.float().mean()), "counted", float(counted.float().mean()))
print("largest residue", float(residue.abs().max()), "of those put back", float((residue != 0).float().mean()))
print("counted where step and correction are added first", float(other.float().mean()))
assert version("pyautoattack") == "0.2.0" and torch.__version__.split("+")[0] == "2.14.1"
assert 1.15 < float((counted / changed).mean()) < 1.35
assert 0 < float(residue.abs().max()) < 2e-7
assert torch.equal(other, changed)
PYTHON
"$folder/env/bin/python" "$folder/look.py"
