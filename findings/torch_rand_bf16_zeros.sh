#!/bin/sh
# torch 2.14.1: on a CPU, one of 512 values of `torch.rand` in bf16 is exactly 0, and one of 4,096 in fp16.
#
# `torch.rand` draws from [0, 1). Expected: in bf16 it is the draw in fp32, rounded, and kept below 1. So a 0 is as rare
# as in fp32, where none of 4,000,000 values is one, and u < p holds with probability p. Observed: the values that would
# round to 1 become 0. They are 1/512 of all. So u < p holds with probability p + 1/512, and the mean is 1/512 too
# small. `uniform_(-1, 1)` returns -1 that often. In fp32 nothing of this shows.
#
# The type is often that of the images: `torch.rand_like(x) < p` is the usual mask of salt-and-pepper noise and of
# dropped pixels. A mask of 0.1 % covers 0.3 % of bf16 images. The logarithm of such a draw, for Gumbel or exponential
# noise, is -inf once in 512 values. Draw in fp32 and convert. Dropout is right, since it uses `bernoulli_`.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import torch

print("torch", torch.__version__)
torch.set_num_threads(1)
n = 4_000_000
zeros, rare = {}, {}
for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)):
    torch.manual_seed(0)
    u = torch.rand(n, dtype=dtype)
    zeros[name] = int((u == 0).sum())
    rare[name] = (u < 0.001).float().mean().item()
    infinite = int(u.log().isinf().sum())
    torch.manual_seed(0)
    ends = int((torch.empty(n, dtype=dtype).uniform_(-1, 1) == -1).sum())
    print(f"{name}: {zeros[name]} zeros of {n}, largest {u.max().item():.7f}, mean {u.double().mean().item():.5f}, "
          f"u < 0.001 for {100 * rare[name]:.3f} %, log(u) infinite for {infinite}; uniform_(-1, 1) is -1 for {ends}")
    assert infinite == zeros[name]
torch.manual_seed(0)
rounded = torch.rand(n).bfloat16()
print("drawn in fp32 and rounded to bf16:", int((rounded == 0).sum()), "zeros,", int((rounded == 1).sum()), "ones")
images = torch.full((64, 3, 32, 32), 0.5, dtype=torch.bfloat16)
mask = (torch.rand_like(images) < 0.001).float().mean().item()
print(f"a mask of 0.1 % of bf16 images covers {100 * mask:.2f} %")
dropped = (torch.nn.functional.dropout(torch.ones(n, dtype=torch.bfloat16), 0.001) == 0).float().mean().item()
print(f"dropout of 0.1 % in bf16 drops {100 * dropped:.2f} %")
assert abs(512 * zeros["bf16"] / n - 1) < 0.05 and abs(4096 * zeros["fp16"] / n - 1) < 0.1 and zeros["fp32"] == 0
assert abs(rare["bf16"] - 0.00295) < 0.0002 and abs(rare["fp32"] - 0.001) < 0.0001
assert int((rounded == 0).sum()) < 5 and abs(512 * int((rounded == 1).sum()) / n - 1) < 0.05
assert 0.0025 < mask < 0.0035 and 0.0009 < dropped < 0.0011
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
