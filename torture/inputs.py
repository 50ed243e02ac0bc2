"""Small undamaged inputs of every kind that bsk reads, for the mutations."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bsk.records import checkpoints
from bsk.records.checkpoints import MODEL

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))
from made_archives import cifar10_binary, cifar10_python, cifar100_python, tarred  # noqa: E402 - the tests' own


def make_inputs(folder: Path) -> None:
    """Write the inputs that the commands of `subjects` do not make: archives, pictures, weights, starts, jobs."""
    tarred(folder / "cifar10-python.tar.gz", "cifar-10-batches-py", cifar10_python(200, 100))
    tarred(folder / "cifar10-binary.tar", "cifar-10-batches-bin", cifar10_binary(200, 100), "w:")
    _zipped(folder / "cifar100-python.zip", {f"cifar-100-python/{k}": v for k, v in cifar100_python(1500, 200).items()})
    _zipped(folder / "tiny.zip", _tiny())
    for seed, (split, label, number) in enumerate(product(("train", "test"), "ab", range(8))):
        path = folder / "folder" / split / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_picture(seed, "PNG", 16))
    pictures = {str(path.relative_to(folder / "folder")): path.read_bytes() for path in folder.rglob("*.png")}
    _zipped(folder / "pictures.zip", pictures)
    tensors, _ = checkpoints.load(folder / "m.safetensors", MODEL)
    torch.save({"state_dict": tensors}, folder / "w.pt")
    from safetensors.torch import save_file

    save_file(tensors, folder / "w.safetensors")
    words = ["starts", "m.safetensors", "--data", "data.safetensors", "--limit", "6"]
    run = subprocess.run([sys.executable, "-m", "bsk", *words], cwd=folder, capture_output=True, check=True)
    (folder / "s.jsonl").write_bytes(run.stdout)
    (folder / "jobs.tsv").write_text(
        "prepare-data\tdata/digits.safetensors\tdigits\n"
        "train\tout/bs_seed-1.train.json\t--data data/digits.safetensors --epochs 20 --batch-size 100 --method bs\n"
    )


def _zipped(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _picture(seed: int, kind: str, size: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _tiny() -> dict[str, bytes]:
    """Return files in the layout of Tiny ImageNet: three classes, 20 training images each, 6 validation images."""
    ids, top = ("n01443537", "n01629819", "n01641577"), "tiny-imagenet-200"
    files = {
        f"{top}/wnids.txt": "\n".join(ids).encode(),
        f"{top}/words.txt": "\n".join(f"{i}\tfish" for i in ids).encode(),
    }
    for place, label in enumerate(ids):
        for number in range(20):
            name = f"{top}/train/{label}/images/{label}_{number}.JPEG"
            files[name] = _picture(place * 100 + number, "JPEG", 64)
    lines = []
    for number in range(6):
        files[f"{top}/val/images/val_{number}.JPEG"] = _picture(1000 + number, "JPEG", 64)
        lines.append(f"val_{number}.JPEG\t{ids[number % 3]}\t0\t0\t62\t62\n")
    return {**files, f"{top}/val/val_annotations.txt": "".join(lines).encode()}
