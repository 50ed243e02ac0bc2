"""Training: it learns, resumes bit for bit, stops at NaN, and does not touch files of other trainings."""

import fcntl
import json
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toys import ALONE, Silent, settings, stop_after, stopped, trained

from bsk.data.store import DataFile, open_data
from bsk.errors import DivergedError, InputError, StoppedError
from bsk.records import checkpoints
from bsk.records import jsonl as records
from bsk.records.checkpoints import STATE
from bsk.records.headers import load_header
from bsk.training import loop, validation
from bsk.training.loop import is_better
from bsk.training.outputs import Outputs, last_path, log_path
from bsk.training.profile import profile
from bsk.training.settings import Settings
from bsk.training.state import Scored, State


def timeless(log: list[dict]) -> list[dict]:
    """Return the epochs of a log without times."""
    epochs = [record for record in log if record["kind"] == "epoch"]
    return [{k: v for k, v in r.items() if "second" not in k} for r in epochs]


def learnt(out: Path, data: DataFile, method: str) -> dict:
    """Train six epochs on 400 digits, at a radius at which a naturally trained network is not robust."""
    s = settings(method, model="cnn-8", eps=0.2, lr=0.2, epochs=6, augment="none")
    return trained(out, data, s, limit=400)


@pytest.fixture(scope="module")
def untrained(digits: DataFile, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The robust accuracy of natural training."""
    torch.set_num_threads(1)
    end = learnt(tmp_path_factory.mktemp("natural") / "m.safetensors", digits, "natural")
    assert end["last_val_natural"] > 0.85
    return end["last_val_robust"]


@pytest.mark.slow
@pytest.mark.parametrize("method", [method for method in ALONE if method != "natural"])
def test_every_method_becomes_robust(method: str, untrained: float, digits: DataFile, tmp_path: Path) -> None:
    """Of 200 images natural training leaves 2 to 4 under PGD-20, the methods 58 and more."""
    end = learnt(tmp_path / "m.safetensors", digits, method)
    assert end["last_val_robust"] > untrained + 0.15 and end["last_val_natural"] > 0.5
    log = records.read(tmp_path / "m.jsonl")
    assert [r["kind"] for r in log] == ["start", *["epoch"] * 6, "end"]
    assert end["train_forward_passes"] == sum(r["forward_passes"] for r in log if r["kind"] == "epoch")


FAST = {"bs", "fast-at-plus", "liet", "fgsm-pgi", "gat"}
MODERN = {"ema": 0.9, "label_smoothing": 0.2, "awp": 0.01, "warmup": 1.5}


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("bs", MODERN),
        ("free-at", {"ema": 0.999}),
        *(pytest.param(method, {}, marks=[] if method in FAST else pytest.mark.slow) for method in ALONE),
    ],
)
def test_an_interrupted_training_resumes_bit_for_bit(method, flags, data: DataFile, tmp_path) -> None:
    """An epoch has 8 updates: it stops after its first, before and at the end of an epoch, and within another."""
    goes_on(settings(method, **flags), data, tmp_path, 1, 6, 1, 5)


def test_a_network_that_draws_random_numbers_resumes_bit_for_bit(
    data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are a function of seed and update, in train and eval mode, and the caller's generators stay as they are."""
    (tmp_path / "dropped.py").write_text(
        "import random\n"
        "import numpy, torch\n"
        "from torch import nn\n"
        "class Noise(nn.Module):\n"
        "    def forward(self, x): return x + torch.randn_like(x) + random.random() + numpy.random.rand()\n"
        "def net(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Dropout(0.4), Noise(), nn.Linear(64, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    before = (random.getstate(), torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist())
    s = settings("trades", {"steps": 2}, model="dropped:net", awp=0.01, ema=0.9, log_divergence=True)
    goes_on(s, data, tmp_path, 13)
    assert before == (random.getstate(), torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist())
    still = {"lr": 1e-12, "weight_decay": 0.0, "augment": "none", "batch_size": 240}
    trained(tmp_path / "still.safetensors", data, settings("natural", model="dropped:net", **still))
    losses = [record["loss"] for record in records.read(tmp_path / "still.jsonl") if record["kind"] == "epoch"]
    assert max(losses) - min(losses) > 1e-3, "each update drops others"


def goes_on(s: Settings, data: DataFile, tmp_path: Path, *updates: int) -> None:
    """Stopped after so many updates, and again after so many more, a training ends as one that never stopped."""
    trained(tmp_path / "whole.safetensors", data, s)
    stopped(tmp_path / "cut.safetensors", data, s, *updates)
    trained(tmp_path / "cut.safetensors", data, s)
    assert_same(tmp_path, "whole", "cut", ema=bool(s.ema))


def assert_same(folder: Path, one: str, other: str, ema: bool = False) -> None:
    """Two trainings in a folder have the same weights, states and logs, apart from times."""
    names = ["{}.safetensors", "{}.last.safetensors"]
    for name in [*names, "{}.ema.safetensors", "{}.ema-last.safetensors"] if ema else names:
        (first, _), (second, _) = (
            checkpoints.load(folder / name.format(each), ("model", "training-state")) for each in (one, other)
        )
        assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    logs = [records.read(folder / f"{name}.jsonl") for name in (one, other)]
    assert timeless(logs[0]) == timeless(logs[1])


def test_a_state_of_an_earlier_version_resumes_bit_for_bit(data: DataFile, tmp_path: Path) -> None:
    """It has the flags of all methods and the state of Fast AT+; the check before the interruption is in the file."""
    s = settings("fast-at-plus", hyper={"rescue_every": 5})
    trained(tmp_path / "whole.safetensors", data, s)
    with pytest.raises(StoppedError):
        trained(tmp_path / "cut.safetensors", data, s, stopping=stop_after(12))
    best, last = (tmp_path / f"cut{which}.safetensors" for which in ("", ".last"))
    tensors, header = checkpoints.load(last, STATE)
    model, said = checkpoints.load(best, "model")
    for flags in (header["flags"], said["flags"]):
        flags |= {"inner": "cross_entropy", "outer": "adversarial", "rescue": "at", "beta": 6.0, "noise": 2.0}
    progress = header["progress"]
    memory = progress.pop("memory")
    assert memory["numbers"]["accuracy"] > 0
    progress["rescue"] = {"accuracy": memory["numbers"]["accuracy"], "active": bool(memory["numbers"]["fell"])}
    progress["rescued_updates"] = round(memory["logged"]["rescued_updates"])
    checkpoints.save(last, tensors, header)
    checkpoints.save(best, model, said)
    trained(best, data, s)
    whole, cut = (checkpoints.load(tmp_path / f"{name}.last.safetensors", STATE) for name in ("whole", "cut"))
    assert all(torch.equal(whole[0][name], cut[0][name]) for name in whole[0])
    assert whole[1]["progress"]["memory"] == cut[1]["progress"]["memory"]


def test_resuming_reports_once_what_may_change_the_bits(data: DataFile, tmp_path: Path) -> None:
    out, watcher = tmp_path / "m.safetensors", Silent()
    for updates in (3, 3):
        with pytest.raises(StoppedError):
            trained(out, data, settings(), stopping=stop_after(updates), watcher=watcher)
    assert watcher.notices == []
    torch.set_num_threads(2)
    trained(out, data, settings(), watcher=watcher)
    torch.set_num_threads(1)
    trained(out, data, settings(), watcher=watcher)  # it is done
    assert watcher.notices == [f"{out}: resumes with threads 1, now 2: results may differ in the last bits"]


def test_a_finished_training_is_found_done(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    first = trained(out, data, settings())
    stamp = out.stat().st_mtime_ns
    again = trained(out, data, settings())
    assert out.stat().st_mtime_ns == stamp
    assert (again["checkpoint_sha256"], again["val_robust"]) == (first["checkpoint_sha256"], first["val_robust"])
    assert sum(r["kind"] == "end" for r in records.read(tmp_path / "m.jsonl")) == 1


def test_a_state_of_more_updates_than_the_training_has_is_not_taken_for_its_end(data: DataFile, tmp_path: Path) -> None:
    trained(tmp_path / "m.safetensors", data, settings())
    last = tmp_path / "m.last.safetensors"
    tensors, header = checkpoints.load(last, STATE)
    checkpoints.save(last, tensors, {**header, "progress": {**header["progress"], "step": 10**12}})
    with pytest.raises(
        InputError, match="m.last.safetensors: has more updates than the training .*; give more --epochs, or --force"
    ):
        trained(tmp_path / "m.safetensors", data, settings())


def test_files_of_another_training_are_not_overwritten(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    trained(out, data, settings())
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"was trained with gamma 1.0, now 2.0; .*--force"):
        trained(out, data, settings(hyper={"gamma": 2.0}))
    (tmp_path / "m.last.safetensors").unlink()
    with pytest.raises(InputError, match="--force"):
        trained(out, data, settings())
    assert out.read_bytes() == before
    trained(out, data, settings(seed=2), force=True)
    assert out.read_bytes() != before
    assert records.read(tmp_path / "m.jsonl")[0]["seed"] == 2


def test_a_selected_model_that_was_deleted_is_told_before_anything_is_trained(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    with pytest.raises(StoppedError):
        trained(out, data, settings(), stopping=stop_after(12))
    out.unlink()
    state = (tmp_path / "m.last.safetensors").read_bytes()
    with pytest.raises(InputError, match=r"is missing, and m.last.safetensors does not have its weights; pass --force"):
        trained(out, data, settings())
    assert (tmp_path / "m.last.safetensors").read_bytes() == state
    assert trained(out, data, settings(), force=True)["last_epoch"] == 3


def test_an_average_that_was_deleted_is_told_before_anything_is_trained(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    with pytest.raises(StoppedError):
        trained(out, data, settings(ema=0.9), stopping=stop_after(12))
    (tmp_path / "m.ema.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"m.ema.safetensors: is missing, and m.last.safetensors does not have its weights"
    ):
        trained(out, data, settings(ema=0.9))


def test_an_average_of_another_training_is_neither_taken_nor_overwritten(data: DataFile, tmp_path: Path) -> None:
    out, average = tmp_path / "m.safetensors", tmp_path / "m.ema.safetensors"
    trained(average, data, settings())  # where the average of m.safetensors would be
    before = average.read_bytes()
    for force in (False, True):
        with pytest.raises(
            InputError, match=r"m.ema.safetensors: is the model of another training, which this one would"
        ):
            trained(out, data, settings(ema=0.9), force=force)
    for force in (False, True):
        assert trained(out, data, settings(), force=force)["last_epoch"] == 3, "it has no average"
        assert average.read_bytes() == before
    for path in (tmp_path / "m.ema.jsonl", tmp_path / "m.ema.last.safetensors"):
        path.unlink()
    with pytest.raises(InputError, match=r"m.safetensors: was trained with ema 0.0, now 0.9"):
        trained(out, data, settings(ema=0.9))
    trained(out, data, settings(seed=2, ema=0.9), force=True)
    assert load_header(average, "model")["seed"] == 2


@pytest.mark.parametrize("which", ["last", "ema", "ema-last", "epoch-1"])
@pytest.mark.parametrize("force", [False, True])
def test_no_training_takes_the_name_of_anothers_file(which: str, force: bool, data: DataFile, tmp_path: Path) -> None:
    trained(tmp_path / "m.safetensors", data, settings(epochs=1, ema=0.9, save_every=1))
    before = {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    out = tmp_path / f"m.{which}.safetensors"
    with pytest.raises(InputError, match="has the name of a file of the training m.safetensors; choose another --out"):
        trained(out, data, settings("fast-at", epochs=1), force=force)
    assert out in before and all(path.read_bytes() == content for path, content in before.items())
    other = tmp_path / f"n.{which}.safetensors"  # beside no such training
    for _ in range(2):
        assert trained(other, data, settings("fast-at", epochs=1))["last_epoch"] == 1
    kept = other.read_bytes()
    with pytest.raises(InputError, match=f"n.{which}.safetensors: is the model of another training"):
        trained(tmp_path / "n.safetensors", data, settings(epochs=1, ema=0.9, save_every=1), force=force)
    assert other.read_bytes() == kept


def test_models_of_epochs_are_never_those_of_another_training(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    tuned, foreign = tmp_path / "m.epoch-1-tuned.safetensors", tmp_path / "m.epoch-2.safetensors"
    trained(tuned, data, settings(epochs=1))
    trained(foreign, data, settings(epochs=1, seed=7))
    trained(out, data, settings(epochs=1), force=True)
    assert tuned.exists() and last_path(tuned).exists(), "its name only begins like that of an epoch"
    kept = foreign.read_bytes()
    every = settings(epochs=3, save_every=2, seed=3)
    for force in (False, True):
        with pytest.raises(InputError, match=r"m.epoch-2.safetensors: is the model of another training"):
            trained(out, data, every, force=force)
    trained(out, data, settings(epochs=1), force=True)
    assert foreign.read_bytes() == kept
    log_path(foreign).unlink()
    last_path(foreign).unlink()  # what an earlier training of m.safetensors may have left
    with pytest.raises(InputError, match=r"m.epoch-2.safetensors: is of another training, with seed 7, now 1; "):
        trained(out, data, replace(every, seed=1))
    trained(out, data, every, force=True)
    assert load_header(foreign, "model")["seed"] == 3


def test_the_log_of_a_training_whose_files_were_removed_is_kept(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    trained(out, data, settings(epochs=2))
    out.unlink()
    last_path(out).unlink()
    before = log_path(out).read_bytes()
    with pytest.raises(
        InputError, match=r"m.jsonl: is the log of a training, with no m.last.safetensors to resume from"
    ):
        trained(out, data, settings(epochs=2, lr=0.05))
    assert log_path(out).read_bytes() == before
    trained(out, data, settings(epochs=2, lr=0.05), force=True)


def test_a_log_that_was_lost_is_told(data: DataFile, tmp_path: Path) -> None:
    out, watcher = tmp_path / "m.safetensors", Silent()
    with pytest.raises(StoppedError):
        trained(out, data, settings(epochs=3), stopping=stop_after(18))
    log_path(out).unlink()
    trained(out, data, settings(epochs=3), watcher=watcher)
    assert any("the log has no records of 1 epoch of this" in said for said in watcher.notices), watcher.notices


def test_a_state_within_an_epoch_is_not_called_that_epoch(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    with pytest.raises(StoppedError):
        trained(out, data, settings(epochs=3), stopping=stop_after(12))
    header = load_header(last_path(out), "training-state")
    assert header["selected"] == "update 11" and header["epoch"] == 1 and "val_robust" not in header
    trained(out, data, settings(epochs=3))
    header = load_header(last_path(out), "training-state")
    assert header["selected"] == "last" and header["epoch"] == 3 and header["val_robust"] >= 0


def test_a_model_of_another_training_in_the_place_of_the_selected_is_told(data: DataFile, tmp_path: Path) -> None:
    out, average = tmp_path / "m.safetensors", tmp_path / "m.ema.safetensors"
    trained(tmp_path / "other.safetensors", data, settings(seed=2, ema=0.9))
    with pytest.raises(StoppedError):
        trained(out, data, settings(ema=0.9), stopping=stop_after(12))
    average.write_bytes((tmp_path / "other.ema.safetensors").read_bytes())
    with pytest.raises(
        InputError, match=r"m.ema.safetensors: belongs to another training, and m.last.safetensors does"
    ):
        trained(out, data, settings(ema=0.9))


@pytest.mark.parametrize("epoch", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_crash_between_state_and_selected_model_loses_neither(
    epoch: int, data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = settings(ema=0.9, epochs=3)
    trained(tmp_path / "whole.safetensors", data, s)
    calls, kept = [], Outputs.keep_best

    def crash(outputs: Outputs, state: State) -> None:
        calls.append(1)
        if len(calls) == epoch:
            raise KeyboardInterrupt
        kept(outputs, state)

    monkeypatch.setattr(Outputs, "keep_best", crash)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut.safetensors", data, s)
    monkeypatch.setattr(Outputs, "keep_best", kept)
    trained(tmp_path / "cut.safetensors", data, s)
    for which in ("", ".ema"):
        (whole, said), (cut, says) = (
            checkpoints.load(tmp_path / f"{name}{which}.safetensors", "model") for name in ("whole", "cut")
        )
        assert said["epoch"] == says["epoch"] and all(torch.equal(whole[k], cut[k]) for k in whole)


def test_force_begins_anew_whenever_it_is_stopped(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    trained(out, data, settings(ema=0.9))
    with pytest.raises(StoppedError):  # before the first epoch ends
        trained(out, data, settings(ema=0.9), force=True, stopping=stop_after(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.jsonl", "m.last.safetensors"]
    trained(out, data, settings(ema=0.9))
    assert [record["kind"] for record in records.read(tmp_path / "m.jsonl")] == ["start", *["epoch"] * 3, "end"]


@pytest.mark.parametrize("calls", [5, 28, 33])  # of the network, of its average, and of the divergences
def test_a_long_validation_can_be_stopped_within(
    calls: int, data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pass of a validation takes two seconds by this clock: 20 steps on one batch are stopped after a few.

    Batch norms are folded meanwhile, and the saved state has them nevertheless.
    """
    s = settings("fast-at", model="resnet18-2", epochs=2, ema=0.9, log_divergence=True)
    clock = iter(range(10**9))
    monkeypatch.setattr(validation.time, "monotonic", lambda: 2 * next(clock))
    with pytest.raises(StoppedError, match="stopped during validation"):
        trained(tmp_path / "cut.safetensors", data, s, stopping=stop_after(8 + calls))
    trained(tmp_path / "cut.safetensors", data, s)
    trained(tmp_path / "whole.safetensors", data, s)
    for name in ("{}.safetensors", "{}.last.safetensors", "{}.ema.safetensors", "{}.ema-last.safetensors"):
        whole, cut = (
            checkpoints.load(tmp_path / name.format(each), ("model", "training-state"))[0] for each in ("whole", "cut")
        )
        assert whole.keys() == cut.keys() and all(torch.equal(whole[k], cut[k]) for k in whole)


def test_two_trainings_into_one_file_at_once(data: DataFile, tmp_path: Path) -> None:
    with (tmp_path / "m.jsonl").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another bsk train is writing it"):
            trained(tmp_path / "m.safetensors", data, settings())
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("updates", [3, 12])
def test_a_log_removed_meanwhile_ends_the_training_before_it_meets_another_s_files(
    updates: int, data: DataFile, tmp_path: Path
) -> None:
    """The callback that removes it is called after each update, like one that stops a training."""
    out, log = tmp_path / "m.safetensors", tmp_path / "m.jsonl"
    left: list[bytes] = []
    calls = iter(range(10**9))

    def another() -> int:
        if next(calls) == updates:
            log.unlink()
            trained(out, data, settings(seed=5), force=True)
            left.extend(path.read_bytes() for path in sorted(tmp_path.iterdir()))
        return 0

    with pytest.raises(InputError, match=r"m.jsonl: was removed or replaced meanwhile; the same command resumes"):
        trained(out, data, settings(), stopping=another)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == left
    assert load_header(out, "model")["seed"] == records.read(log)[0]["seed"] == 5


@pytest.mark.parametrize("updates", [3, 12, 23])
def test_data_written_to_meanwhile_end_the_training_before_it_saves(updates: int, toy: Path, tmp_path: Path) -> None:
    """Its images are mapped from the file, so that they change with it; from then on no update is kept."""
    path, out, original = tmp_path / "toy.safetensors", tmp_path / "cut.safetensors", toy.read_bytes()
    path.write_bytes(original)
    calls = iter(range(10**9))

    def copied_over() -> int:
        if next(calls) == updates:
            path.write_bytes(original[:-20000] + bytes(20000))
        return 0

    with pytest.raises(InputError, match=r"toy.safetensors: has changed while it was in use; restore it, and run the"):
        trained(out, open_data(path), settings(), stopping=copied_over)
    log = records.read(log_path(out))
    assert [r["kind"] for r in log] == ["start", *["epoch"] * (updates // 8)]
    path.write_bytes(original)
    trained(out, open_data(path), settings())
    trained(tmp_path / "whole.safetensors", open_data(toy), settings())
    assert_same(tmp_path, "whole", "cut")


def test_a_training_that_is_stopped_does_not_save_updates_on_changed_data(toy: Path, tmp_path: Path) -> None:
    """It saves in the middle of the second epoch otherwise."""
    path, out, stop = tmp_path / "toy.safetensors", tmp_path / "cut.safetensors", stop_after(11)
    path.write_bytes(toy.read_bytes())

    def copied_over() -> int:
        if code := stop():
            path.write_bytes(path.read_bytes()[:-20000] + bytes(20000))
        return code

    with pytest.raises(InputError, match="has changed while it was in use"):
        trained(out, open_data(path), settings(), stopping=copied_over)
    path.write_bytes(toy.read_bytes())
    trained(out, open_data(path), settings())
    trained(tmp_path / "whole.safetensors", open_data(toy), settings())
    assert_same(tmp_path, "whole", "cut")


@pytest.mark.parametrize("stale", [False, True])
def test_a_log_without_its_start_gets_it_again(stale: bool, data: DataFile, tmp_path: Path) -> None:
    trained(tmp_path / "m.safetensors", data, settings())
    start, *_, end = records.read(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").unlink()
    if stale:
        records.append(tmp_path / "m.jsonl", end)
    trained(tmp_path / "m.safetensors", data, settings())
    assert records.read(tmp_path / "m.jsonl") == [start, end]


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    with pytest.raises(StoppedError):
        trained(out, data, settings(epochs=2), stopping=stop_after(12))
    good = (tmp_path / "m.last.safetensors").read_bytes()
    tensors, header = checkpoints.load(tmp_path / "m.last.safetensors", "training-state")
    tensors["model.network.0.weight"][:] = float("nan")
    checkpoints.save(tmp_path / "bad.last.safetensors", tensors, header)
    (tmp_path / "bad.safetensors").write_bytes(out.read_bytes())
    bad = (tmp_path / "bad.last.safetensors").read_bytes()
    with pytest.raises(DivergedError, match="not finite after 16 updates"):
        trained(tmp_path / "bad.safetensors", data, settings(epochs=2))
    assert (tmp_path / "bad.last.safetensors").read_bytes() == bad
    assert (tmp_path / "m.last.safetensors").read_bytes() == good


def test_a_long_epoch_is_saved_within_it(data: DataFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs of eight updates; with no time between saves, the state is saved after each, else once an epoch."""
    steps: list[int] = []
    save = Outputs.save_state
    monkeypatch.setattr(Outputs, "save_state", lambda self, state: steps.append(state.step) or save(self, state))
    trained(tmp_path / "often.safetensors", data, settings())
    assert sorted(set(steps)) == [8, 16, 24]
    steps.clear()
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    trained(tmp_path / "m.safetensors", data, settings())
    assert sorted(set(steps)) == list(range(1, 25))
    assert (tmp_path / "m.safetensors").read_bytes() and loop.SAVE_SECONDS == -1


def test_a_state_that_does_not_fit_is_refused(data: DataFile, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    with pytest.raises(StoppedError):
        trained(out, data, settings(), stopping=stop_after(2))
    last = tmp_path / "m.last.safetensors"
    tensors, header = checkpoints.load(last, "training-state")
    checkpoints.save(last, {k: v for k, v in tensors.items() if "network.0" not in k}, header)
    with pytest.raises(InputError, match="does not fit this training"):
        trained(out, data, settings())
    last.write_bytes(last.read_bytes()[:-5])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        trained(out, data, settings())


@pytest.mark.parametrize(
    ("method", "change", "said"),
    [
        ("bs", {"momentum.network.0.weight": torch.zeros(2, 2)}, "momentum.network.0.weight has shape (2, 2)"),
        ("bs", {"momentum.other": torch.zeros(1)}, "unexpected tensor 'momentum.other'"),
        ("bs", {"sums": torch.full((3,), torch.nan, dtype=torch.float64)}, "sums has a number that is not finite"),
        ("bs", {"sums": torch.zeros(2, dtype=torch.float64)}, "sums has shape (2,)"),
        ("liet", {"memory.shared.pattern": torch.zeros(2, 1, 8, 8)}, "memory.shared.pattern has shape (2, 1, 8, 8)"),
        ("liet", {"memory.shared.pattern": torch.full((3, 1, 8, 8), torch.inf)}, "memory.shared.pattern has a number"),
        ("liet", {"memory.shared.other": torch.zeros(1)}, "unexpected tensor 'memory.shared.other'"),
        ("free-at", {"memory.shared.delta": torch.zeros(5, 1, 8, 4)}, "memory.shared.delta has shape (5, 1, 8, 4)"),
        ("free-at", {"memory.shared.delta": torch.zeros(())}, "memory.shared.delta has shape ()"),
        ("free-at", {"memory.delta": torch.zeros(32, 1, 8, 8)}, "unexpected tensor 'memory.delta'"),
        ("fgsm-pgi", {"memory.rows.prior": torch.zeros(239, 1, 8, 8)}, "memory.rows.prior has shape (239, 1, 8, 8)"),
        ("fgsm-pgi", {"memory.rows.momentum": torch.zeros(240)}, "memory.rows.momentum has shape (240,)"),
        ("fgsm-pgi", {"memory.rows.prior": torch.full((240, 1, 8, 8), torch.nan)}, "memory.rows.prior has a number"),
        ("fgsm-pgi", {"memory.rows.other": torch.zeros(1)}, "unexpected tensor 'memory.rows.other'"),
        ("bs", {"memory.rows.other": torch.zeros(1)}, "unexpected tensor 'memory.rows.other'"),
    ],
)
def test_invalid_tensors_of_a_state_are_refused(method, change, said, data, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    with pytest.raises(StoppedError):
        trained(out, data, settings(method), stopping=stop_after(2))
    last = tmp_path / "m.last.safetensors"
    tensors, header = checkpoints.load(last, "training-state")
    assert set(change) <= set(tensors) or said.startswith("unexpected tensor ")
    checkpoints.save(last, {**tensors, **change}, header)
    with pytest.raises(InputError) as error:
        trained(out, data, settings(method))
    assert f"does not fit this training ({said}" in str(error.value)


def test_selection_takes_the_best_epoch_under_pgd_and_never_sees_test(data: DataFile, tmp_path: Path) -> None:
    seen: list[str] = []

    class Spy(DataFile):
        def split(self, name: str, limit: int | None = None):
            seen.append(name)
            return super().split(name, limit)

    spy = Spy(**{k: getattr(data, k) for k in data.__dataclass_fields__})
    end = trained(tmp_path / "m.safetensors", spy, settings(epochs=4))
    epochs = [r for r in records.read(tmp_path / "m.jsonl") if r["kind"] == "epoch"]
    best = max(epochs, key=lambda r: (r["val_robust"], -r["epoch"]))
    assert (end["epoch"], end["val_robust"]) == (best["epoch"], best["val_robust"])
    assert (end["last_epoch"], end["last_val_robust"]) == (4, epochs[-1]["val_robust"])
    assert set(seen) == {"train", "val"}
    header = load_header(tmp_path / "m.safetensors", "model")
    assert header["complete"] and header["epoch"] == best["epoch"] and json.dumps(header["flags"])


@pytest.mark.parametrize(("method", "kind"), [("bs", "robust"), ("natural", "natural")])
def test_the_paper_s_selection_is_by_test_images_and_says_so(method, kind, data: DataFile, tmp_path: Path) -> None:
    s = settings(method, select="test", epochs=6, lr=0.5)
    with pytest.raises(StoppedError):
        trained(tmp_path / "m.safetensors", data, s, stopping=stop_after(20))
    end = trained(tmp_path / "m.safetensors", data, s)
    start, *epochs, _ = records.read(tmp_path / "m.jsonl")
    best = max(epochs, key=lambda r: (r[f"test_{kind}"], -r["epoch"]))
    assert (end["epoch"], end["test_robust"]) == (best["epoch"], best["test_robust"])
    assert start["flags"]["select"] == end["flags"]["select"] == "test" and end["selected"] == "best-on-test"
    header = load_header(tmp_path / "m.safetensors", "model")
    assert (header["selected"], header["epoch"], header["flags"]["select"]) == ("best-on-test", best["epoch"], "test")
    assert load_header(tmp_path / "m.last.safetensors", "training-state")["selected"] == "last"
    with pytest.raises(InputError, match="was trained with select test, now val"):
        trained(tmp_path / "m.safetensors", data, replace(s, select="val"))


def test_which_epoch_is_better_depends_on_what_selects() -> None:
    def setup(method: str, select: str) -> Any:
        s = settings(method, select=select)
        return SimpleNamespace(settings=s, profile=profile(s.bound, (1, 8, 8), 3))

    better_on_val, better_on_test = Scored(2, 0.8, 0.6, 0.7, 0.4), Scored(1, 0.7, 0.5, 0.8, 0.5)
    for method in ("bs", "natural"):
        assert is_better(better_on_val, better_on_test, setup(method, "val"))
        assert is_better(better_on_test, better_on_val, setup(method, "test"))
        assert not is_better(better_on_val, better_on_test, setup(method, "test"))
    assert is_better(Scored(1, 0.0, 0.0, 0.0, 0.0), Scored(), setup("bs", "test")), "the first is better than none"


def test_selection_on_test_trains_the_same_network(data: DataFile, tmp_path: Path) -> None:
    for select in ("val", "test"):
        trained(tmp_path / f"{select}.safetensors", data, settings(select=select))
    (a, _), (b, _) = (checkpoints.load(tmp_path / f"{n}.last.safetensors", "training-state") for n in ("val", "test"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    plain, other = (records.read(tmp_path / f"{name}.jsonl")[1] for name in ("val", "test"))
    assert other.keys() - plain.keys() == {"test_natural", "test_robust"}
    assert all(plain[k] == other[k] for k in plain if "second" not in k)


@pytest.mark.parametrize("precision", ["bf16"])
def test_half_precision_trains(precision: str, data: DataFile, tmp_path: Path) -> None:
    end = trained(tmp_path / "m.safetensors", data, settings(precision=precision, augment="none", epochs=4))
    assert end["val_natural"] > 0.9
    tensors, _ = checkpoints.load(tmp_path / "m.safetensors", "model")
    assert {t.dtype for t in tensors.values()} == {torch.float32, torch.int64}
