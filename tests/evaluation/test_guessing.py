"""Networks evaluated with the wrong normalisation, channel order or class order: the mistake is found and named."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bsk
from bsk.data.store import Info, Part, open_data, write
from bsk.evaluation import guessing
from bsk.evaluation.guessing import is_low
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import foreign_subject

COLOURS = [(0.1, 0.1, 0.3), (0.1, 0.2, 0.3), (0.1, 0.3, 0.3), (0.3, 0.1, 0.1), (0.3, 0.2, 0.1), (0.3, 0.3, 0.1)]
CLASSES = ["ant", "bee", "cow", "dog", "elk", "fox"]
NETS = f"""
import torch
from torch import nn

COLOURS = torch.tensor({COLOURS})
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Nearest(nn.Module):  # the class whose colour is nearest to that of the image
    def __init__(self, seen=lambda x: x, order=range(6)):
        super().__init__()
        self.scale, self.seen, self.order = nn.Parameter(torch.tensor(100.0)), seen, list(order)

    def forward(self, x):
        Nearest.most = max(Nearest.most, len(x))
        colour = self.seen(x).mean(dim=(2, 3))
        return (-self.scale * (colour[:, None] - COLOURS).square().sum(dim=2))[:, self.order]


Nearest.most = 0
def back(x): return x * STD + MEAN
def plain(): return Nearest()
def normalised(): return Nearest(back)
def pixels(): return Nearest(lambda x: x / 255)
def turned(): return Nearest(lambda x: x.flip(1))
def turned_pixels(): return Nearest(lambda x: x.flip(1) / 255)
def shifted(): return Nearest(order=[1, 2, 3, 4, 5, 0])
def shifted_normalised(): return Nearest(back, order=[1, 2, 3, 4, 5, 0])
def hopeless(): return Nearest(lambda x: 0 * x)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.net[0].weight.data = 2 * COLOURS[:, :, None, None]
        self.net[0].bias.data = -COLOURS.square().sum(dim=1)

    def forward(self, x):
        return 100 * self.net(self.way(x))


class Raw(Own):
    def way(self, x): return x


class Around(Own):
    def way(self, x): return back((x - MEAN) / STD)
"""


@pytest.fixture
def colours(tmp_path: Path) -> Iterator[Path]:
    """Data of six classes that differ in colour alone, and the module `colournets` beside them."""
    random = np.random.default_rng(0)
    parts = {}
    for name, n in {"train": 6, "val": 6, "test": 300}.items():
        labels = np.arange(n, dtype=np.int64) % 6
        levels = 255 * np.array(COLOURS)[labels][:, :, None, None] + random.integers(-8, 9, (n, 3, 4, 4))
        parts[name] = Part(levels.round().astype(np.uint8), labels)
    path = tmp_path / "colours.safetensors"
    write(path, parts, Info("colours", CLASSES, 0.02, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    (tmp_path / "colournets.py").write_text(NETS)
    yield path
    sys.modules.pop("colournets", None)


@pytest.fixture
def measured(call, colours: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """Evaluate a network of `colournets` without attack; return its record and what was said."""

    def run(name: str, *more: object) -> tuple[dict[str, Any], str]:
        words = ("--model", f"colournets:{name}", "--data", colours, "--attack", "natural", *more)
        said = call("evaluate", *words)
        return json.loads(said.stdout), said.stderr

    return run


@pytest.mark.parametrize("name", ["normalised", "pixels"])
def test_the_flags_that_a_doubt_names_make_the_network_right(measured, name: str) -> None:
    before, _ = measured(name)
    (doubt,) = before["doubts"]
    assert before["accuracy"] < 0.4 and doubt.startswith("natural accuracy is ")
    flags = re.search(r"with --mean (\S+) --std (\S+) it is (\S+)%: pass these", doubt)
    assert flags and float(flags[3]) > 95
    after, _ = measured(name, "--mean", flags[1], "--std", flags[2])
    assert after["accuracy"] > 0.95 and after["doubts"] == []


@pytest.mark.parametrize("name", ["turned", "turned_pixels"])
def test_channels_in_another_order_are_named(measured, name: str) -> None:
    (doubt,) = measured(name)[0]["doubts"]
    assert "with channels in BGR order and --mean 0,0,0 --std" in doubt and "x.flip(1)" in doubt
    assert ("1/255,1/255,1/255" in doubt) == (name == "turned_pixels")


def test_another_order_of_classes_is_found_and_a_file_of_it_puts_it_right(measured, call, tmp_path: Path) -> None:
    out = tmp_path / "found.jsonl"
    before, _ = measured("shifted", "--out", out)
    assert before["accuracy"] == 0
    expected = "another class order (its output 0 is bee, 1 is cow, 2 is dog, ...) it is 100.0% of 64 others"
    assert expected in before["doubts"][0] and "--class-order FILE" in before["doubts"][0]
    (tmp_path / "order.txt").write_text("\ufeffbee\ncow\r\n\ndog\nelk\nfox\nant\n", encoding="utf-8")
    after, _ = measured("shifted", "--class-order", tmp_path / "order.txt", "--out", out)
    assert after["accuracy"] == 1 and after["doubts"] == [], "it is another evaluation, not what the file holds"
    assert after["class_order"] == [5, 0, 1, 2, 3, 4] and "class_order" not in before
    table = call("compare", out)
    assert "\t1.0\t" in table.stdout and table.stdout.count("\n") == 3, "another order of classes is another row"


def test_an_order_of_classes_behind_a_missing_normalisation(measured) -> None:
    (doubt,) = measured("shifted_normalised")[0]["doubts"]
    assert "with --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 and another class order (its output 0" in doubt


def test_an_unexplained_low_accuracy_is_a_doubt_too(measured) -> None:
    (doubt,) = measured("hopeless")[0]["doubts"]
    assert doubt.startswith("natural accuracy is at chance level, 16.8% of 256 images; no common normalisation, ")


def test_an_accurate_network_or_disabled_checks_cost_no_trials(measured, monkeypatch) -> None:
    monkeypatch.setattr(guessing, "explained", lambda *_: pytest.fail("tried"))
    assert measured("plain")[0]["accuracy"] == 1
    assert measured("hopeless", "--no-checks")[0]["doubts"] == []


def test_trying_keeps_the_batch_size(measured) -> None:
    measured("pixels", "--batch-size", "16", "--limit", "40")
    assert sys.modules["colournets"].Nearest.most == 16


def test_a_slow_network_is_tried_on_fewer_images_or_beside_a_longer_attack(measured, colours, monkeypatch) -> None:
    monkeypatch.setattr(guessing, "SHORT", 0.0)
    (doubt,) = measured("hopeless")[0]["doubts"]  # 12 passes are allowed beside 300
    assert doubt.endswith("of 300 images; finding the cause takes longer than this attack: run natural,pgd-100")
    # 9 normalisations, two orders: 18 * 32 + 3 * 256 + 2 * 256 passes, or 18 * 8 + 3 * 64 + 2 * 64
    subject = foreign_subject("colournets:pixels", None, open_data(colours), None, None, torch.device("cpu"))
    settings = EvaluationSettings(open_data(colours), "test", None, 0.02, 0, 128, torch.device("cpu"))
    found = [guessing.explained(subject, settings, passes) for passes in (463, 464, 1855, 1856)]
    assert found[0] is None and found[1] == found[2] != found[3] and found[3] == guessing.explained(subject, settings)
    assert all("--mean 0,0,0 --std 1/255,1/255,1/255 it is 100.0%" in each[0] for each in found[1:])
    assert "of 64 images" in found[1][0] and "of 256 images" in found[3][0]


def test_a_model_in_memory_is_told_what_its_forward_should_do(colours: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(colours.parent)
    import colournets  # type: ignore[import-not-found]

    test = open_data(colours).split("test")
    found = bsk.evaluate(colournets.pixels(), test.images, test.labels, attack="natural", progress=False)
    assert "do that in its forward, for images in [0, 1]" in found.doubts[0]
    assert bsk.evaluate(colournets.plain(), test.images, test.labels, attack="natural", progress=False).doubts == []


def test_only_a_network_without_a_normalisation_of_its_own_is_advised_to_have_one(measured) -> None:
    assert "common for colours: --mean 0.485,0.456,0.406" in measured("Raw")[1]
    record, said = measured("Around")
    assert record["accuracy"] == 1 and "--mean" not in said


@pytest.mark.parametrize(
    "lines, expected",
    [
        ("bee\ncow", "2 names for the 6 classes of colours.safetensors; give each class once"),
        ("bee\ncow\ndog\nelk\nfox\nfox", "6 names for the 6 classes of colours.safetensors; give each class once"),
        ("bee\ncow\ndog\nelk\nfox\nanr", "'anr' is not one of them; did you mean ant?"),
    ],
)
def test_an_invalid_class_order_is_refused(call, colours: Path, tmp_path: Path, lines: str, expected: str) -> None:
    (tmp_path / "order.txt").write_text(lines)
    words = ("--model", "colournets:plain", "--data", colours, "--class-order", tmp_path / "order.txt")
    assert expected in call("evaluate", *words, check=3).line


def test_an_order_without_a_file_or_for_a_checkpoint_is_refused(call, colours: Path, tmp_path: Path) -> None:
    words = ("--model", "colournets:plain", "--data", colours, "--class-order", tmp_path / "none.txt")
    assert "none.txt: cannot read class names, one per line" in call("evaluate", *words, check=3).line
    (tmp_path / "order.txt").write_text("\n".join(CLASSES))
    line = call("evaluate", "bs.safetensors", "--class-order", tmp_path / "order.txt", check=2).line
    assert "--class-order: a bsk checkpoint has its own" in line


@pytest.mark.parametrize("classes, least", [(2, 65), (10, 37), (100, 31)])
def test_low_is_less_than_three_tenths_of_the_way_from_a_guess(classes: int, least: int) -> None:
    assert is_low(least - 1, 100, classes) and not is_low(least, 100, classes)


def test_a_class_order_is_scored_on_other_images_than_it_was_fitted_on() -> None:
    # 40 classes, each image's prediction a number of its own: matched images are all right, the others none
    predicted, y = torch.arange(40), torch.arange(40).flip(0)
    order, hits, rest = guessing._matched(predicted, y, 40)
    assert len(rest) == 10 and hits == 0 and all(order[int(p)] == int(t) for p, t in zip(predicted[:30], y[:30]))  # noqa: B905


@pytest.mark.parametrize(
    "classes, accuracy, found", [(10, 0.5, True), (200, 0.5, True), (10, 0.0, False), (200, 0.0, False)]
)
def test_an_order_is_found_at_the_accuracy_of_robust_networks_and_never_in_noise(classes, accuracy, found) -> None:
    draw = torch.Generator().manual_seed(0)
    n = max(256, 3 * classes)
    y, outputs = torch.arange(n) % classes, torch.randperm(classes, generator=draw)
    noise = torch.randint(0, classes, (n,), generator=draw)
    predicted = torch.where(torch.rand(n, generator=draw) < accuracy, outputs[y], noise)
    order, hits, rest = guessing._matched(predicted, y, classes)
    assert (hits > 0.3 * len(rest)) == found == (guessing._chance_of(hits, rest) < guessing.SURE)
    if classes == 10 and found:
        assert [order[int(output)] for output in outputs] == list(range(10))
