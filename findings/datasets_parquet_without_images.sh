#!/bin/sh
# datasets 5.2.0: `to_parquet` writes images that are given by path as paths, without their content.
#
# Expected: a parquet file with an Image column contains the images, as those on the Hub do (`push_to_hub` embeds them).
# Observed: each row is {"bytes": None, "path": "/absolute/path/of/the/writer.png"}. This holds for data from
# `load_dataset("imagefolder")` and for `cast_column("image", Image())` on paths. Images from memory are embedded. The
# writer can read the file back, since the paths still exist, so the loss is seen only on another machine, or after the
# folder is gone: then every image raises FileNotFoundError. `Dataset.save_to_disk` writes the content.
#
# Exits with 0 if the problem still exists, with 1 if not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'datasets==5.2.0' 'pyarrow==26.0.1' 'pillow==13.0.0'
cat > "$folder/look.py" <<'PYTHON'
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Image, load_dataset, load_from_disk
from PIL import Image as Picture

datasets.disable_progress_bars()
home = Path(sys.argv[1])
for split in ("train", "test"):
    for name in ("cat", "dog"):
        (home / "images" / split / name).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Picture.fromarray(pixels).save(home / "images" / split / name / f"{i}.png")


def embedded(data, name):
    data.to_parquet(home / name)
    return [row["image"]["bytes"] is not None for row in pq.read_table(home / name).to_pylist()]


of_folder = load_dataset("imagefolder", data_dir=str(home / "images"), cache_dir=str(home / "cache"), split="train")
paths = sorted(map(str, (home / "images/train/cat").iterdir()))
of_paths = Dataset.from_dict({"image": paths}).cast_column("image", Image())
in_memory = Dataset.from_dict({"image": [Picture.open(path).copy() for path in paths]}).cast_column("image", Image())
of_folder.save_to_disk(home / "saved")
found = {
    "imagefolder": embedded(of_folder, "a.parquet"),
    "paths": embedded(of_paths, "b.parquet"),
    "in memory": embedded(in_memory, "c.parquet"),
}
print("datasets", datasets.__version__, "images with content in parquet:", found)


def readable(read):
    try:
        return read()[0]["image"].size == (32, 32)
    except FileNotFoundError:
        return "FileNotFoundError"


def of_parquet():
    return load_dataset("parquet", data_files=str(home / "a.parquet"), cache_dir=str(home / "again"), split="train")


before = readable(of_parquet)
shutil.rmtree(home / "images")
after = readable(of_parquet), readable(lambda: load_from_disk(home / "saved"))
print("parquet read beside the folder:", before, "- without it:", after[0], "- save_to_disk without it:", after[1])
assert datasets.__version__ == "5.2.0"
assert not any(found["imagefolder"] + found["paths"]) and all(found["in memory"])
assert (before, after) == (True, ("FileNotFoundError", True))
PYTHON
"$folder/env/bin/python" "$folder/look.py" "$folder"
