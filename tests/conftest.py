"""Fixtures of all tests: where real images and checkpoints are, and one thread so that results repeat."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bsk.waiting import sleep_soon  # noqa: F401 - bsk before torch: threads that wait leave the cores to other processes

# isort: split
import hypothesis
import numpy as np
import pytest
import torch

from bsk.cli.app import main
from bsk.cli.signals import STOPPING
from bsk.data.store import Info, Part, write
from bsk.evaluation.diagnostics import PARTS
from bsk.terminal import CHOICES

pytest_plugins = ["made_records"]
hypothesis.settings.register_profile("bsk", deadline=None)  # no test depends on how fast the machine is
hypothesis.settings.load_profile("bsk")
ROOT = Path(__file__).parent.parent
for number in STOPPING:  # those that nohup and a shell's background jobs ignore would not reach the commands either
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest tests first."""
    items.sort(key=lambda item: not any(mark.kwargs.get("first") for mark in item.iter_markers("slow")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and checkpoints: $BSK_SHARED, or `shared` beside the checkout; else skip."""
    folder = Path(os.environ.get("BSK_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no folder of real images and checkpoints (set BSK_SHARED)")
    return folder


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data file of 3 classes of 1x8x8 images: a bright quadrant each, and noise."""
    random = np.random.default_rng(0)
    parts = {}
    for name, n in {"train": 240, "val": 60, "test": 90}.items():
        labels = np.arange(n, dtype=np.int64) % 3
        images = random.integers(0, 120, (n, 1, 8, 8), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[0, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 60
        parts[name] = Part(images, labels)
    path = tmp_path_factory.mktemp("data") / "toy.safetensors"
    write(path, parts, Info("toy", ["a", "b", "c"], 0.1, [0.25], [0.2]))
    return path


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors are faster in one thread, and sums have a fixed order; other processes share the cores."""
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give each test the same initial weights, whichever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: no test cuts the power, and one looks at what is synced."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def examined_whole(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of a model do not depend on the clock, however busy the machine is.

    Their black-box attack is short, except in tests of the checks: it takes most of the time of a small evaluation.
    """
    monkeypatch.setattr("bsk.evaluation.run.SHORT", dict.fromkeys(PARTS, 3600))
    if not any(request.node.iter_markers("checks")):
        monkeypatch.setattr("bsk.evaluation.diagnostics.QUERIES", 20)


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    """The reference implementation of AutoAttack ends all tracing, including that of `make coverage`."""
    trace = sys.gettrace()
    yield
    sys.settrace(trace)


@pytest.fixture
def full_at() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """Limit the size of files, as if the disk were full: a write is first partial and then fails."""

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@dataclass(frozen=True)
class Said:
    """The output of a command on its streams."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def line(self) -> str:
        """The one line that an error is."""
        assert self.stderr.startswith("bsk: ") and self.stderr.count("\n") == 1, self.stderr
        assert "Traceback" not in self.stderr
        return self.stderr.strip()


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run `bsk` in this process, in its own folder: equivalent to `bsk` but without the time for imports."""

    def run(*words: object, check: int = 0) -> Said:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["bsk", *map(str, words)])
        before = {number: signal.getsignal(number) for number in STOPPING}
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        for number, handler in before.items():
            signal.signal(number, handler)
        CHOICES.quiet = CHOICES.debug = CHOICES.json = False
        CHOICES.kept = ""
        said = Said(int(ended.value.code or 0), *capsys.readouterr())
        assert said.returncode == check, said.stderr
        return said

    return run


Bsk = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bsk(tmp_path: Path) -> Bsk:
    """Run `python -m bsk` in a folder of its own; arguments are split at spaces if there is but one."""

    def run(*arguments: object, input: str | None = None, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        words = str(arguments[0]).split() if len(arguments) == 1 else [str(a) for a in arguments]
        done = subprocess.run(
            [sys.executable, "-m", "bsk", *words],
            cwd=tmp_path,
            input=input,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert check is None or done.returncode == check, done.stderr
        return done

    return run


TRAIN = ["--model", "cnn-4", "--epochs", "2", "--batch-size", "32", "--schedule", "cyclic", "--threads", "1"]
TRAIN += ["--precision", "fp32"]  # the same network on CPUs with and without bf16


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the files of `trained`, made for the first test that needs them."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def trained(call: Callable[..., Said], toy: Path, tmp_path: Path, trained_once: Path) -> Path:
    """A small network trained on the toy data by `bsk train`, with its log and its state, in the test's folder.

    Of the 90 test images it has 87 right, and 57 after two steps of PGD.
    """
    if not any(trained_once.iterdir()):
        out = trained_once / "m.safetensors"
        call("train", "--data", toy, *TRAIN, "--method", "bs", "--seed", 2, "--out", out, "--quiet")
    shutil.copytree(trained_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "m.safetensors"
