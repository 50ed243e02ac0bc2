#!/bin/sh
# datasets 5.2.0: a second `map` with the same function returns the first one's random noise, whatever the seed.
#
# `Dataset.map` keeps its result in a file, under a hash of the data, the function and its arguments. Expected: a
# function that draws random numbers gives new ones in each call, or the same ones after the same seed; and a result is
# computed again if what the function does has changed. Observed: the state of no generator is part of the hash. Ten
# calls of `map(add_noise)` are ten times the same noise, also after another seed, and in another process months later.
# Votes of randomised smoothing over them are one vote, and a standard deviation over seeds is 0.
#
# A function of an imported module enters the hash by its name alone. So after the radius in that module is changed, or
# the code of the attack itself, `map(attack.perturb)` returns the old images. A function of the main script is hashed
# with its code and the values that it uses, so the same lines there are computed again. Data from memory
# (`Dataset.from_dict`) has no file and shows nothing of this. Nothing warns. `load_from_cache_file=False` avoids it, or
# `fn_kwargs` that name the radius and the seed. Issue 3297 of datasets, open since 2021, is about the second part.
#
# Exits with 0 if the problem still exists, with 1 if not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'datasets==5.2.0' 'pyarrow==26.0.1' 'numpy==2.4.6' \
    'pandas==3.1.1'
cat > "$folder/attack.py" <<'PYTHON'
import numpy as np

EPS = 1.0


def perturb(row):
    return {"x": [value + EPS for value in row["x"]]}


def add_noise(row, seed=None):
    generator = np.random if seed is None else np.random.default_rng(seed)
    return {"x": [value + EPS * float(generator.normal()) for value in row["x"]]}
PYTHON
cat > "$folder/look.py" <<'PYTHON'
import sys
from importlib.metadata import version

import attack
import numpy as np
from datasets import Dataset, disable_progress_bars, load_from_disk

CALLS = 10
disable_progress_bars()
folder, part = sys.argv[1:]
if part == "first":
    print("datasets", version("datasets"))
    Dataset.from_dict({"x": [[0.0, 10.0], [20.0, 30.0]]}).save_to_disk(folder)
data = load_from_disk(folder)
memory = Dataset.from_dict({"x": [[0.0, 10.0], [20.0, 30.0]]})


def different(data, function, arguments=({},), **options):
    """Return how many different results calls with different seeds have."""
    results = []
    for call in range(CALLS):
        np.random.seed(call)
        results.append(str(data.map(function, **options, **arguments[call % len(arguments)])["x"][:]))
    return len(set(results))


def own(row):
    return {"x": [value + float(np.random.normal()) for value in row["x"]]}


def first_value(function):
    return data.map(function)["x"][0][0]


eps = 1.0
if part == "first":
    named = [{"fn_kwargs": {"seed": call}} for call in range(CALLS)]
    found = {
        "from disk": different(data, attack.add_noise),
        "from disk, function of this file": different(data, own),
        "from disk, load_from_cache_file=False": different(data, attack.add_noise, load_from_cache_file=False),
        "from disk, seed in fn_kwargs": different(data, attack.add_noise, named),
        "from memory": different(memory, attack.add_noise),
    }
    for name, count in found.items():
        print(f"{name}: {count} different results of {CALLS} calls with {CALLS} seeds")
    assert list(found.values()) == [1, 1, CALLS, CALLS, CALLS]
    with open(folder + ".noise", "w") as file:
        file.write(repr(first_value(attack.add_noise)))
    there = [first_value(attack.perturb)]
    here = [first_value(lambda row: {"x": [value + eps for value in row["x"]]})]
    attack.EPS = eps = 5.0
    there.append(first_value(attack.perturb))
    here.append(first_value(lambda row: {"x": [value + eps for value in row["x"]]}))
    print("0 moved by eps = 1 and then by eps = 5: function of a module", there, "of this file", here)
    assert there == [1.0, 1.0] and here == [1.0, 5.0]
else:
    np.random.seed(1234)
    with open(folder + ".noise") as file:
        noise = float(file.read()), first_value(attack.add_noise)
    print("next process, seed 1234: noise", noise[1], "before", noise[0])
    assert noise[0] == noise[1]
    moved = attack.perturb({"x": [0.0]})["x"][0], first_value(attack.perturb)
    print("after the code was changed to subtract: called", moved[0], "in map", moved[1])
    assert moved == (-1.0, 1.0)
PYTHON
export HF_HOME="$folder/cache" PYTHONDONTWRITEBYTECODE=1
"$folder/env/bin/python" -W ignore "$folder/look.py" "$folder/data" first
sed 's/value + EPS for/value - EPS for/' "$folder/attack.py" > "$folder/changed.py"
mv "$folder/changed.py" "$folder/attack.py"
"$folder/env/bin/python" -W ignore "$folder/look.py" "$folder/data" next
