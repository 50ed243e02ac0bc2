#!/bin/sh
# pyautoattack 0.2.0 (the authors' AutoAttack), torch 2.14.1: APGD-L1 counts values as changed that its projection put back.
#
# APGD-L1 measures at every checkpoint how sparse its perturbation is, as the number of values in which x_adv differs from
# x, and chooses by it how many values the next steps move. The projection onto the L1 ball and the box puts most values
# back: there step and correction add up to exactly 0. One expects that these values are those of x again. They are not:
# the iterate is (x + step) + correction, which for 4 in 100 of such values is one rounding away from x, by 6e-8 at most.
# All of them count, so that the attack takes its perturbation for a fifth denser than it is. Adding step and correction
# first would leave x as it was.
# Seen, 3x32x32 images, radius 12, a dense step: the projection leaves 536 of 3,072 values changed on average, 646 count.
# numpy is named below since the package needs it and does not say so.
#
# Exits with 0 if this is still so, with 1 if it has changed. Needs 6 GB of disk for torch.
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
