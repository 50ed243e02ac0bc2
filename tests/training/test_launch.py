"""Environment variables of launchers, signals of schedulers, and trainings that are bound to fail."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import CPU, Silent, settings, stop_after, trained

from bsk.data import processes
from bsk.data.processes import local_device, process_group
from bsk.data.store import DataFile
from bsk.errors import DivergedError, InputError, StoppedError, UsageError
from bsk.records import checkpoints
from bsk.records.headers import load_header
from bsk.training.flags import TrainingFlags
from bsk.training.run import run

NAMES = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    """Set the variables of a launcher, and remove all its others."""

    def set_to(**values: str) -> None:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_to


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "", "WORLD_SIZE": ""},
        {"RANK": "0"},
        {"WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "0", "LOCAL_RANK": "7"},
    ],
)
def test_one_process_does_not_wait_for_others(values: dict, environment) -> None:
    environment(**values)
    with process_group(CPU) as share:
        assert (share.rank, share.world) == (0, 1)


@pytest.mark.parametrize(
    ("name", "rank", "gpus", "found"),
    [
        ("auto", "2", 4, "cuda:2"),
        ("cuda", "2", 4, "cuda:2"),
        ("cuda:0", "2", 4, "cuda:2"),  # the same command in each process
        ("cuda:3", "", 4, "cuda:3"),  # its own command in each
        ("cuda", "2", 1, "cuda:0"),  # a scheduler shows each process its own
        ("cuda", "", 1, "cuda:0"),
        ("cpu", "2", 4, "cpu"),
        ("auto", "2", 0, "auto"),
    ],
)
def test_each_process_has_its_own_gpu(name, rank, gpus, found, environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(processes, "chosen_device", lambda name, threads: name)
    several = {"WORLD_SIZE": "8", "RANK": "5", "MASTER_ADDR": "here", "MASTER_PORT": "1"}
    environment(**several, **({"LOCAL_RANK": rank} if rank else {}))
    assert local_device(name, None) == found
    environment()
    assert local_device("cuda", None) == "cuda"


@pytest.mark.parametrize(
    ("gpus", "more", "said"),
    [
        (2, {"LOCAL_RANK": "2"}, "3 processes on this machine, 2 GPUs; start fewer processes"),
        (1, {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3"}, "3 processes on this machine, 1 GPUs; start fewer"),
        (2, {}, "2 GPUs and no LOCAL_RANK; start the processes with torchrun, or with --device cuda:N"),
    ],
)
def test_gpus_that_cannot_be_shared_out_are_refused(
    gpus: int, more: dict, said: str, environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    environment(WORLD_SIZE="3", RANK="2", MASTER_ADDR="here", MASTER_PORT="1", **more)
    with pytest.raises(UsageError, match=said):
        local_device("auto", None)


def test_several_processes_on_a_device_for_one_are_refused(environment) -> None:
    environment(WORLD_SIZE="3", RANK="2", MASTER_ADDR="here", MASTER_PORT="1")
    with pytest.raises(UsageError, match="a device mps works for one process only"), process_group(torch.device("mps")):
        pass


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 without RANK, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "here"}, "WORLD_SIZE=2 without MASTER_PORT"),
        ({"WORLD_SIZE": "abc", "RANK": "0"}, "WORLD_SIZE=abc: expected a whole number"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK=-1: expected a whole number"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE=0: expected a whole number from 1"),
        ({"RANK": "3"}, "RANK=3: expected below WORLD_SIZE=1"),
    ],
)
def test_a_part_of_what_processes_need_is_named(values: dict, said: str, environment) -> None:
    environment(**values)
    with pytest.raises(UsageError, match=said), process_group(CPU):
        pass


def test_a_port_that_cannot_be_is_one_line(environment) -> None:
    environment(WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="99999")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:99999: not all processes joined"), process_group(CPU):
        pass


def test_processes_that_do_not_come_are_given_up(environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RENDEZVOUS", 0.5)
    monkeypatch.setattr(processes.dist, "init_process_group", lambda *_, **__: time.sleep(5))
    environment(WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    with pytest.raises(InputError, match="not all processes joined"), process_group(CPU):
        pass


@pytest.mark.parametrize(
    "name", ["SIGUSR1", *(pytest.param(each, marks=pytest.mark.slow) for each in ("SIGUSR2", "SIGHUP", "SIGXCPU"))]
)
def test_signals_of_schedulers_save_and_stop(name: str, toy: Path, tmp_path: Path) -> None:
    number, out = getattr(signal, name), tmp_path / "m.safetensors"
    words = ["--model", "cnn-4", "--epochs", "5000", "--threads", "1", "--out", str(out)]
    command = [sys.executable, "-m", "bsk", "train", "--data", str(toy), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as process:
        assert process.stderr is not None and process.stderr.readline().startswith("bsk: epoch 1:")
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(60) == 128 + number
    assert "the same command resumes from there" in said
    assert load_header(tmp_path / "m.last.safetensors", "training-state")["progress"]["step"] > 0


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nohup has it for SIGHUP."""
    from bsk.cli.signals import _handled

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in _handled() and signal.SIGUSR1 in _handled()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_training_resumes_in_its_own_precision(data: DataFile, tmp_path: Path) -> None:
    s, out, watcher = settings("bs"), tmp_path / "m.safetensors", Silent()
    trained(tmp_path / "whole.safetensors", data, s)
    with pytest.raises(StoppedError):
        trained(out, data, s, stopping=stop_after(5))
    flags = {name: value for name, value in vars(s).items() if name != "dataset"}
    elsewhere = TrainingFlags(**{**flags, "precision": "auto"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bsk.devices.cpu_is_fast_in_bf16", lambda: True)
        end = run(elsewhere, data, out, device=CPU, watcher=watcher)
    cut, whole = (checkpoints.load(path, "model")[0] for path in (out, tmp_path / "whole.safetensors"))
    assert end["flags"]["precision"] == "fp32" and all(torch.equal(cut[name], whole[name]) for name in whole)
    assert watcher.notices == [f"{out}: resumes in fp32, its own precision; the default here is bf16"]


@pytest.mark.parametrize(("limit", "refused"), [(65, True), (66, False)])
def test_a_batch_of_one_that_cannot_be_normalised_is_refused_at_the_start(
    limit: int, refused: bool, data: DataFile, tmp_path: Path
) -> None:
    s = settings("fast-at", model="resnet18-2", batch_size=64, epochs=1, augment="none")
    if not refused:
        assert trained(tmp_path / "m.safetensors", data, s, limit=limit)["epoch"] == 1
        return
    with pytest.raises(UsageError, match="--batch-size 64: 65 images leave a batch of one"):
        trained(tmp_path / "m.safetensors", data, s, limit=limit)


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_a_learning_rate_that_diverges_at_once_is_reported(lr: float, data: DataFile, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="no epoch was completed; lower --lr, with --force") as error:
        trained(tmp_path / "m.safetensors", data, replace(settings("bs"), lr=lr))
    assert "fp32" not in str(error.value)
