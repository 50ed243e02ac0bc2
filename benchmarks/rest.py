"""A data set for `bsk prepare-data benchmarks.rest:rest`: CIFAR-10 images that a smaller training set leaves out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bsk.data.store import open_data

LEFT = 4000  # images of the smaller training set, the first in the order of the data file
HELD_OUT = 10  # images in val and in test, which must not be empty; only train is used as extra images


def rest() -> dict[str, Any]:
    """Return the training images of the prepared file $MORE from the 4,001st on, and a few val and test images."""
    data = open_data(Path(os.environ["MORE"]))
    splits = {name: data.split(name) for name in ("train", "val", "test")}
    cuts = {"train": slice(LEFT, None), "val": slice(HELD_OUT), "test": slice(HELD_OUT)}
    parts = {name: (each.images[cuts[name]].numpy(), each.labels[cuts[name]].numpy()) for name, each in splits.items()}
    return {**parts, "classes": list(data.classes), "mean": list(data.mean), "std": list(data.std)}
