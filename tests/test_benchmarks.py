"""The script for a GPU, at tiny sizes on the CPU: each part tells what it measured, and survives another's failure."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_cpu_and_past_a_part_that_fails(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *"gpu large"*) echo broken; exit 7;; esac\nexec {shlex.quote(sys.executable)} "$@"\n'
    )
    python.chmod(0o755)
    environment = {**os.environ, "OUT": str(tmp_path / "out"), "PYTHON": str(python), "OMP_NUM_THREADS": "1"}
    command = [ROOT / "benchmarks" / "gpu.sh", "tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    parts = {path.stem: path.read_text().splitlines() for path in (tmp_path / "out").iterdir()}
    assert set(parts) == {"gpu-small", "gpu-autoattack", "gpu-large", "gpu-pgd-100"}
    assert parts["gpu-large"] == ["broken", "== large: ended with 7"]
    assert all(
        "torch" in parts[f"gpu-{name}"][0] for name in ("small", "autoattack", "pgd-100")
    )  # the device, versions
    rows = [line.split("\t") for line in parts["gpu-small"] if line.startswith("cnn\t")]
    assert [row[1] for row in rows if row[2] == "off"] == ["bs", "trades", "at"] and all(
        float(row[3]) > 0 for row in rows
    )
    rows = [line.split("\t") for line in parts["gpu-pgd-100"] if line.startswith("cnn\t")]
    assert rows[-1][4] == "early_stop=False" and rows[-1][-1] == "0"  # verdicts that differ
    assert 0 < float(rows[0][-2]) < 1  # something stands and something falls
