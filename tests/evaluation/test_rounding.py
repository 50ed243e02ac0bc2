"""Adversarial images in 8 bits: in the ball by exact integer arithmetic, with verdicts for the images as written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import bsk
from bsk.evaluation.rounding import levels_of
from bsk.perturb.ball import length, region
from bsk.perturb.draws import example_draws


def one(*levels: float) -> Tensor:
    return torch.tensor(levels, dtype=torch.float64)[None, None, None]


def whole(*levels: int) -> Tensor:
    return torch.tensor(levels, dtype=torch.uint8)[None, None, None]


def test_rounding_by_hand() -> None:
    """To the nearest level, a half to the even distance; 2.6 levels away where 2.7 are allowed goes back to 2."""
    clean = whole(10, 10, 10, 10, 0, 255)
    found, out = levels_of(one(11.4, 12.6, 7.4, 10.5, 2.5, 252.4) / 255, clean, 2.7 / 255, "linf")
    assert found.flatten().tolist() == [11, 12, 8, 10, 2, 253] and out.tolist() == [True]
    found, out = levels_of(one(11.4, 12.0, 8.0, 10.5, 2.0, 253.0) / 255, clean, 2 / 255, "linf")
    assert found.flatten().tolist() == [11, 12, 8, 10, 2, 253] and out.tolist() == [False]
    # in L2 (1.6, 1.2) is as long as 2, and (2, 1) is longer: what goes outwards goes inwards instead
    found, out = levels_of(one(11.6, 11.2) / 255, whole(10, 10), 2 / 255, "l2")
    assert found.flatten().tolist() == [11, 11] and out.tolist() == [True]
    found, out = levels_of(one(11.6, 11.2) / 255, whole(10, 10), 2.5 / 255, "l2")
    assert found.flatten().tolist() == [12, 11] and out.tolist() == [False]
    # in L1 (1, 1, 1, 1) is 1 too long for 3, and the second value goes furthest outwards
    found, out = levels_of(one(10.8, 10.6, 11.0, 10.6) / 255, whole(10, 10, 10, 10), 3 / 255, "l1")
    assert found.flatten().tolist() == [11, 10, 11, 11] and out.tolist() == [True]
    found, out = levels_of(one(9.4, 9.3, 9.0) / 255, whole(10, 10, 10), 2.3 / 255, "l1")
    assert found.flatten().tolist() == [10, 9, 9] and out.tolist() == [True], "and downwards"


@given(norm=st.sampled_from(["linf", "l2", "l1"]), seed=st.integers(0, 999), part=st.floats(0, 1.5))
def test_rounded_images_are_in_the_ball_and_as_near_as_that_allows(norm: str, seed: int, part: float) -> None:
    random = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 256, (4, 3, 6, 6), generator=random).to(torch.uint8)
    x, eps = clean.float() / 255, part * {"linf": 8 / 255, "l2": 0.3, "l1": 2.0}[norm]
    x_adv = region(x, eps, norm).sample(example_draws(seed, "a", range(4)))
    levels, out = levels_of(x_adv, clean, eps, norm)
    away = levels.double() - clean.double()
    assert levels.dtype == torch.uint8 and (length(away, norm) <= eps * 255 * (1 + 1e-4) + 1e-9).all()
    gone = (away - (x_adv.double() * 255 - clean.double())).abs()
    assert gone.max() < 1 and (gone[~out] <= 0.5).all()


def test_images_on_8_bit_levels_are_unchanged() -> None:
    """Such as PGD's images at 8/255, up to rounding errors of fp32."""
    clean = torch.arange(256).to(torch.uint8).view(1, 1, 16, 16)
    for k in range(1, 20):
        for sign in (1, -1):
            x_adv = (clean.float() / 255 + sign * torch.tensor(k / 255)).clamp(0, 1)
            levels, out = levels_of(x_adv, clean, k / 255, "linf")
            assert torch.equal(levels.int(), (clean.int() + sign * k).clamp(0, 255)) and not out.any()


def attacked(call: Callable, trained: Path, toy: Path, out: str, *more: object) -> tuple[dict, str]:
    words = ["--data", toy, "--attack", "pgd-7", "--step", "0.013", "--limit", "60", "--no-checks", "--out", out]
    done = call("attack", trained, *words, *more)
    return json.loads(done.stdout), done.stderr


def test_arrays_have_the_rounded_images_and_their_own_verdicts(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    record, said = attacked(call, trained, toy, "a.npz", "--eps", "9.5/255")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        held = dict(file)
    assert held["images"].dtype == np.uint8 and held["images"].shape == (60, 1, 8, 8)
    assert json.loads(str(held["record"])) == record
    model = bsk.load(trained)
    predicted = model(torch.from_numpy(held["images"]).float() / 255).argmax(1).numpy()
    assert np.array_equal(predicted, held["predictions"])
    assert record["rounded"]["accuracy"] == float((predicted == held["labels"]).mean())
    assert record["rounded"]["distance"] == pytest.approx(9 / 255) and record["rounded"]["inward"] > 0
    assert "in 8 bits " in said and "rounded inwards to stay in the ball" in said
    exact, _ = attacked(call, trained, toy, "a.safetensors", "--eps", "9.5/255")
    assert "rounded" not in exact and exact["accuracy"] == record["accuracy"] and exact["correct"] == record["correct"]
    assert (
        "exists; choose another --out, or pass --force"
        in call("attack", trained, "--data", toy, "--out", "a.npz", check=3).line
    )


def test_a_folder_has_a_png_an_image_that_bsk_reads_again(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    record, _ = attacked(call, trained, toy, "pictures/", "--eps", "8/255", "--target", "random")
    attacked(call, trained, toy, "a.npz", "--eps", "8/255", "--target", "random")
    first, *lines = map(json.loads, (tmp_path / "pictures" / "images.jsonl").read_text().splitlines())
    assert first == record and len(lines) == 60 == len(list((tmp_path / "pictures").glob("*/*.png")))
    with np.load(tmp_path / "a.npz") as held:
        for place, line in enumerate(lines):
            assert line["file"] == f"{'abc'[line['labels']]}/{line['index']}.png"
            with Image.open(tmp_path / "pictures" / line["file"]) as image:
                assert image.mode == "L" and np.array_equal(np.asarray(image), held["images"][place, 0])
            assert all(line[name] == held[name][place] for name in ("labels", "index", "predictions", "target"))
    others = [line for line in lines if line["target"] != line["labels"]]
    hits = sum(line["predictions"] == line["target"] for line in others)
    assert record["rounded"]["targeted_success"] == hits / len(others)
    said = call("attack", trained, "--data", toy, "--out", "pictures", "--force", check=3).line
    assert "pictures: exists and is not an empty folder; choose another --out" in said


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp"])
def test_lossy_formats_are_refused(call, trained: Path, toy: Path, name: str) -> None:
    line = call("attack", trained, "--data", toy, "--out", name, check=2).line
    assert "lossy formats change pixels and so verdicts; name F.safetensors, F.npz, or a folder for PNGs" in line


@pytest.mark.parametrize("name", ["a.png", "a.pt", "a.NPZ"])
def test_other_formats_are_not_written(call, trained: Path, toy: Path, name: str) -> None:
    line = call("attack", trained, "--data", toy, "--out", name, check=2).line
    assert "name F.safetensors, F.npz, or a folder for PNGs; other formats are not written" in line
