#!/bin/sh
# webdataset 1.0.2: `shuffle` either ignores every seed, or gives each epoch the same order.
#
# Expected: as with torch's DataLoader, an epoch's order follows from `torch.manual_seed`, or at least from
# `random.seed`, and the next epoch has another one. Observed: `shuffle(1000)` seeds itself from the clock and the
# number of the process, so that two runs with the same seeds see different orders. With `shuffle(1000, seed=0)` runs
# agree, but each epoch starts the same generator again: all epochs have one and the same order, and so the same
# batches.
#
# Neither is what a training needs, and nothing warns. `detshuffle(1000, seed=0)` does both: runs agree and epochs
# differ. But it counts the epochs itself, so that a training that is resumed begins with the order of its first epoch,
# unless `epoch` is given: it is the number of the last one that is finished, from 0.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'webdataset==1.0.2' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import random
import sys
from importlib.metadata import version

import numpy
import torch
import webdataset

print("torch", torch.__version__, "webdataset", version("webdataset"))
place = f"{sys.argv[1]}/images.tar"
with webdataset.TarWriter(place) as out:
    for i in range(1000):
        out.write({"__key__": f"{i:04}", "cls": i % 10})


def epochs(shuffled, count=2):
    """Return the orders of the first epochs of a run that sets all seeds first."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    data = shuffled(webdataset.WebDataset(place, shardshuffle=False))
    return [[example["__key__"] for example in data] for _ in range(count)]


found = {}
for name, shuffled in (
    ("shuffle(1000)", lambda data: data.shuffle(1000)),
    ("shuffle(1000, seed=0)", lambda data: data.shuffle(1000, seed=0)),
    ("detshuffle(1000, seed=0)", lambda data: data.compose(webdataset.detshuffle(1000, seed=0))),
):
    first, second = epochs(shuffled), epochs(shuffled)
    found[name] = first[0] == second[0], first[0] == first[1]
    print(f"{name}: two runs have the same order: {found[name][0]}; two epochs have the same order: {found[name][1]}")
resumed = epochs(lambda data: data.compose(webdataset.detshuffle(1000, seed=0, epoch=0)), 1)[0]
print("detshuffle with epoch=0 begins with the order of the second epoch:", resumed == first[1])
assert list(found.values()) == [(False, False), (True, True), (True, False)] and resumed == first[1]
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py" "$folder"
