"""Everything that torch does on a GPU or on MPS is possible there: tested on devices that only pretend to be such."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE / "on_a_pretended_device.py"


def run(kind: str, toy: Path, folder: Path) -> dict[str, Any]:
    shutil.copy(toy, folder / "toy.safetensors")
    path = os.pathsep.join(map(str, (HERE, HERE.parent / "training", HERE.parents[1])))
    done = subprocess.run(
        [sys.executable, SCRIPT, kind, folder],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def on_the_cpu(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run("cpu", toy, tmp_path_factory.mktemp("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_trainings_and_evaluations_work_and_find_the_same(
    kind: str, on_the_cpu: dict[str, Any], toy: Path, tmp_path: Path
) -> None:
    """No tensor is on another device than those it meets, MPS gets no fp64, and no update waits for the device."""
    found = run(kind, toy, tmp_path)
    assert found.pop("waited"), "validations wait, and are seen to"
    assert found.pop("waits") == {}
    expected = {name: each for name, each in on_the_cpu.items() if not name.startswith("wait")}
    assert found.keys() == expected.keys()
    for name, values in found.items():  # one of 16 images may differ
        assert values == pytest.approx(expected[name], abs=0.07, rel=0.1), name
