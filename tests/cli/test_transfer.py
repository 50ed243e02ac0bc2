"""Saved adversarial images on other networks: `bsk evaluate --images`, and their matrix."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from bsk.attacks.saved import saved_images
from bsk.errors import InputError
from bsk.evaluation.intervals import wilson
from bsk.evaluation.subjects import load_subject
from bsk.perturb.draws import example_draws
from bsk.records import checkpoints
from bsk.records.pictures import write_folder

TRAIN = ["--model", "cnn-4", "--epochs", 2, "--batch-size", 32, "--schedule", "cyclic", "--threads", 1]
TRAIN += ["--precision", "fp32"]
CPU, CLASS = torch.device("cpu"), torch.zeros(1, dtype=torch.int64)


@pytest.fixture
def other(call, trained: Path, toy: Path, tmp_path: Path) -> Path:
    out = tmp_path / "other.safetensors"
    call("train", "--data", toy, *TRAIN, "--method", "natural", "--seed", 2, "--out", out, "--quiet")
    return out


@pytest.fixture
def images(call, trained: Path, toy: Path, tmp_path: Path) -> Path:
    out = tmp_path / "adversarial.safetensors"
    call("attack", trained, "--data", toy, "--attack", "pgd-10", "--eps", 0.15, "--limit", 45, "--out", out)
    return out


def test_the_accuracy_is_that_of_the_saved_images_by_hand(call, images: Path, trained: Path, other: Path, toy) -> None:
    words = ["--data", toy, "--images", images, "--out", "r.jsonl"]
    records = [json.loads(line) for line in call("evaluate", trained, other, *words).stdout.splitlines()]
    tensors, made = load_file(images), checkpoints.load(images, "attack")[1]
    for path, record in zip((trained, other), records, strict=True):
        with torch.no_grad():
            right = load_subject(path, CPU).model(tensors["images"]).argmax(1) == tensors["labels"]
        assert record["accuracy"] == int(right.sum()) / 45 and (record["n"], record["eps"]) == (45, 0.15)
        assert [record["low"], record["high"]] == list(wilson(int(right.sum()), 45))
        assert record["attack"] == "pgd-10@m" and record["checkpoint"] == str(path)
        source = record["attack_parameters"]["source"]
        assert (source["checkpoint"], source["checkpoint_sha256"]) == (str(trained), made["checkpoint_sha256"])
        assert source["attack"] == "pgd-10" and source["eps"] == 0.15 and source["attack_parameters"]["steps"] == 10
        assert (
            list(record["after"]) == ["pgd-10@m"] and record["forward_passes"] == 45 and not record["backward_passes"]
        )
    assert records[0]["accuracy"] == made["accuracy"], "on its own network it is what the attack found"
    assert records[1]["accuracy"] > records[0]["accuracy"], "images fool the network most that they were made for"
    again = call("evaluate", trained, other, *words).stdout.splitlines()
    assert [json.loads(line) for line in again] == records
    few = json.loads(call("evaluate", other, "--data", toy, "--images", images, "--limit", 20, "--quiet").stdout)
    right = few["accuracy"] * 20
    assert right == pytest.approx(round(right)) and few["n"] == 20


def test_a_matrix_has_a_line_for_each_file_and_a_column_for_each_network(
    call, images: Path, trained: Path, other: Path, toy: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.safetensors"
    call("attack", other, "--data", toy, "--attack", "fgsm", "--eps", 0.15, "--limit", 45, "--out", theirs)
    for file in (images, theirs):
        call("evaluate", trained, other, "--data", toy, "--images", file, "--out", "t.jsonl", "--quiet")
    call("evaluate", trained, "--data", toy, "--attack", "natural", "--out", "t.jsonl", "--quiet")
    rows = [
        json.loads(line) for line in call("compare", "t.jsonl", "--matrix", "--format", "jsonl").stdout.splitlines()
    ]
    cells = {(row["source"], row["attack"], row["target"]): row for row in rows}
    assert list(cells) == [(s, a, t) for s, a in (("m", "pgd-10"), ("other", "fgsm")) for t in ("m", "other")]
    assert [row["own"] for row in rows] == [True, False, False, True]
    table = call("compare", "t.jsonl", "--matrix", "--format", "table", "--out", "t.md").stdout.splitlines()
    assert table[0].startswith("Percent of saved adversarial images")
    assert table[2].split() == ["images", "of", "attack", "eps", "m", "other"] and len(table) == 5
    first = rows[0]
    told = f"{100 * first['accuracy']:.1f} [{100 * first['low']:.1f}, {100 * first['high']:.1f}]*"
    assert table[3].startswith("m ") and told in table[3]
    assert (tmp_path / "t.md").read_text().count("\n| ") == 4
    tsv = call("compare", "t.jsonl", "--matrix").stdout.splitlines()
    assert tsv[0].split("\t")[:6] == ["source", "attack", "eps", "target", "accuracy", "low"] and len(tsv) == 5
    assert "no record of saved images" in call("compare", "m.jsonl", "--matrix", check=3).line
    assert "cannot be combined with" in call("compare", "t.jsonl", "--matrix", "--by", "class", check=2).line
    pooled = call("compare", "t.jsonl", "--format", "table").stdout
    assert "pgd-10@m" in pooled and "fgsm@other" in pooled


def test_files_of_one_attack_are_told_apart(
    call, images: Path, trained: Path, other: Path, toy: Path, tmp_path
) -> None:
    """By the facts in which they differ: the same name, radius and network do not mean the same images."""
    weak = tmp_path / "weak.safetensors"
    words = ["--data", toy, "--attack", "pgd-10", "--eps", 0.15, "--limit", 45, "--step", "0.001", "--out", weak]
    call("attack", trained, *words)
    for file in (images, weak):
        call("evaluate", other, "--data", toy, "--images", file, "--out", "t.jsonl", "--quiet")
    table = call("compare", "t.jsonl", "--matrix", "--format", "table").stdout.splitlines()
    assert table[2].split()[:5] == ["images", "of", "attack", "eps", "file"] and len(table) == 5
    rows = [
        json.loads(line) for line in call("compare", "t.jsonl", "--matrix", "--format", "jsonl").stdout.splitlines()
    ]
    assert len({row["images_sha256"] for row in rows}) == 2 and rows[0]["accuracy"] < rows[1]["accuracy"]


def test_images_of_other_data_are_refused(call, images: Path, other: Path, toy: Path, tmp_path) -> None:
    def refused(file: Path, *more: object, check: int = 3) -> str:
        return call("evaluate", other, "--data", toy, "--images", file, *more, "--quiet", check=check).line

    def changed(**tensors: torch.Tensor) -> Path:
        found, header = checkpoints.load(images, "attack")
        checkpoints.save(tmp_path / "changed.safetensors", {**found, **tensors}, header)
        return tmp_path / "changed.safetensors"

    tensors = load_file(images)
    moved = tensors["images"].clone()
    moved[7, 0, 0, 0] = (moved[7, 0, 0, 0] + 0.5) % 1
    assert "from the clean one, beyond eps 0.15 (linf)" in refused(changed(images=moved))
    assert "beyond eps 0.05 (linf); use the data and --eps it was made with" in refused(images, "--eps", 0.05)
    assert "an image is 0.15 from the clean one, beyond eps 0.149 (linf)" in refused(images, "--eps", 0.149)
    assert "expected fp32 images" in refused(changed(images=tensors["images"][:, 0]))
    ones = changed(images=torch.ones_like(tensors["images"]))  # values of 1 are in [0, 1]
    call("evaluate", other, "--data", toy, "--images", ones, "--eps", 1, "--quiet")
    assert "has images of test; leave --split out" in refused(images, "--split", "val", check=2)
    assert "no images.jsonl, expected a folder of bsk attack; write it again" in refused(tmp_path)
    assert "of the data; use the data and --limit" in refused(changed(index=tensors["index"] + 999))
    assert "with this label" in refused(changed(labels=(tensors["labels"] + 1) % 3))
    assert "expected fp32 images (N, C, H, W) in [0, 1]" in refused(changed(images=tensors["images"] + 1))
    assert "of the data; use the data and --limit" in refused(images, "--limit", 90)
    assert "expected labels (45,), at least one integer" in refused(changed(labels=tensors["labels"][:, None]))
    assert "expected index (45,), at least one integer" in refused(changed(index=tensors["index"].float()))
    wide = tensors["images"].expand(-1, 3, -1, -1).contiguous()
    assert "images (3, 8, 8), the data has (1, 8, 8)" in refused(changed(images=wide))
    for field, value in {"eps": "x", "attack": 5, "attack_parameters": [1], "checkpoint": None}.items():
        found, header = checkpoints.load(images, "attack")
        checkpoints.save(tmp_path / "odd.safetensors", found, {**header, field: value})
        assert "write it again with bsk attack" in refused(tmp_path / "odd.safetensors"), field
    assert "expected an attack file, found a model file" in refused(other)
    assert "leave one of the two out" in refused(images, "--attack", "fgsm", check=2)
    assert "leave the flags of attacks out" in refused(images, "--step", "0.1", check=2)


@pytest.mark.parametrize("out", ["a.npz", "pictures"])
def test_8_bit_images_are_accepted_too(call, trained: Path, other: Path, toy: Path, tmp_path: Path, out: str) -> None:
    words = ["--data", toy, "--attack", "pgd-10", "--eps", 0.15, "--limit", 45, "--out", out]
    made = json.loads(call("attack", trained, *words).stdout)
    shown = json.loads(call("evaluate", trained, "--data", toy, "--images", out, "--quiet").stdout)
    assert shown["accuracy"] == made["rounded"]["accuracy"] and shown["attack"] == "pgd-10@m"


def test_images_written_to_while_they_are_judged_are_refused(images: Path) -> None:
    """They are mapped from the file, whose checksum the record has."""
    saved, whole = saved_images(images), images.read_bytes()
    images.write_bytes(whole)
    for content, said in (
        (whole, "no image 9999 of the data"),
        (whole[:-40] + bytes(40), "has changed while it was in"),
    ):
        images.write_bytes(content)
        with pytest.raises(InputError, match=said):
            draws = example_draws(0, "", [9999])
            saved(torch.nn.Flatten(), torch.zeros(1, 1, 8, 8), CLASS, draws, eps=0.1, norm="linf", index=[9999])


def test_a_folder_of_colour_images_is_read_to_the_bit(images: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (3, 3, 9, 7), dtype=np.uint8)
    columns = {"index": np.array([7, 5, 9]), "labels": np.array([2, 0, 2])}
    record = {**checkpoints.load(images, "attack")[1], "n": 3}
    write_folder(tmp_path / "rgb", pixels, ["cat", "dog", "eel"], columns, record)
    saved = saved_images(tmp_path / "rgb")
    assert torch.equal(saved.images, torch.from_numpy(pixels).float() / 255)
    assert saved.labels.tolist() == [2, 0, 2] and saved.place == {7: 0, 5: 1, 9: 2}


def test_what_is_no_file_of_bsk_attack_is_refused(call, trained: Path, other: Path, toy: Path, tmp_path: Path) -> None:
    def refused(file: Path) -> str:
        return call("evaluate", other, "--data", toy, "--images", file, "--quiet", check=3).line

    (tmp_path / "b.npz").write_bytes(b"PK no archive")
    assert "b.npz: not an .npz of bsk attack" in refused(tmp_path / "b.npz")
    folder = tmp_path / "pictures"
    call("attack", trained, "--data", toy, "--attack", "fgsm", "--limit", 6, "--out", folder)
    index = folder / "images.jsonl"
    record, first, *rest = index.read_text().splitlines()
    name = json.loads(first)["file"]
    for line, said in {
        first.replace(name, "../m.safetensors"): "lacks ../m.safetensors of its images.jsonl",
        first.replace('"index"', '"at"'): "lacks labels or index of an image",
        first.replace('"labels":', '"labels": 0.5, "was":'): "lacks labels or index of an image",
        first.replace('"index":', f'"index": {2**63}, "was":'): "lacks labels or index of an image",
    }.items():
        index.write_text("\n".join([record, line, *rest]) + "\n")
        assert said in refused(folder)
    index.write_text(record + "\n")
    assert "lacks an image of its images.jsonl" in refused(folder)
    whole = "\n".join([record, first, *rest]) + "\n"
    for text, n in {whole[:-20]: 5, whole.replace(rest[-1] + "\n", ""): 5, whole + first + "\n": 7}.items():
        index.write_text(text)
        assert f"has {n} images, its header says 6; write it again" in refused(folder)
    index.write_text("\n".join([first, *rest]) + "\n")
    assert "its header" in refused(folder)
    index.write_text("")
    assert "write it again with bsk attack" in refused(folder)
    index.write_text(whole)
    shutil.copy(folder / json.loads(rest[0])["file"], folder / name)
    assert "from the clean one, beyond eps" in refused(folder)
    Image.new("L", (9, 8)).save(folder / name)
    assert "expected 9x8 like the others; write it again with bsk attack" in refused(folder)
    (folder / name).write_bytes(b"GIF")
    assert f"{name}: not an image" in refused(folder)
    assert "expected F.safetensors, F.npz or a folder of bsk attack" in refused(index)


def test_one_file_under_another_name_is_known_again(call, images: Path, other: Path, toy: Path, tmp_path: Path) -> None:
    first = json.loads(call("evaluate", other, "--data", toy, "--images", images, "--out", "r.jsonl").stdout)
    shutil.copy(images, tmp_path / "copy.safetensors")
    words = ["--data", toy, "--images", "copy.safetensors", "--out", "r.jsonl"]
    assert json.loads(call("evaluate", other, *words).stdout) == first
