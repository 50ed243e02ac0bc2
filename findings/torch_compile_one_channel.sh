#!/bin/sh
# torch 2.14.1: torch.compile compiles twice for images of one channel, and no call of `contiguous` prevents it.
#
# Images (N, 1, H, W) have two sets of strides by which they are both contiguous and channels last: (H*W, H*W, W, 1)
# and (H*W, 1, W, 1). `is_contiguous` says yes to both formats for both, so that `contiguous(memory_format=...)` hands
# either back as it is, whichever format one asks for. One expects that a compiled network, which is guarded against
# layouts, takes them for one. It does not: the second set of strides is compiled anew, and with dynamic=False each
# counts towards the limit of recompilations. Digits from `torch.rand` have the first, those from NHWC files and
# `to(memory_format=torch.channels_last)` the second.
# Seen: two compilations; after `contiguous` to either format still two; flattened and viewed again, one.
#
# Exits with 0 if this is still so, with 1 if it has changed. Needs 6 GB of disk for torch.
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
