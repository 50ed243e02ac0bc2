"""Logs as event files, evaluations as RobustBench metadata, and model cards."""

import json
from pathlib import Path

import pytest
from made_records import evaluation
from test_export import printed

from bsk.export.board import EVENTS
from bsk.export.robustbench import architecture
from bsk.records.jsonl import sha256


def lines(path: str, *records: dict[str, object]) -> Path:
    Path(path).write_text("".join(json.dumps(record) + "\n" for record in records))
    return Path(path)


EPOCHS = [
    {"kind": "epoch", "epoch": 1, "loss": 2.5, "natural_loss": None, "val_robust": 0.25, "seconds": 2.0, "lr": 0.1},
    {"kind": "epoch", "epoch": 2, "loss": 9.0, "val_robust": 0.1, "seconds": 9.0},
    {"kind": "alarm", "epoch": 2, "step": 5, "fgsm": 0.5},
    {"kind": "epoch", "epoch": 2, "loss": 1.5, "val_robust": -1, "kl_start": -1, "seconds": 3.0, "mine": 7},
]


def test_a_log_as_events_of_tensorboard(call, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "bs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in EPOCHS))
    record = printed(call("export", "bs.jsonl", "--to", "tensorboard", "board").stdout)
    assert (record["runs"], record["scalars"]) == (["bs"], 4 + 3)
    events = accumulator.EventAccumulator(str(tmp_path / "board" / "bs")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "lr", "mine", "seconds", "val_robust"]
    assert [(each.step, each.value, each.wall_time) for each in events.Scalars("loss")] == [(1, 2.5, 2), (2, 1.5, 5)]
    assert [(each.step, each.value) for each in events.Scalars("val_robust")] == [(1, 0.25)]
    line = call("export", "bs.jsonl", "--to", "tensorboard", "--out", "board", check=3).line
    assert line == f"bsk: board/bs/{EVENTS}: exists; choose another --out, or pass --force"
    call("export", "bs.jsonl", "--to", "tensorboard", "--out", "board", "--force")
    assert len(list((tmp_path / "board" / "bs").iterdir())) == 1


def test_other_files_than_logs_are_refused_before_writing(call, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    good, bad = EPOCHS[0], {**EPOCHS[0], "epoch": "one"}
    for name, content, said in (
        ("none.jsonl", [evaluation()], "none.jsonl: has no epochs; expected a log of bsk train"),
        ("bad.jsonl", [good, bad], "bad.jsonl:2: epoch: expected a whole number from 0, found 'one'"),
    ):
        (tmp_path / name).write_text("".join(json.dumps(each) + "\n" for each in content))
        (tmp_path / "good.jsonl").write_text(json.dumps(good) + "\n")
        line = call("export", "good.jsonl", name, "--to", "tensorboard", "--out", "board", check=3).line
        assert line.startswith(f"bsk: {said}") and not (tmp_path / "board").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "good.jsonl").write_text(json.dumps(good) + "\n")
    words = ["export", "good.jsonl", "other/good.jsonl", "--to", "tensorboard", "--out", "board"]
    assert "two logs have the same name" in call(*words, check=2).line


NATURAL, ROBUST = "1111111100", "1110000000"
WHOLE = {"model": "wrn-34-10", "dataset": "cifar10", "eps": 8 / 255, "doubts": []}


def info_of(call, tmp_path: Path, *records: dict[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    done = call("export", "r.jsonl", "--to", "robustbench", "--out", "info.json", "--force")
    record = printed(done.stdout)
    assert ", ".join(record["unknown"]) in done.stderr
    return json.loads((tmp_path / "info.json").read_text()), record


def test_the_facts_of_robustbench_and_what_bsk_does_not_know(call, tmp_path: Path) -> None:
    records = [
        evaluation(attack="natural", correct=NATURAL, **WHOLE),
        evaluation(attack="screen", correct="1111000000", **WHOLE),
        evaluation(attack="autoattack", correct=ROBUST, **WHOLE, after={"natural": 0.8, "apgd-ce": 0.4}),
    ]
    info, record = info_of(call, tmp_path, *records)
    assert info == {
        "link": None,
        "name": None,
        "authors": None,
        "additional_data": None,
        "number_forward_passes": 1,
        "dataset": "cifar10",
        "venue": None,
        "architecture": "WideResNet-34-10",
        "eps": "8/255",
        "clean_acc": "80.00",
        "reported": None,
        "autoattack_acc": "30.00",
        "footnote": "On 10 images of the test split.",
        "unreliable": False,
    }
    assert record["unknown"] == ["link", "name", "authors", "additional_data", "venue", "reported"]
    doubted = {**records[2], "doubts": ["gradients are zero"]}
    assert info_of(call, tmp_path, doubted)[0]["unreliable"] is True
    assert info_of(call, tmp_path, doubted)[0]["clean_acc"] == "80.00"
    low = {**records[2], "attack_parameters": {"apgd-ce": {"search": "bf16"}}}
    for order in ([low, records[2]], [records[2], low]):
        assert "searched" not in info_of(call, tmp_path, *order)[0]["footnote"]
    by_l2 = {**records[2], "eps": 128 / 255, "attack_parameters": {"norm": "l2"}}
    assert info_of(call, tmp_path, by_l2)[0]["eps"] == "0.501961"
    low = {**records[2], "attack_parameters": {"apgd-ce": {"search": "bf16"}, "square": {"queries": 5}}}
    said = "On 10 images of the test split. AutoAttack searched in bf16, judged in fp32."
    assert info_of(call, tmp_path, low)[0]["footnote"] == said


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"extra": None, "init": None}, False),
        ({"extra": "ddpm", "init": None}, True),
        ({"extra": None, "init": "theirs.pt"}, None),
        ({}, None),
    ],
)
def test_additional_data_are_the_extra_images(call, tmp_path: Path, flags: dict, expected: bool | None) -> None:
    made = {**evaluation(attack="autoattack", correct=ROBUST, **WHOLE), "flags": flags}
    info, record = info_of(call, tmp_path, made)
    assert info["additional_data"] is expected
    assert ("additional_data" in record["unknown"]) == (expected is None)


def test_only_autoattack_records_are_accepted(call, tmp_path: Path) -> None:
    info, record = info_of(call, tmp_path, evaluation(attack="screen", correct=ROBUST, **{**WHOLE, "eps": 0.031}))
    assert info["autoattack_acc"] is info["clean_acc"] is info["unreliable"] is None
    assert info["eps"] == "0.031" and "autoattack_acc" in record["unknown"]


def test_records_of_several_networks_or_settings_are_refused(call, tmp_path: Path) -> None:
    first = evaluation(attack="autoattack", correct=ROBUST, **WHOLE)
    for other, said in (
        (evaluation(attack="natural", seed=2, **WHOLE), "evaluations of several networks"),
        ({**first, "eps": 0.5}, "records of several radii or norms"),
        (
            {**evaluation(attack="natural", correct="11111", **WHOLE), "n": 5},
            "records of several datasets, splits or numbers of images",
        ),
        ({**first, "attack": "natural", "corruption": "fog", "severity": 1}, "records of corrupted images"),
        (evaluation(attack="autoattack", correct="1000000000", **WHOLE), "several results of autoattack (30.00 %"),
        ({**first, "attack_parameters": {"apgd-ce": {"norm": "l2"}}}, "records of several radii or norms"),
    ):
        (tmp_path / "r.jsonl").write_text(json.dumps(first) + "\n" + json.dumps(other) + "\n")
        line = call("export", "r.jsonl", "--to", "robustbench", "--out", "info.json", check=2).line
        assert said in line and not (tmp_path / "info.json").exists()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("resnet18", "ResNet-18"),
        ("resnet50-kuangliu", "ResNet-50"),
        ("preact-resnet18-wong", "PreActResNet-18"),
        ("preact-resnet18-16-silu", "PreActResNet-18 of width 16"),
        ("wrn-28-10-silu", "WideResNet-28-10"),
        ("cnn", None),
        ("mynets:resnet18", None),
        (None, None),
    ],
)
def test_architectures_as_robustbench_spells_them(model: str | None, expected: str | None) -> None:
    assert architecture(model) == expected


def test_a_card_has_what_the_header_and_the_records_say(call, saved, tmp_path: Path) -> None:
    path = saved("cnn-2")
    own = {"checkpoint_sha256": sha256(path), "eps": 8 / 255}
    lines(
        "r.jsonl",
        evaluation(attack="natural", correct=NATURAL, **own, low=0.49, high=0.943),
        evaluation(attack="pgd-100", correct=ROBUST, **own, low=0.108, high=0.603, doubts=["a *doubt* <b>"]),
        evaluation(attack="pgd-20", correct="1111111111", seed=2),  # of another network
    )
    assert printed(call("export", path, "r.jsonl", "--to", "card", "--out", "c.md").stdout)["evaluations"] == 2
    text = Path("c.md").read_text()
    for said in (
        "# m\n",
        "`cnn-2`, an image classifier for 1x8x8 images in 3 classes: a, b, c. It normalises images itself, with mean",
        'bsk.load("m.safetensors")',
        "epoch 3 (best), 1.23k passes of an image, radius 8/255, seed 1.",
        "On 60 held-out images, which selected the epoch: 90.0 natural, 50.0 under PGD-20.",
        "| lr | 0.1 |",
        "| natural |  |  | 10 digits test | 80.0 [49.0, 94.3] |",
        "| pgd-100 | linf | 8/255 | 10 digits test | 30.0 [10.8, 60.3] |",
        r"- pgd-100: a \*doubt\* \<b\>",
        f"SHA-256 `{sha256(path)}`, by bsk 0.1.0",
    ):
        assert said in text, said
    assert "pgd-20 |" not in text
    searched = {"restarts": 10, "search": "bf16"}
    again = evaluation(attack="pgd-100", correct="1000000000", **own, attack_parameters=searched, low=0.01, high=0.4)
    lines("r.jsonl", evaluation(attack="pgd-100", correct=ROBUST, **own, low=0.1, high=0.6), again)
    call("export", path, "r.jsonl", "--to", "card", "--out", "c.md", "--force")
    assert "| 30.0 [10.0, 60.0] | restarts 1 |" in Path("c.md").read_text()
    assert "| 10.0 [1.0, 40.0] | restarts 10, searched in bf16, judged in fp32 |" in Path("c.md").read_text()
    assert "Not evaluated" in card_alone(call, path)
    lines("r.jsonl", evaluation())
    line = call("export", path, "r.jsonl", "--to", "card", "--out", "d.md", check=3).line
    assert "r.jsonl: no evaluation of this checkpoint" in line and not Path("d.md").exists()


def card_alone(call, path: Path) -> str:
    call("export", path, "--to", "card", "--out", "alone.md")
    return Path("alone.md").read_text()
