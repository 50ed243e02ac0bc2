"""The GPU script at tiny sizes on the CPU: every part reports its measurements, even if another one fails."""

import json
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import evaluations, recipe, shared_machine
from benchmarks.attacks import Evaluation
from benchmarks.searches import exact_interval, main

ROOT = Path(__file__).parent.parent


@pytest.mark.slow(first=True)
def test_the_script_for_a_gpu_runs_on_a_cpu_and_past_a_part_that_fails(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\ncase "$*" in *"gpu large"*) echo broken; exit 7;;\n'
        '*"gpu small"*) ;; *) export TORCH_COMPILE_DISABLE=1;; esac\n'  # one part compiles really
        f'exec {shlex.quote(sys.executable)} "$@"\n'
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


def test_an_attack_is_compared_with_as_many_bare_passes_as_it_makes() -> None:
    Evaluation().attack()  # asserts the number of passes that `passes` makes, and that no image falls


def test_known_survivors_among_mutants_are_of_functions_that_exist() -> None:
    """`benchmarks.mutants` leaves them out by name, so that an old name would let its mutants appear as new ones."""
    listed = (ROOT / "results" / "mutants.md").read_text()
    names = re.findall(r"^ *(bsk(?:\.\w+)+): ", listed, re.MULTILINE)
    assert len(names) > 200
    for name in set(names):
        pkgutil.resolve_name(name)


def test_a_measured_command_that_fails_ends_the_measurement(capfd: pytest.CaptureFixture[str]) -> None:
    process = shared_machine.Process(shared_machine._COMMAND, ["evaluate", "missing.safetensors"])
    with pytest.raises(RuntimeError, match="a process of the measurement ended; see above"):
        process.seconds()
    process.end()
    assert "missing.safetensors" in capfd.readouterr().err


@pytest.mark.slow
def test_a_command_is_timed_alone_and_beside_another_process(capsys: pytest.CaptureFixture[str]) -> None:
    shared_machine.report("pgd-100", 1, ROOT, 8)
    rows = capsys.readouterr().out
    assert all(f"alone, {way}: " in rows for way in ("default", "as torch waits", "other build"))
    assert rows.count(" threads of torch, ") >= 3 and "default / the best" in rows


def test_a_command_alone_is_judged_by_another_build_and_beside_a_process_by_the_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = []
    monkeypatch.setattr(shared_machine, "say", lambda what, over, most, ok: said.append((what, over, most, ok)))
    turns = {"default": [1.04, 9.0, 1.0], "as torch waits": [1.0], "other build": [1.0]}
    shared_machine._rows("a", turns, "alone")
    shared_machine._rows("b", {"default": [1.0], "1 thread": [0.5], "2 threads": [2.0]}, "beside")
    assert said == [
        ("a: default / as torch waits", 1.04, "<= 1.06", True),
        ("a: default / other build", 1.04, "<= 1.03", False),
        ("b: default / the best, 1 thread", 2.0, "<= 1.3", False),
    ]


def test_exact_intervals_are_clopper_pearson() -> None:
    assert exact_interval(0, 600) == pytest.approx((0, 1 - 0.025 ** (1 / 600)))
    assert exact_interval(5, 5) == pytest.approx((0.025 ** (1 / 5), 1))
    assert exact_interval(1, 10) == pytest.approx((0.00253, 0.44502), abs=1e-5)  # as printed in tables


def test_the_searches_of_the_records_are_compared_in_each_direction(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(ROOT / "results" / "search" / f"cnn-a-{search}.jsonl") for search in ("bf16", "fp32")])
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert ["cnn_a_adv.model", "square", "300", "0.5200", "11", "0"] in [row[:6] for row in rows]


@pytest.mark.parametrize(
    ("outcomes", "most", "ok"), [("aa", 0.6, True), ("aa", 0.4, False), ("ab", 0.6, False)], ids=str
)
def test_builds_are_compared_by_the_median_of_ratios_and_must_agree(
    outcomes: str, most: float, ok: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other, turns = Path("other"), iter([(2, 1), (2, 2), (10, 1)])  # theirs and ours: ratios 0.5, 1 and 0.1
    seconds: list[float] = []

    def evaluated(words: list[str], checkout: Path = evaluations.HERE) -> dict[str, object]:
        seconds.extend(() if seconds else next(turns))
        theirs = checkout == other
        passes = {"forward_passes": 30 if theirs else 10, "backward_passes": 10}
        return {"seconds": seconds.pop(0), "correct": outcomes[theirs], "accuracy": 0.5, **passes}

    monkeypatch.setattr(evaluations, "evaluated", evaluated)
    peers = iter([(4.0, 7), (1.0, 7), (6.0, 7)])  # 4, 0.5 and 6 times as long
    evaluations.beside_build("pgd-100", [], other, pairs=3, most=most, peer=lambda: next(peers))
    row, beside = capsys.readouterr().out.splitlines()
    assert " 0.500 " in row and "0.500 of its passes" in row and ("NOT MET" in row) is not ok
    assert ("DIFFER" in row) is (outcomes == "ab")
    assert " 4.000  >= 1.00   ok " in beside and "0.500 to 6.000; 4.00 s; 7 stand" in beside


def test_each_search_is_compared_with_the_build_of_its_turn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = {(): 4, ("--search", "fp32"): 2, ("--search", "bf16"): 1}

    def evaluated(words: list[str], checkout: Path = evaluations.HERE) -> dict[str, object]:
        passes = {"forward_passes": 1, "backward_passes": 1}
        return {"seconds": seconds[tuple(words)], "correct": "a", "accuracy": 0.5, **passes}

    monkeypatch.setattr(evaluations, "evaluated", evaluated)
    evaluations.beside_build("pgd-100", [], Path("other"), pairs=1, searches=["fp32", "bf16"])
    fp32, bf16 = capsys.readouterr().out.splitlines()
    assert " 0.500 " in fp32 and " 0.250 " in bf16 and "bf16" in bf16 and "bf16" not in fp32


@pytest.mark.parametrize(("name", "epochs"), [("bs", 15), ("n-fgsm", 30), ("liet", 24), ("bs awp", 10), ("at", 5)])
def test_a_candidate_has_the_passes_of_15_epochs_of_bs(name: str, epochs: int) -> None:
    assert recipe.epochs(name, 1) == epochs  # (4 + 4) * 15 = 120 passes of each image


@pytest.mark.parametrize(("code", "ends"), [(4, False), (5, True)])
def test_a_candidate_that_diverges_is_ranked_last_and_any_other_error_ends_the_search(
    code: int, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bsk(words: list[str]) -> str:
        if words[0] == "evaluate":
            return '{"attack": "natural", "accuracy": 0.6}\n{"attack": "cw-20", "accuracy": 0.3}\n'
        if "elle" in words:
            raise subprocess.CalledProcessError(code, "bsk")
        end = {"last_epoch": 1, "val_robust": 0.3, "ema_val_robust": 0.4}
        return json.dumps({**end, "version": "1", "device": "cpu", "flags": {"precision": "fp32"}})

    monkeypatch.setattr(recipe, "CANDIDATES", {"elle": "", "bs": "", "bs ema": "--ema 0.999"})
    monkeypatch.setattr(recipe, "RUNGS", (recipe.Rung(9, 0.5, 0),))
    monkeypatch.setattr(recipe, "bsk", bsk)
    if ends:
        with pytest.raises(subprocess.CalledProcessError):
            recipe.search("data", tmp_path)
        return
    recipe.search("data", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()]
    assert [line.get("val_pgd20") for line in lines] == [None, 0.3, 0.4]  # the last one is of the averaged weights
    assert lines[0]["diverged"] and lines[0]["val_robust"] == lines[0]["val_natural"] == 0


def test_a_search_keeps_the_most_robust_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`gat` is less accurate than `bs` on clean images, so it comes last; `bs` stays to the end as the base."""
    accuracies = {"bs": (0.3, 0.6), "liet": (0.4, 0.6), "n-fgsm": (0.35, 0.7), "gat": (0.9, 0.5)}
    asked = []

    def bsk(words: list[str]) -> str:
        if words[0] == "evaluate":
            assert words[words.index("--split") + 1] == "val"
            robust, natural = accuracies[Path(words[1]).stem.split("_")[0]]
            return f'{{"attack": "natural", "accuracy": {natural}}}\n{{"attack": "cw-20", "accuracy": {robust}}}\n'
        given = dict(zip(words[1::2], words[2::2], strict=False))
        asked.append((given["--method"], given["--seed"], "--limit" in words))
        device = {"version": "1", "device": "cpu", "flags": {"precision": "fp32"}}
        return json.dumps({"last_epoch": int(given["--epochs"]), "val_robust": 0.99, **device})

    monkeypatch.setattr(recipe, "CANDIDATES", dict.fromkeys(accuracies, ""))
    monkeypatch.setattr(recipe, "RUNGS", (recipe.Rung(9, 0.5, 1), recipe.Rung(None, 1.0, 0, (1, 2))))
    monkeypatch.setattr(recipe, "bsk", bsk)
    recipe.search("data", tmp_path)
    first = [(name, "1", True) for name in accuracies]
    assert asked == [*first, ("liet", "1", False), ("bs", "1", False), ("liet", "2", False), ("bs", "2", False)]
    lines = [json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()]
    assert [(line["rung"], line["name"], line["epochs"]) for line in lines][3:5] == [(0, "gat", 10), (1, "liet", 24)]
    recipe.search("data", tmp_path)
    assert len(asked) == 8 and len((tmp_path / "search.jsonl").read_text().splitlines()) == 8
    assert recipe.ranked(accuracies) == ["liet", "n-fgsm", "bs", "gat"]
