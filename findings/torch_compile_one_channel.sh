#!/bin/sh
# torch 2.14.1: torch.compile compiles twice for images with one channel, and calling `contiguous` does not prevent it.
#
# For images (N, 1, H, W) two sets of strides are both contiguous and channels last: (H*W, H*W, W, 1) and
# (H*W, 1, W, 1). `is_contiguous` is true for both formats in both cases, so `contiguous(memory_format=...)` returns
# either tensor unchanged, whatever the format. Expected: a compiled network, which is guarded by memory layout, treats
# them as the same. Observed: the second set of strides is recompiled, and with dynamic=False each counts towards the
# recompilation limit. Tensors from `torch.rand` have the first set, those from NHWC files and from
# `to(memory_format=torch.channels_last)` the second.
# Measured: two compilations; after `contiguous` to either format still two; after flattening and viewing again, one.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1'
cat > "$folder/look.py" <<'PYTHON'
import torch

FORMATS = (torch.contiguous_format, torch.channels_last)


def compilations(prepare):
    count = 0

    def backend(graph, inputs):
        nonlocal count
        count += 1
        return graph.forward

    torch.compiler.reset()
    run = torch.compile(torch.nn.Conv2d(1, 2, 3), backend=backend, dynamic=False)
    with torch.no_grad():
        for images in (planes, rows):
            run(prepare(images))
    return count


planes = torch.rand(8, 1, 28, 28)
rows = planes.to(memory_format=torch.channels_last)
print("torch", torch.__version__)
print("strides", planes.stride(), rows.stride())
assert torch.equal(planes, rows)
assert all(each.is_contiguous(memory_format=format) for each in (planes, rows) for format in FORMATS)
found = {
    "as they are": compilations(lambda x: x),
    "contiguous": compilations(lambda x: x.contiguous()),
    "channels last": compilations(lambda x: x.contiguous(memory_format=torch.channels_last)),
    "viewed again": compilations(lambda x: x.flatten(1).view(x.shape)),
}
print("compilations", found)
assert torch.__version__.split("+")[0] == "2.14.1"
assert planes.stride() == (784, 784, 28, 1) and rows.stride() == (784, 1, 28, 1)
assert found == {"as they are": 2, "contiguous": 2, "channels last": 2, "viewed again": 1}
PYTHON
"$folder/env/bin/python" "$folder/look.py"
