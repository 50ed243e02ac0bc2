#!/bin/sh
# torch 2.14.1: with AVX512-BF16 but without AMX, bf16 is slower than fp32 on Intel's Xeons of 2023 and later.
#
# The instruction VDPBF16PS of AVX512-BF16 multiplies twice as many numbers as an instruction for fp32.
# Expected: on a CPU whose flags have avx512_bf16, bf16 takes about half of the time of fp32, as on AMD's Zen 4 and 5.
# Observed: Sapphire and Emerald Rapids execute VDPBF16PS at half of the rate of fp32 instructions, so that as many
# numbers are multiplied a second, and conversions are added. Their speed in bf16 comes from AMX alone, and virtual
# machines often hide AMX while they show avx512_bf16. `torch.cpu.get_capabilities()` tells all three flags.
# Measured on an Emerald Rapids without AMX, one thread: bf16 takes 1.5 to 2.1 times as long as fp32.
# A program that chooses bf16 because of avx512_bf16 becomes slower there. libxsmm's tpp-mlir notes the same of its own
# kernels (pull request 1025: about twice as slow as fp32 on Emerald Rapids).
#
# Exits with 0 if this is so, with 1 if not, and with 2 on a CPU that cannot show it. It needs AVX512-BF16; AMX is
# switched off by oneDNN's own setting. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1'
cat > "$folder/look.py" <<'PYTHON'
import statistics
import sys
import time

import torch
from torch.nn.functional import conv2d

torch.set_num_threads(1)
has = torch.cpu.get_capabilities()
intel = "AMD" not in has["cpu_name"]
print("torch", torch.__version__, has["cpu_name"], {flag: has[flag] for flag in ("avx512_bf16", "avx512_fp16", "amx_bf16")})
if not has["avx512_bf16"] or (intel and not has["avx512_fp16"]):
    print("needs a CPU with AVX512-BF16: an Intel Xeon since Sapphire Rapids, or an AMD since Zen 4")
    sys.exit(2)


def ratio(low, full):
    """Return the median ratio of the seconds of two functions, called in turns."""
    found = []
    for turn in range(8):
        seconds = []
        for function in (low, full):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        found += [seconds[0] / seconds[1]] if turn else []
    return statistics.median(found)


x = torch.randn(64, 128, 16, 16).to(memory_format=torch.channels_last)
w = torch.randn(128, 128, 3, 3).to(memory_format=torch.channels_last)
a = torch.randn(2048, 2048)
low_x, low_w, low_a = (each.bfloat16() for each in (x, w, a))
over = {
    "convolution, 128 channels": ratio(lambda: conv2d(low_x, low_w, padding=1), lambda: conv2d(x, w, padding=1)),
    "product of matrices": ratio(lambda: low_a @ low_a, lambda: a @ a),
}
for name, each in over.items():
    print(f"{name}: bf16 takes {each:.2f} of the time of fp32")
if intel:
    assert min(over.values()) > 1.1, "bf16 is slower"
else:
    assert max(over.values()) < 0.9, "bf16 is faster"
PYTHON
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 "$folder/env/bin/python" "$folder/look.py"
