"""Threads of an evaluation: fewer next to other processes if that is faster; no bit depends on their number."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bsk import devices
from bsk.attacks.flags import AttackFlags
from bsk.attacks.registry import attack_named
from bsk.data.store import open_data
from bsk.evaluation import threads
from bsk.evaluation.threads import Threads, pass_begins, shared_threads
from bsk.evaluation.verdicts import judge
from bsk.models import registry

CPU = torch.device("cpu")


class Machine:
    """A simulated machine: the seconds of a call of 100 passes depend on the number of threads, and part of them is
    waiting.
    """

    def __init__(self, most: int) -> None:
        self.now = self.busy = 0.0
        self.used: list[int] = []
        self.team = Threads(most, lambda: self.now, lambda: self.busy, self.used.append)

    def run(self, calls: int, seconds: dict[int, float], share: dict[int, float]) -> None:
        for _ in range(calls):
            self.team.begins(100)
            self.now += seconds[self.team.now]
            self.busy += seconds[self.team.now] * share[self.team.now]


def test_without_other_processes_nothing_is_tried() -> None:
    machine = Machine(4)
    machine.run(1000, {4: 0.01}, {4: 0.9})
    assert machine.used == []


def test_beside_others_fewer_threads_are_kept_where_they_are_faster() -> None:
    machine = Machine(4)
    machine.run(200, {4: 0.1, 2: 0.05, 1: 0.02}, {4: 0.4, 2: 0.5, 1: 0.7})
    assert machine.used == [2, 1] and machine.team.now == 1


def test_beside_others_all_threads_stay_where_they_are_faster_and_tries_become_rare() -> None:
    machine = Machine(2)
    machine.run(10_000, {2: 0.02, 1: 0.03}, {2: 0.6, 1: 0.7})
    assert machine.team.now == 2 and set(machine.used) == {1, 2}
    assert 8 <= machine.used.count(1) <= 16  # in 200 s: after 0.5, 1, 2, 4, 8, 16, and then each 30 s


def test_all_threads_return_when_the_machine_is_idle_again() -> None:
    machine = Machine(4)
    machine.run(100, {4: 0.1, 2: 0.05, 1: 0.02}, {4: 0.4, 2: 0.5, 1: 0.7})
    machine.run(100, {4: 0.02, 2: 0.03, 1: 0.05}, {4: 0.9, 2: 1.0, 1: 1.0})
    assert machine.team.now == 4


def test_the_first_call_after_a_change_is_not_counted() -> None:
    machine = Machine(2)
    for _ in range(20):  # the call after each change takes a second
        machine.team.begins(100)
        slow = 1.0 if machine.team._calls == 0 else {2: 0.1, 1: 0.05}[machine.team.now]
        machine.now, machine.busy = machine.now + slow, machine.busy + slow / 2
    assert machine.team.now == 1


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "_asked_for", [])
    monkeypatch.setattr(threads, "_found", None)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def crowd(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make each call try another number of threads, and return the numbers that passes had."""
    seen = []

    def begins(team: Threads, passes: int) -> None:
        team._change(3 - team.now)
        seen.append(torch.get_num_threads())

    monkeypatch.setattr(Threads, "begins", begins)
    return seen


@pytest.mark.parametrize(
    "name",
    [
        "natural",
        "pgd-10",
        pytest.param("screen", marks=pytest.mark.slow),
        pytest.param("square", marks=pytest.mark.slow),
    ],
)
def test_no_verdict_and_no_image_depends_on_the_threads(name, toy: Path, monkeypatch, two_threads) -> None:
    data = open_data(toy)
    model = registry.build("resnet18-8", classes=3, channels=1, size=8, mean=data.mean, std=data.std)
    found = []
    for changing in (False, True):
        seen = crowd(monkeypatch) if changing else [2]
        images: dict[int, torch.Tensor] = {}
        ledger = judge(
            model,
            data.split("test", 24),
            attack_named(name, 0.05, AttackFlags(classes=3, queries=200)),
            eps=0.05,
            seed=0,
            batch_size=16,
            device=CPU,
            keep=lambda rows, found, _, images=images: images.update(zip(rows.tolist(), found.x_adv, strict=True)),
        )
        assert set(seen) == ({1, 2} if changing else {2})
        assert torch.get_num_threads() == 2
        found.append((ledger.columns(), images))
    (columns, images), (others, theirs) = found
    for key, column in columns.items():
        assert key == "seconds" or torch.equal(torch.as_tensor(column), torch.as_tensor(others[key])), key
    assert all(torch.equal(images[row], theirs[row]) for row in images)


def test_a_chosen_number_of_threads_is_kept(monkeypatch: pytest.MonkeyPatch, two_threads) -> None:
    def numbers() -> set[int]:
        with shared_threads(CPU):
            for _ in range(2):
                pass_begins(1)
                found.add(torch.get_num_threads())
        return found

    found: set[int] = set()
    crowd(monkeypatch)
    assert numbers() == {1, 2}
    devices.chosen_device("cpu", 2)
    found.clear()
    assert numbers() == {2}
    devices.chosen_device("cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found.clear()
    assert numbers() == {2}


def told(environment: dict[str, str], first: str = "") -> list[str]:
    code = f"{first}\nimport os, bsk; print(*(os.environ.get(k) for k in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')))"
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "KMP_LIBRARY")
    kept = {key: value for key, value in os.environ.items() if key not in names}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_threads_sleep_soon_unless_the_user_chose_or_torch_is_there() -> None:
    assert told({}) == ["10000", "None"]
    assert told({"OMP_WAIT_POLICY": "active"}) == ["None", "active"]
    assert told({"GOMP_SPINCOUNT": "7"}) == ["7", "None"]
    assert told({}, first="import torch") == ["None", "None"]


def test_threads_of_a_command_that_adapts_their_number_wait_longer_unless_the_user_chose_or_torch_is_there() -> None:
    later = "from bsk.devices import load_torch; load_torch(adapts_threads=True)"
    assert told({}, first=later) == ["20000", "None"]
    assert told({"GOMP_SPINCOUNT": "10000"}, first=later) == ["10000", "None"]
    assert told({"OMP_WAIT_POLICY": "active"}, first=later) == ["None", "active"]
    assert told({}, first=f"import bsk, torch; {later}") == ["10000", "None"]
    assert told({}, first="from bsk.devices import load_torch; load_torch()") == ["10000", "None"]
