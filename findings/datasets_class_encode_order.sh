#!/bin/sh
# datasets 5.2.0: `class_encode_column` renumbers integer labels if there are more than ten classes.
#
# `train_test_split(stratify_by_column="label")` demands a ClassLabel, and `class_encode_column` makes one. Expected:
# labels that are already 0, ..., n - 1 keep their values and only get names. Observed: the values are sorted as
# strings. 0, 1, 10, 11, 2, ... become the classes 0, 1, 2, 3, 4, ... With 12 classes 10 of them get another number,
# with 100 classes 88. With ten classes nothing changes, so that CIFAR-10 does not reveal it and CIFAR-100 does.
#
# A network that was trained with the original labels is then evaluated at chance level, and a targeted attack aims at
# another class. Training and evaluating on the new labels looks right, until the network meets other data, or the
# published networks of a comparison. The names still hold the original numbers: `int(names[label])`.
# `cast_column("label", ClassLabel(num_classes=n))` keeps the values.
#
# Exits with 0 if the problem still exists, with 1 if not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'datasets==5.2.0' 'pyarrow==26.0.1' 'numpy==2.4.6' \
    'pandas==3.1.1'
HF_HOME="$folder/cache" "$folder/env/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from datasets import ClassLabel, Dataset, disable_progress_bars

disable_progress_bars()
print("datasets", version("datasets"), "pyarrow", version("pyarrow"))
moved = {}
for classes in (10, 12, 100):
    labels = np.arange(classes).repeat(4)
    data = Dataset.from_dict({"label": labels, "original": labels})
    encoded = data.class_encode_column("label")
    split = encoded.train_test_split(test_size=0.5, stratify_by_column="label", seed=0)["test"]
    cast = data.cast_column("label", ClassLabel(num_classes=classes))
    before, after = np.array(split["original"]), np.array(split["label"])
    changed = np.unique(before[before != after])
    moved[classes] = len(changed)
    print(f"{classes} classes: {moved[classes]} get another number, the first {changed[:5]};",
          "names", encoded.features["label"].names[:5])
    assert np.array_equal(np.array(cast["label"]), labels)
    assert [int(encoded.features["label"].names[each]) for each in after] == before.tolist()
try:
    data.train_test_split(test_size=0.5, stratify_by_column="label")
except ValueError as error:
    print("the error without it:", " ".join(str(error).split())[:160])
assert moved == {10: 0, 12: 10, 100: 88}, moved
PYTHON
