"""A data set for `bsk prepare-data benchmarks.rest:rest`: images of CIFAR-10 that a smaller training leaves out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bsk.data.store import open_data

LEFT = 4000  # images of the smaller training, the first in the data's own order
HELD_OUT = 10  # of each held-out split: extra images are of train alone


def rest() -> dict[str, Any]:
    """Return the train images of $MORE, a prepared file, from the 4,001st on, with some of its val and test images."""
    data = open_data(Path(os.environ["MORE"]))
    splits = {name: data.split(name) for name in ("train", "val", "test")}
    cuts = {"train": slice(LEFT, None), "val": slice(HELD_OUT), "test": slice(HELD_OUT)}
    parts = {name: (each.images[cuts[name]].numpy(), each.labels[cuts[name]].numpy()) for name, each in splits.items()}
    return {**parts, "classes": list(data.classes), "mean": list(data.mean), "std": list(data.std)}
