#!/bin/sh
# torch 2.14.1: on a CPU, the first n values of `torch.randn` depend on how many are drawn, also beyond a size of 16.
#
# Expected, as with `torch.rand` and with NumPy's generators: after the same seed a longer draw begins with the values
# of a shorter one, so that noise for the first images does not depend on the batch size. Observed: tensors below 16
# values come from another algorithm, so 15 and 16 values have none in common. From 16 on, a size that is no multiple
# of 16 has its last 16 values drawn again: 17 and 32 values share only the first, because values 2 to 17 of the shorter
# one are drawn anew. Multiples of 16 share all. `normal_` behaves likewise; bf16 and fp64 too.
#
# Exits with 0 if the behaviour is still as described, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import numpy as np
import torch


def shared(draw, short, long):
    """Return how many of the first `short` values are equal in both draws after the same seed."""
    torch.manual_seed(0)
    first = draw(short)
    torch.manual_seed(0)
    return int((first == draw(long)[:short]).sum())


draws = {
    "rand": torch.rand,
    "randn": torch.randn,
    "normal_": lambda n: torch.empty(n).normal_(),
    "randn fp64": lambda n: torch.randn(n, dtype=torch.float64),
    "randn bf16": lambda n: torch.randn(n, dtype=torch.bfloat16),
    "numpy": lambda n: torch.from_numpy(np.random.default_rng(0).standard_normal(n)),
}
pairs = [(8, 15), (15, 16), (16, 32), (17, 32), (40, 64), (192, 64 * 192), (27, 64 * 27)]
print("torch", torch.__version__, "values shared, of how many")
found = {name: [shared(draw, *pair) for pair in pairs] for name, draw in draws.items()}
for name, values in found.items():
    print(name, *(f"{n} of {short} ({short} and {long})" for n, (short, long) in zip(values, pairs)), sep=", ")
assert torch.__version__.split("+")[0] == "2.14.1"
whole = [short for short, _ in pairs]
assert found["rand"] == found["numpy"] == whole
assert found["randn"] == found["normal_"] == [8, 0, 16, 1, 24, 192, 11]
assert found["randn fp64"] == [8, 0, 16, 1, 24, 192, 11]
PYTHON
"$folder/env/bin/python" "$folder/look.py"
