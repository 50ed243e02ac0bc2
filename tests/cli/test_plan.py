"""`bsk plan` on invalid job lists: one-line errors with the exit code of a usage error."""

import os

import pytest
import torch

from bsk.data.store import open_data
from bsk.models.registry import build


@pytest.fixture(autouse=True)
def startup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not start a process only to measure its start-up time."""
    monkeypatch.setattr("bsk.cli.prices._startup", lambda device: 1.0)


TRAIN = "train\tm.train.json\t--data {toy} --model cnn-4 --epochs 1 --out m.safetensors\n"


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ('train\tm\t--method "bs', "plan: m: no closing quotation in '--method \"bs'; quote it as for a shell"),
        ("train\tm\t--out m\\", "plan: m: no escaped character"),
        (TRAIN + "evaluate\tr.jsonl\t--attack pgd-5", "plan: r.jsonl: evaluate without a checkpoint; name one"),
        (TRAIN + "evaluate\tr.jsonl", "plan: r.jsonl: evaluate without a checkpoint"),
        (TRAIN + "evaluate\tr.jsonl\tother.safetensors", "plan: r.jsonl: no earlier job trains other.safetensors"),
        (TRAIN + "evaluate\tr.jsonl\tm.safetensors --attack pdg-5", "did you mean pgd-50x10?"),
        (TRAIN + "starts\tl.jsonl\tm.safetensors --start backwards", "no such start; did you mean backward?"),
        ("train\tm\t--data {toy} --gama 1", "--gama"),
        ("train\tm\t--data {toy} --epochs many", "--epochs"),
        ("train\tm\t--data {toy} --eps 8/0", "8/0 is not a number"),
        ("train\tm\t--data {toy} --method tradse", "did you mean trades, or module:function?"),
        ("train\tm\t--help", "--help"),
        ("prepare-data\td.safetensors\t", "NAME"),
    ],
)
def test_an_invalid_job_is_a_one_line_error(call, toy, jobs, said, tmp_path) -> None:
    (tmp_path / "jobs").write_text(jobs.format(toy=toy))
    done = call("plan", "jobs", "--device", "cpu", check=2)
    assert said in done.line and done.stdout == ""


def test_a_training_without_data_has_the_data_set_of_its_command(call, tmp_path) -> None:
    (tmp_path / "jobs").write_text("train\tm\t--dataset digits\n")
    line = call("plan", "jobs", "--device", "cpu", check=3).line
    assert "data/digits.safetensors: no such file" in line


def test_other_checkpoints_of_a_training_can_be_evaluated_too(call, toy, tmp_path) -> None:
    names = ("m.safetensors", "m.last.safetensors", "m.ema.safetensors", "m.ema-last.safetensors")
    looks = "".join(f"evaluate\t{name}.jsonl\t{name} --data {toy} --attack pgd-5\n" for name in names)
    train = TRAIN.format(toy=toy)
    (tmp_path / "jobs").write_text(train.replace(" --out", " --ema 0.9 --out") + looks)
    rows = [line.split("\t") for line in call("plan", "jobs", "--device", "cpu").stdout.splitlines()[2:-1]]
    assert [row[1] for row in rows] == [f"{name}.jsonl" for name in names]
    assert len({tuple(row[3:]) for row in rows}) == 1, "the same network"
    averaged = _megabytes(call)
    (tmp_path / "jobs").write_text(train)
    assert averaged == pytest.approx(2 * _megabytes(call), abs=0.002), "two averages, and one in .last"
    (tmp_path / "jobs").write_text(train + looks)
    assert "no earlier job trains m.ema.safetensors" in call("plan", "jobs", "--device", "cpu", check=2).line


def _megabytes(call) -> float:
    return float(call("plan", "jobs", "--device", "cpu").stdout.splitlines()[1].split("\t")[-1])


def test_models_of_epochs_and_kept_weights_count_as_disk_space(call, toy, tmp_path) -> None:
    train, sizes = TRAIN.format(toy=toy), {}
    for flags in ("", "--save-every 1", "--on-collapse rollback", "--ema 0.9", "--ema 0.9 --on-collapse rollback"):
        (tmp_path / "jobs").write_text(train.replace(" --out", f" --epochs 6 {flags} --out"))
        sizes[flags] = round(_megabytes(call) / _one_copy(toy))
    assert list(sizes.values()) == [3, 9, 5, 6, 9]


def _one_copy(toy) -> float:
    model = build("cnn-4", classes=3, channels=1, size=8, mean=[0.25], std=[0.2], device=torch.device("cpu"))
    return sum(each.numel() * each.element_size() for each in model.state_dict().values()) / 1e6


def test_a_partly_done_training_with_replays_and_other_splits_are_priced_right(call, toy, tmp_path) -> None:
    train = f"train\tm.train.json\t--data {toy} --model cnn-4 --method free-at --epochs 8 --out m.safetensors\n"
    (tmp_path / "jobs").write_text(train)
    whole = _passes(call)
    (tmp_path / "m.last.safetensors").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bsk.records.headers.load_header", lambda path, kind: {"progress": {"step": 8}})
        half = _passes(call)
    (tmp_path / "m.last.safetensors").unlink()
    assert half == [each // 2 for each in whole]  # 8 of 2 x 8 updates, whose replays are not counted
    train = TRAIN.format(toy=toy)
    passes = []
    for split in ("test", "val", "train"):
        line = f"evaluate\tr.jsonl\tm.safetensors --data {toy} --attack natural --split {split}\n"
        (tmp_path / "jobs").write_text(train + line)
        passes.append(int(call("plan", "jobs", "--device", "cpu").stdout.splitlines()[2].split("\t")[3]))
    assert passes == [90, 60, 240]


def _passes(call) -> list[int]:
    return [int(each) for each in call("plan", "jobs", "--device", "cpu").stdout.splitlines()[1].split("\t")[3:5]]


def test_the_network_of_initial_weights_is_priced(call, toy, trained, tmp_path) -> None:
    sizes = []
    for flags in ("--model cnn-4", f"--init {trained}", "--init m.safetensors"):
        first = f"train\tm.train.json\t--data {toy} --model cnn-4 --out m.safetensors\n" if "m.safe" in flags else ""
        (tmp_path / "jobs").write_text(f"{first}train\tn.train.json\t--data {toy} {flags} --out n.safetensors\n")
        rows = call("plan", "jobs", "--device", "cpu").stdout.splitlines()[1:-1]
        sizes.append(rows[-1].split("\t")[-1])
    assert len({*sizes}) == 1


def test_the_memory_of_a_method_counts_as_disk_space(call, toy, tmp_path) -> None:
    train = TRAIN.format(toy=toy)
    sizes = []
    for method in ("fast-at", "pco", "fgsm-pgi"):
        (tmp_path / "jobs").write_text(train.replace(" --out", f" --method {method} --out"))
        sizes.append(_megabytes(call))
    images = open_data(toy).split("train").images
    one = images.numel() * 4 / 1e6
    assert [size - sizes[0] for size in sizes[1:]] == pytest.approx([one, 2 * one], abs=0.002)


def test_an_audit_costs_its_sample_in_the_last_stages(call, toy, tmp_path) -> None:
    passes = {}
    for flags in ("", " --audit 5", " --audit 100000", " --within 0.5"):
        line = f"evaluate\tr.jsonl\tm.safetensors --data {toy} --attack autoattack{flags}\n"
        (tmp_path / "jobs").write_text(TRAIN.format(toy=toy) + line)
        row = call("plan", "jobs", "--device", "cpu").stdout.splitlines()[2].split("\t")
        passes[flags] = int(row[3])
    assert passes[" --audit 5"] < passes[""] / 2 and passes[" --audit 100000"] == passes[""]
    assert passes[" --audit 5"] < passes[" --within 0.5"] <= passes[""]


def test_a_job_is_done_only_if_make_would_not_run_it(call, toy, tmp_path) -> None:
    """That is, with these flags and after the jobs that it needs."""
    training, evaluation = tmp_path / "m.train.json", tmp_path / "r.jsonl"
    train, look = TRAIN.format(toy=toy), f"evaluate\tr.jsonl\tm.safetensors --data {toy} --attack pgd-5\n"

    def done(jobs: str = train + look) -> list[str]:
        (tmp_path / "jobs").write_text(jobs)
        lines = [line.split("\t") for line in call("plan", "jobs", "--device", "cpu").stdout.splitlines()[1:]]
        return [*(line[2] for line in lines[:-1]), lines[-1][1]]

    now = toy.stat().st_mtime
    for path, later in ((training, 1), (evaluation, 2)):
        path.touch()
        os.utime(path, (now + later, now + later))
    assert done() == ["True", "True", "0 of 2"]
    assert done(train + look.replace("\n", "\tchanged\n")) == ["True", "False", "1 of 2"]
    assert done(train.replace("\n", "\tchanged\n") + look) == ["False", "False", "2 of 2"], "evaluated again too"
    os.utime(training, (now + 3, now + 3))
    assert done() == ["True", "False", "1 of 2"], "trained after its evaluation"
    os.utime(training, (now - 1, now - 1))
    assert done() == ["False", "False", "2 of 2"], "trained on older data"
    training.unlink()
    assert done() == ["False", "False", "2 of 2"]
