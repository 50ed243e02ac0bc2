"""The Makefile: each experiment lists its jobs, repeats nothing, and a failing row spoils no other."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bsk.cli.app import app

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def make(tmp_path: Path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".installed").touch()

    def run(*words: str, check: bool = True, bsk: str = f"{sys.executable} -m bsk") -> subprocess.CompletedProcess[str]:
        places = [f"VENV={tmp_path}/venv", f"OUT={tmp_path}/out", f"DATA={tmp_path}/data", f"BSK={bsk}"]
        command = ["make", "--no-print-directory", "-C", str(ROOT), *places, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def jobs(output: str, command: str) -> list[str]:
    return [line for line in output.splitlines() if f"-m bsk {command} " in line]


def test_help_lists_every_target(make) -> None:
    shown = make("help").stdout
    assert all(re.search(rf"^  {name} ", shown, re.M) for name in ("install", "demo", "test", "bench", "readme-table"))


def test_the_readme_table_has_its_rows_and_seeds(make) -> None:
    listed = make("-n", "readme-table").stdout
    trainings = jobs(listed, "train")
    assert len(trainings) == 2 * (4 * 3 + 1) == len(jobs(listed, "evaluate"))
    assert all("--model resnet18-16" in job and "--schedule cyclic --lr 0.2" in job for job in trainings)
    assert sum("--eps 8/255 --epochs 15" in job for job in trainings) == 13
    assert sum("--eps 16/255 --epochs 12" in job for job in trainings) == 13
    assert sum("--method trades" in job for job in trainings) == 2


def test_every_flag_in_a_pipeline_exists(make) -> None:
    import typer

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {name: {o for p in command.params for o in p.opts} for name, command in commands.items()}
    for target in ("demo", "readme-table"):
        for line in make("-n", target).stdout.splitlines():
            if match := re.search(r"-m bsk ([a-z-]+) ([^>]*)", line):
                assert set(re.findall(r"(?<!\S)--[a-z-]+", match[2])) <= known[match[1]], line


STUB = """#!/bin/bash
out=; prev=; for word in "$@"; do [ "$prev" = --out ] && out=$word; prev=$word; done
echo "$*" >> "{log}"
case "$*" in *"train"*"--method bs"*"--seed 2"*) [ -e "{broken}" ] && exit 4;; esac
if [ "$1" = train ] || [ "$1" = prepare-data ]; then mkdir -p "$(dirname "$out")"; touch "$out"; fi
echo '{{"kind": "stub"}}'
"""


def test_a_second_run_does_nothing_and_a_failing_row_stops_no_other(make, tmp_path: Path) -> None:
    log, broken, stub = tmp_path / "log", tmp_path / "broken", tmp_path / "stub"
    stub.write_text(STUB.format(log=log, broken=broken))
    stub.chmod(0o755)
    broken.touch()
    table = f"{tmp_path}/out/demo/table.txt"
    failed = make("-k", "-j2", table, check=False, bsk=str(stub))
    assert failed.returncode != 0
    done = sorted(p.name for p in (tmp_path / "out" / "demo").glob("*.eval.jsonl"))
    assert len(done) == 11 and "bs-2.eval.jsonl" not in done
    assert not (tmp_path / "out" / "demo" / "bs-2.train.json").exists()
    broken.unlink()
    before = len(log.read_text().splitlines())
    make(table, bsk=str(stub))
    added = log.read_text().splitlines()[before:]
    assert [line.split()[0] for line in added] == ["train", "evaluate", "compare", "compare", "compare"]
    make(table, bsk=str(stub))
    assert len(log.read_text().splitlines()) == before + 5
