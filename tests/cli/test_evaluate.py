"""`bsk evaluate` and `bsk attack` as a shell sees them: foreign models, resumed files, several processes, images."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bsk
from bsk.cli.app import main
from bsk.data.store import Info, Part, open_data, write
from bsk.models.small import cnn


def told(record: dict) -> dict:
    """Return a record without the fields that differ between runs."""
    return {name: value for name, value in record.items() if name != "seconds"}


def test_autoattack_prints_a_record_and_one_line_per_stage(call, trained: Path, toy: Path) -> None:
    words = ["--data", toy, "--attack", "autoattack", "--limit", 30, "--eps", "0.05"]
    done = call("evaluate", trained, *words)
    record = json.loads(done.stdout)
    assert list(record["after"]) == ["natural", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert list(record["after"].values()) == sorted(record["after"].values(), reverse=True)
    assert record["accuracy"] == record["after"]["square"] and record["doubts"] == []
    assert record["attack_parameters"]["apgd-t"] == {
        "loss": "margin",
        "norm": "linf",
        "steps": 100,
        "targets": 2,
        "eot": 1,
    }
    assert done.stderr.count("too few for the DLR loss") == 1
    standing = round(record["after"]["apgd-ce"] * 30)
    assert f"m.safetensors: autoattack: {standing} of 30 survive apgd-ce" in done.stderr


def test_an_audit_prints_an_estimate_and_can_continue_to_autoattack(
    call, trained: Path, toy: Path, tmp_path: Path
) -> None:
    words = ["--data", toy, "--attack", "autoattack", "--limit", 30, "--eps", "0.05", "--out", "r.jsonl"]
    done = call("evaluate", trained, *words, "--audit", 4)
    audit = json.loads(done.stdout)
    whole = json.loads(call("evaluate", trained, *words).stdout)
    standing = round(whole["after"]["apgd-t"] * 30)
    assert audit["audit"]["survivors"] == standing > 8 and audit["after"].items() < whole["after"].items()
    assert audit["audit"]["low"] <= whole["accuracy"] <= audit["audit"]["high"] - audit["audit"]["fallen"] / 30
    assert f"autoattack-audit: {standing} of 30 survive apgd-t\n" in done.stderr
    assert " of 30 survive square on a sample of 4\n" in done.stderr
    said = f"screen {standing / 30:.2%}, AutoAttack estimated {audit['accuracy']:.2%}, 95 % interval "
    said += f"{audit['audit']['low']:.2%} to {audit['audit']['high']:.2%} for these 30 images "
    assert f"{said}(4 of {standing} survivors audited, {audit['audit']['fallen']} fell)" in done.stderr
    assert "is an estimate, not AutoAttack's number; leave out --audit to get that" in done.stderr
    within = json.loads(call("evaluate", trained, *words, "--within", "1/2", "--quiet").stdout)
    assert within["accuracy"] == whole["accuracy"] == within["audit"]["low"], "half a point is less than an image"
    assert call("evaluate", trained, *words, "--audit", 4, "--quiet").stdout == done.stdout
    keys = [json.loads(line)["key"] for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert keys == [audit["key"], whole["key"], within["key"]] and len(set(keys)) == 3
    rows = [json.loads(line) for line in call("compare", "r.jsonl", "--format", "jsonl").stdout.splitlines()]
    assert [row["attack"] for row in rows] == ["autoattack-audit", "autoattack"], "the larger of the two audits"
    assert rows[0]["audit_low"] == rows[0]["audit_high"] == rows[1]["robust"] == whole["accuracy"]


def test_the_reference_runs_as_an_engine(call, trained: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyautoattack")
    words = ["evaluate", trained, "--data", toy, "--attack", "apgd-ce", "--limit", 30, "--eps", "0.05"]
    monkeypatch.setattr(sys, "settrace", (traced := []).append)  # what a debugger would be told
    theirs, ours = (json.loads(call(*words, "--engine", engine).stdout) for engine in ("reference", "bsk"))
    assert abs(theirs["accuracy"] - ours["accuracy"]) <= 1 / 30 and theirs["key"] != ours["key"]
    assert len(traced) > 1 and traced[-1] == sys.gettrace()
    assert theirs["attack_parameters"]["package"].startswith("pyautoattack ")
    assert theirs["forward_passes"] > 100 * round(30 * theirs["accuracy"])
    assert "needs 4 classes" in call(*words[:-5], "autoattack", "--engine", "reference", check=2).line
    assert "it has no pgd-5" in call(*words[:-5], "pgd-5", "--engine", "reference", check=2).line


def test_screen_is_reported_as_an_upper_bound(call, trained: Path, toy: Path) -> None:
    done = call("evaluate", trained, "--data", toy, "--attack", "screen", "--limit", 12)
    assert "screen is an upper bound, not AutoAttack's number" in done.stderr and ": at most " in done.stderr


def test_evaluations_and_training_logs_are_not_mixed_in_one_file(call, trained: Path, toy, tmp_path) -> None:
    words = ["evaluate", trained, "--data", toy, "--attack", "natural", "--limit", 12, "--out"]
    log = (tmp_path / "m.jsonl").read_bytes()
    assert "m.jsonl: is a training log; choose another --out" in call(*words, "m.jsonl", check=3).line
    assert (tmp_path / "m.jsonl").read_bytes() == log
    call(*words, "r.jsonl")
    found = (tmp_path / "r.jsonl").read_bytes()
    train = ["train", "--data", toy, "--model", "cnn-4", "--epochs", 1]
    for more in ([], ["--force"]):
        line = call(*train, "--out", "r.safetensors", *more, check=3).line
        assert "r.jsonl: has records of kind evaluation, so it is not a training log; choose another --out" in line
    assert (tmp_path / "r.jsonl").read_bytes() == found and not (tmp_path / "r.safetensors").exists()
    (tmp_path / "m.jsonl").write_bytes(log + found)  # as an older bsk let evaluate do
    trained_words = [
        "train",
        "--data",
        toy,
        "--model",
        "cnn-4",
        "--epochs",
        2,
        "--precision",
        "fp32",
        "--out",
        "m.safetensors",
    ]
    assert "has records of kind evaluation" in call(*trained_words, check=3).line
    assert (tmp_path / "m.jsonl").read_bytes() == log + found


def test_rays_reports_distances_and_queries(call, trained: Path, toy: Path) -> None:
    words = ["evaluate", trained, "--data", toy, "--attack", "rays", "--limit", 45, "--queries", 300]
    done = call(*words)
    record = json.loads(done.stdout)
    assert 0 < record["adbd"] < record["adbd_correct"] < 1 and record["never_fooled"] == 0
    assert "no attack here takes it" in call(*words[:-4], "--attack", "autoattack", "--queries", 9, check=2).line
    assert 300 <= record["queries_median"] < 330 and "ADBD 0." in done.stderr
    quick = json.loads(call(*words, "--stop-at-eps").stdout)
    assert quick["accuracy"] == record["accuracy"] and quick["queries_mean"] < record["queries_mean"]


def test_l2_needs_a_radius(call, trained: Path, toy: Path) -> None:
    words = ["evaluate", trained, "--data", toy, "--norm", "l2", "--limit", "12"]
    assert "pass --eps" in call(*words, "--attack", "apgd-ce", check=2).line
    assert "pgd-5 is Linf-only" in call(*words, "--attack", "pgd-5", "--eps", "0.5", check=2).line
    record = json.loads(call(*words, "--attack", "screen", "--eps", "2").stdout)
    assert record["accuracy"] < record["after"]["natural"] and record["attack_parameters"]["apgd-ce"]["norm"] == "l2"


def test_several_radii_give_one_record_each_with_its_time(call, trained: Path, toy: Path) -> None:
    words = ["evaluate", trained, "--data", toy, "--limit", "30", "--attack", "pgd-3"]
    done = call(*words, "--eps", "8/255,16/255,0.1", "--no-checks")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["eps"] for each in found] == [8 / 255, 16 / 255, 0.1] and found[1]["carried"] <= found[2]["carried"]
    assert "3 radii: " in done.stderr and " s in total" in done.stderr
    done = call(*words, "--eps", "8/255,16/255,0.1", "--largest-first")
    assert [json.loads(line)["eps"] for line in done.stdout.splitlines()] == [0.1, 16 / 255, 8 / 255]
    assert "--largest-first: needs several radii" in call(*words, "--eps", "0.1", "--largest-first", check=2).line
    assert "radii must be in ascending order" in call(*words, "--eps", "0.1,8/255", check=2).line
    assert "is not a number" in call(*words, "--eps", "0.1,", check=2).line
    said = call("attack", trained, "--data", toy, "--eps", "0.1,0.2", "--out", "a.safetensors", check=2).line
    assert "expected one radius; only bsk evaluate takes several" in said


def test_a_targeted_attack_reports_its_success_rate(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    words = ["attack", trained, "--data", toy, "--attack", "pgd-5", "--eps", "0.3", "--out"]
    done = call(*words, "a.safetensors", "--target", "b", "--limit", "60")
    record, held = json.loads(done.stdout), load_file(tmp_path / "a.safetensors")
    others = held["labels"] != 1
    assert record["kind"] == "attack" and record["target"] == record["attack_parameters"]["target"] == 1
    assert set(held["target"].tolist()) == {1} and record["targeted_n"] == int(others.sum()) == 40
    hits = int((held["predictions"] == 1)[others].sum())
    assert 0 < hits == round(40 * record["targeted_success"]) and record["targeted_low"] < hits / 40
    assert record["accuracy"] == float((held["predictions"] == held["labels"]).double().mean())
    assert record["after"] == {"pgd-5": record["accuracy"]}
    assert f"classified as the target 1: {hits / 40:.2%} [" in done.stderr
    model = bsk.load(trained)
    assert torch.equal(model(held["images"]).argmax(1), held["predictions"])
    clean = open_data(toy).split("test")
    unlikely = model(clean.images.float() / 255).scatter(1, clean.labels[:, None], torch.inf).argmin(1)
    for target in ("random", "least-likely"):
        call(*words, f"{target}.safetensors", "--target", target)
        held = load_file(tmp_path / f"{target}.safetensors")
        assert not (held["target"] == held["labels"]).any() and torch.equal(held["index"], clean.index)
        assert len(held["target"].unique()) == 3 if target == "random" else torch.equal(held["target"], unlikely)
    assert "did you mean" in call(*words, "c.safetensors", "--target", "rnadom", check=2).line
    assert (
        "it is for fgsm, pgd, cw" in call(*words, "c.safetensors", "--target", "a", "--attack", "square", check=2).line
    )


def test_l1_is_a_norm_of_its_own(call, trained: Path, toy: Path) -> None:
    words = ["evaluate", trained, "--data", toy, "--norm", "l1", "--limit", "12"]
    assert "pass --eps, e.g. 12 for CIFAR-10" in call(*words, "--attack", "apgd-ce", check=2).line
    said = call(*words, "--attack", "apgd-dlr", "--eps", "3", check=2).line
    assert "--norm l1: apgd-dlr has no L1 form; use apgd-ce, apgd-t, fab-t, square" in said
    more = ["--attack", "natural,autoattack", "--eps", "3", "--out", "r.jsonl"]
    natural, record = map(json.loads, call(*words, *more).stdout.splitlines())
    assert record["accuracy"] < natural["accuracy"]
    assert {each["norm"] for name, each in record["attack_parameters"].items() if name != "seed"} == {"l1"}
    assert [json.loads(line) for line in call(*words, *more).stdout.splitlines()] == [natural, record]


def test_a_foreign_model_is_evaluated_from_its_weights(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in bsk.load(trained).network.state_dict().items()}},
        tmp_path / "t.pt",
    )
    ours = json.loads(call("evaluate", trained, "--data", toy, "--attack", "pgd-5").stdout)
    words = ["--weights", "t.pt", "--data", toy, "--attack", "pgd-5", "--eps", "0.1", "--mean", "0.25", "--std", "0.2"]
    theirs = json.loads(call("evaluate", "--model", "cnn-4", *words).stdout)
    assert theirs["correct"] == ours["correct"] and theirs["checkpoint"] == "t.pt" and theirs["method"] is None
    (tmp_path / "mine.py").write_text(
        "from bsk.models.small import cnn\ndef net(num_classes): return cnn(num_classes, 1, 8, 4)\n"
    )
    coded = json.loads(call("evaluate", "--model", "mine:net", *words).stdout)
    assert coded["correct"] == ours["correct"]
    done = call("attack", "--model", "cnn-4", *words, "--out", "a.safetensors")
    assert json.loads(done.stdout)["model"] == "cnn-4"


@pytest.mark.parametrize("model", [pytest.param("cnn-4", marks=pytest.mark.slow), "oblong:net"])
def test_images_need_not_be_square(call, tmp_path: Path, model: str) -> None:
    """Images that the network accepts are evaluated by every kind of attack; others are refused in one line."""
    random, labels = np.random.default_rng(0), np.arange(60, dtype=np.int64) % 3
    images = random.integers(0, 120, (60, 1, 8, 13), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, :, 4 * label : 4 * label + 4] += 100
    parts = {name: Part(images, labels) for name in ("train", "val", "test")}
    write(tmp_path / "wide.safetensors", parts, Info("wide", ["a", "b", "c"], 0.1, [0.3], [0.2]))
    words = ["--data", "wide.safetensors", "--threads", "1", "--quiet"]
    if ":" in model:
        (tmp_path / "oblong.py").write_text(
            "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(8 * 13, 3))\n"
        )
        torch.save(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8 * 13, 3)).state_dict(), tmp_path / "w.pt")
    else:
        call("train", *words, "--model", model, "--epochs", "1", "--batch-size", "20", "--out", "m.safetensors")
        torch.save(bsk.load(tmp_path / "m.safetensors").state_dict(), tmp_path / "w.pt")
    attacks = ["--attack", "pgd-3,apgd-t,fab-t,square,rays", "--queries", "40", "--limit", "12", "--no-checks"]
    theirs = call("evaluate", "--model", model, "--weights", "w.pt", *words, *attacks).stdout.splitlines()
    assert [json.loads(line)["n"] for line in theirs] == [12] * 5
    if ":" not in model:
        ours = call("evaluate", "m.safetensors", *words, *attacks).stdout.splitlines()
        assert [json.loads(line)["correct"] for line in ours] == [json.loads(line)["correct"] for line in theirs]
    call("attack", "--model", model, "--weights", "w.pt", *words, "--out", "a.safetensors", "--images", "a.png")
    assert load_file(tmp_path / "a.safetensors")["images"].shape == (60, 1, 8, 13)
    line = call("evaluate", "--model", "cnn-a", "--weights", "w.pt", *words, check=2).line
    assert "is for images (3, 32, 32), found (1, 8, 13)" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate", "name either checkpoints of bsk train, or --model and --weights"),
        ("evaluate m.safetensors --model cnn --weights t.pt", "name either checkpoints"),
        ("evaluate --model cnn", "give both"),
        ("evaluate m.safetensors --mean 0.5 --std 0.5", "use them with --weights"),
        ("evaluate --model cnn --weights t.pt --mean x --std 1", "--mean x"),
        ("evaluate m.safetensors --norm l3", "--norm l3"),
        ("evaluate m.safetensors --attack autoatack", "did you mean autoattack?"),
        ("evaluate m.safetensors --audit 5", "--audit: no attack here takes it; it is for autoattack"),
        ("evaluate m.safetensors --attack autoattack-rand --audit 5", "--audit: no attack here takes it"),
        ("evaluate m.safetensors --attack autoattack --audit 0", "--audit 0: must be at least 1"),
        ("evaluate m.safetensors --attack autoattack --audit x", "--audit"),
        ("evaluate m.safetensors --attack autoattack --within 0", "--within 0: must be finite and above 0"),
        ("evaluate m.safetensors --attack autoattack --within nan", "--within"),
        ("evaluate m.safetensors --attack autoattack --audit 5 --within 1", "not both"),
        ("evaluate m.safetensors --attack autoattack-audit", "no such attack"),
        ("attack m.safetensors --attack autoattack --audit 5 --out a.safetensors", "use it with bsk evaluate"),
        ("attack m.safetensors", "no --out"),
        ("attack m.safetensors --attack fgsm,pgd-2 --out a.safetensors", "expected one attack"),
        ("attack m.safetensors --out a.safetensors --images a.gif", "--images a.gif"),
    ],
)
def test_incompatible_flags_are_refused(call, toy: Path, words: str, said: str) -> None:
    line = call(*words.split(), "--data", toy, check=2).line
    assert said in line


def test_a_doubtful_model_is_reported(call, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "masked.py").write_text(
        "import torch\nfrom torch import nn\nfrom bsk.models.small import cnn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.net = cnn(3, 1, 8, 4)\n"
        "    def forward(self, x):\n        return torch.softmax(self.net(x), 1)\n"
    )
    torch.save({f"net.{k}": v for k, v in cnn(3, 1, 8, 4).state_dict().items()}, tmp_path / "w.pt")
    words = ["--model", "masked:Net", "--weights", "w.pt", "--data", toy, "--attack", "fgsm", "--eps", "0.05"]
    done = call("evaluate", *words, "--limit", "30")
    assert "doubtful: its output looks like probabilities" in done.stderr
    assert any("probabilities" in doubt for doubt in json.loads(done.stdout)["doubts"])
    quiet = json.loads(call("evaluate", *words, "--limit", "30", "--no-checks").stdout)
    assert quiet["doubts"] == [] and quiet["checks"] == {}


def test_images_are_drawn_and_all_of_them_written(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    words = ["--data", toy, "--attack", "apgd-ce", "--batch-size", "7", "--limit", 20]
    words += ["--out", "a.safetensors", "--images", "a.svg"]
    record = json.loads(call("attack", trained, *words).stdout)
    found = load_file(tmp_path / "a.safetensors")
    model = bsk.load(trained)
    assert torch.equal(model(found["images"]).argmax(1), found["predictions"])
    assert (found["predictions"] == found["labels"]).float().mean() == pytest.approx(record["accuracy"])
    assert "m.safetensors under apgd-ce, eps 0.1, toy test" in (tmp_path / "a.svg").read_text()
    assert not list(tmp_path.glob(".*"))


class Kept:
    """Run `bsk evaluate` in forks of a process that has imported everything, so that they start quickly."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
        self.monkeypatch, self.words = monkeypatch, words
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["bsk.cli.evaluate", "bsk.evaluation.run", "bsk.evaluation.subjects"])

    def start(self, out: Path) -> multiprocessing.process.BaseProcess:
        self.monkeypatch.setattr(sys, "argv", [*self.words, "--out", str(out)])  # which the process gets, too
        process = self.context.Process(target=main)
        process.start()
        return process


@pytest.mark.slow(first=True)
def test_killed_again_and_again_the_record_is_the_same(
    trained: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGKILL at random moments of `autoattack`, record and verdicts equal those of an uninterrupted run."""
    words = ["bsk", "evaluate", str(trained), "--data", str(toy), "--attack", "autoattack", "--eps", "0.1"]
    kept = Kept(monkeypatch, [*words, "--limit", "15", "--batch-size", "5", "--threads", "1", "--quiet"])
    kept.start(tmp_path / "no.folder" / "x").kill()  # everything is imported now
    kept.start(tmp_path / "whole.jsonl").join()
    whole = evaluated(tmp_path / "whole.jsonl")
    kills, run, going_on = 0, 0, 0
    random = np.random.default_rng(0)
    while kills < 5:
        out = tmp_path / f"{run}.jsonl"
        before = kept_blocks(out)
        going_on += before > 0
        process, more = kept.start(out), int(random.integers(0, 5))
        while process.is_alive() and kept_blocks(out) < before + more:
            process.join(0.001)
        process.join(random.uniform(0, 0.02))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:  # it came to its end between two kills: the next one starts over
            assert evaluated(out) == whole
            run += 1
    kept.start(tmp_path / f"{run}.jsonl").join()
    assert evaluated(tmp_path / f"{run}.jsonl") == whole
    assert going_on >= 3, "most of them found what those before had left"


def kept_blocks(out: Path) -> int:
    """How many blocks of an evaluation are there already."""
    return sum(path.read_bytes().count(b"\n") for path in out.with_suffix(".examples").glob("*.jsonl"))


def evaluated(out: Path) -> tuple[str, bytes]:
    """The record, seconds apart, and the verdict on each example, as bytes."""
    (record,) = [json.loads(line) for line in out.read_text().splitlines()]
    return json.dumps(told(record)), (out.with_suffix(".examples") / f"{record['key']}.safetensors").read_bytes()


@pytest.mark.slow
def test_two_processes_share_the_examples(trained: Path, toy: Path, tmp_path: Path) -> None:
    attacks = ["--attack", "screen,pgd-3x2,autoattack", "--within", "4", "--limit", "60"]
    words = ["evaluate", trained, "--data", toy, *attacks, "--batch-size", "16", "--threads", "1"]
    script = tmp_path / "whole.py"  # the model is examined whole, however slow this machine is now
    always = "from bsk.evaluation import run\nrun.SHORT = dict.fromkeys(run.PARTS, 3600)\n"
    script.write_text(f"{always}from bsk.cli.app import main\nmain()\n")
    alone = subprocess.run(
        [sys.executable, str(script), *map(str, words), "--quiet"], capture_output=True, check=True, text=True
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = subprocess.run(
        [*torchrun, *map(str, words), "--out", str(tmp_path / "r.jsonl")],
        capture_output=True,
        check=True,
        text=True,
        env=environment,
    )
    expected = [told(json.loads(line)) for line in alone.stdout.splitlines()]
    assert [told(json.loads(line)) for line in both.stdout.splitlines()] == expected and len(expected) == 3
    assert [told(json.loads(line)) for line in (tmp_path / "r.jsonl").read_text().splitlines()] == expected
    assert 1 < expected[-1]["audit"]["audited"] < expected[-1]["audit"]["survivors"]


@pytest.mark.slow(first=True)
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """The peak of 40,000 images is that of 3,000 but for less than half of the pixels between, of 114 MB.

    It is 5 to 50 MB more, of which the verdicts are 2: blocks that examples leave one by one make holes in the heap, by
    chance; so a second peak counts where the first is higher.
    """
    script = (
        "import re, sys; from bsk.cli.app import main\n"
        "sys.argv = ['bsk', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)"
    )
    random = np.random.default_rng(0)
    part = Part(random.integers(0, 256, (40_000, 3, 32, 32), dtype=np.uint8), np.arange(40_000, dtype=np.int64) % 3)
    few = Part(part.images[:30], part.labels[:30])
    info = Info("large", ["a", "b", "c"], 0.1, [0.5] * 3, [0.25] * 3)
    write(tmp_path / "large.safetensors", {"train": few, "val": few, "test": part}, info)
    torch.save(cnn(3, 3, 32, 2).state_dict(), tmp_path / "w.pt")

    def peak(limit: int) -> int:
        words = ["evaluate", "--model", "cnn-2", "--weights", "w.pt", "--data", "large.safetensors", "--limit", limit]
        words += ["--attack", "pgd-2", "--quiet", "--no-checks"]
        command = [sys.executable, "-c", script, *map(str, words), "--batch-size", "64", "--threads", "1"]
        done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=tmp_path)
        return int(done.stderr.splitlines()[-1])

    most = peak(3000) + 55_000
    assert peak(40_000) < most or peak(40_000) < most
