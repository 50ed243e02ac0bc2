"""The Makefile: each experiment lists its jobs, repeats none, and a failing row does not affect others."""

import functools
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bsk.cli.app import COMMANDS, built
from bsk.cli.prices import Job
from bsk.comparison.published import published
from bsk.data.sources import expected
from bsk.methods import registry
from bsk.training.bound import bind
from bsk.training.profile import profile

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
    others = ["install", "demo", "test", "test-all", "coverage", "mutants", "bench", "torture", "clean", "paper"]
    others += ["report", "readme-table", "frontier", "budget", "collapse", "fast", "fastat", "fastat-epochs"]
    others += ["jobs-%", "plan-%"]
    assert all(re.search(rf"^  {name} ", shown, re.M) for name in [*others, *EXPERIMENTS])


def test_the_readme_table_has_its_rows_and_seeds(make) -> None:
    listed = make("-n", "readme-table").stdout
    trainings = jobs(listed, "train")
    assert len(trainings) == 5 * 3 + 4 * 3 + 1 == len(jobs(listed, "evaluate"))
    assert all("--model resnet18-16" in job and "--schedule cyclic --lr 0.2" in job for job in trainings)
    assert sum("--eps 8/255 --epochs 15" in job for job in trainings) == 13
    assert sum("--eps 16/255 --epochs 12" in job for job in trainings) == 15
    assert sum("--method trades" in job for job in trainings) == 4


EXPERIMENTS = [path.stem for path in (ROOT / "pipelines").glob("*[0-9].mk")]
SCALES = ("smoke", "small", "medium", "paper")


command_named = functools.cache(built)


def parsed(line: str) -> tuple[str, dict[str, Any]]:
    """Return a job's command and its flags, parsed as that command parses them; it raises where one is unknown."""
    command, target, flags = line.split("\t")
    return command, {**command_named(command).make_context(command, shlex.split(flags)).params, "target": target}


@functools.cache
def resolved(line: str) -> dict[str, Any]:
    """Return all flags of a training as its records will have them."""
    command, flags = parsed(line)
    name = Path(flags["data"]).stem.removesuffix("-small").removesuffix("-medium")
    job = Job(command, flags["target"], flags)
    found = job.settings(expected(name, Path(flags["data"])), torch.device("cpu"), flags["model"]).flags()
    return {**found, "data": str(flags["data"])}


def test_there_is_a_file_for_each_table_and_figure_of_the_paper() -> None:
    names = [f"table{n}" for n in range(1, 12)] + [f"figure{n}" for n in range(1, 6)] + ["section54"]
    assert sorted(EXPERIMENTS) == sorted(names), "the frontier is not the paper's"


@pytest.mark.parametrize(
    "scale", [s if s in ("smoke", "paper") else pytest.param(s, marks=pytest.mark.slow) for s in SCALES]
)
def test_every_target_lists_its_jobs_at_every_scale(make, scale: str) -> None:
    for name in EXPERIMENTS:
        listed = make("-n", name, f"SCALE={scale}").stdout
        assert jobs(listed, "train"), name
        assert all(f"/out/{scale}/runs/" in job for job in jobs(listed, "train") + jobs(listed, "evaluate"))
        assert all(f"SCALE={scale}" in job for job in jobs(listed, "compare") + jobs(listed, "plot"))


@pytest.mark.parametrize("scale", SCALES)
def test_jobs_parse_as_their_commands_parse_them_and_no_training_is_run_twice(make, scale: str) -> None:
    lines = make("jobs-paper", f"SCALE={scale}").stdout.splitlines()
    assert {"prepare-data", "train", "evaluate", "starts"} == {parsed(line)[0] for line in lines}
    trainings = {line.split("\t")[1]: resolved(line) for line in lines if line.startswith("train\t")}
    distinct = {json.dumps(flags, sort_keys=True) for flags in trainings.values()}
    assert len(distinct) == len(trainings)


def test_unknown_scales_chosen_seeds_and_chosen_folders(make) -> None:
    failed = make("-n", "table2", "SCALE=huge", check=False)
    assert failed.returncode and "SCALE=huge: no such scale; smoke, small, medium or paper" in failed.stderr
    trainings = jobs(make("-n", "table10", "SEEDS=7 8", "DEVICE=cpu", "LAUNCH=srun --gpus=1").stdout, "train")
    assert len(trainings) == 3 * 2
    assert all(job.startswith("srun --gpus=1 ") and "--device cpu" in job for job in trainings)
    assert {re.search(r"--seed (\d+)", job)[1] for job in trainings} == {"7", "8"}  # type: ignore[index]


def test_the_jobs_of_a_target_are_those_that_it_runs(make) -> None:
    others = ("frontier", "budget", "collapse", "fast", "fastat", "fastat-epochs", "readme-table")
    for name in (*EXPERIMENTS, *others):
        told = [line.split("\t")[0] for line in make(f"jobs-{name}", "SEEDS=1").stdout.splitlines()]
        listed = make("-n", name, "SEEDS=1").stdout
        for command in ("train", "evaluate", "starts"):
            assert told.count(command) == len(jobs(listed, command)), (name, command)


def test_ten_seeds_where_the_paper_has_ten(make) -> None:
    for name, rows in (("figure1", 5), ("figure2", 5), ("figure5", 4), ("section54", 2)):
        assert len(jobs(make("-n", name, "SCALE=paper").stdout, "train")) == 10 * rows
    assert len(jobs(make("-n", "table1", "SCALE=paper").stdout, "train")) == 10 + 2


def test_published_methods_have_equal_passes_or_equal_epochs(make) -> None:
    """The passes of 15 epochs of bs, to the nearest epoch; without natural training, aliases, and methods that need
    more data.
    """
    methods = set(registry.names()) - {"natural", "fgsm-mep", "rst"}
    for target, averages in (("fastat", {False, True}), ("fastat-averaged", {True}), ("fastat-epochs", {False})):
        lines = make(f"jobs-{target}", "SCALE=paper", "SEEDS=1").stdout.splitlines()
        resolved_flags = [resolved(line) for line in lines if line.startswith("train\t")]
        trainings = {(flags["method"], flags["ema"] > 0): flags for flags in resolved_flags}
        assert set(trainings) == set(itertools.product(methods, averages))
        for (method, averaged), flags in trainings.items():
            found = bind(method, 0.031)
            passes = profile(found, (3, 32, 32), 10).passes
            each = (passes.forward + passes.to_input + passes.full) * found.replays
            assert flags["epochs"] == (15 if target == "fastat-epochs" else max(round(120 / each), 1)), method
            assert (flags["ema"], flags["label_smoothing"]) == ((0.9995, 0.4) if averaged else (0.0, 0.0))


def test_the_frontier_spends_equal_budgets(make) -> None:
    """16, 48 and 160 passes per image to the nearest epoch; ten-step methods exceed 16 and have one epoch there."""
    spent: dict[str, list[float]] = {}
    for line in make("jobs-frontier", "SCALE=paper", "SEEDS=1").stdout.splitlines():
        if line.startswith("train\t"):
            flags = resolved(line)
            passes = profile(bind(flags["method"], 0.031), (3, 32, 32), 10).passes
            each = passes.forward + passes.to_input + passes.full
            spent.setdefault(flags["method"], []).append(each * flags["epochs"])
            assert flags["ema"] == 0.999 and flags["schedule"] == "cyclic"
    assert len(spent) == 7
    for method, found in spent.items():
        for passes, budget in zip(found, (16, 48, 160), strict=True):
            ten = method in ("at", "trades") and budget == 16
            assert passes == pytest.approx(budget, rel=0.13) or ten, (method, found)


def test_the_middle_budget_is_attacked_harder_and_trained_once(make) -> None:
    jobs = [
        [line.split("\t") for line in make(f"jobs-{t}", "SEEDS=1").stdout.splitlines()] for t in ("frontier", "budget")
    ]
    frontier, budget = [{target: flags for command, target, flags in each if command == "train"} for each in jobs]
    assert len(frontier) == 3 * 7 and len(budget) == 7 and budget.items() <= frontier.items()
    attacks = [{flags for command, _, flags in each if command == "evaluate"} for each in jobs]
    assert all(".ema.safetensors --data" in flags for each in attacks for flags in each)
    assert all("natural,autoattack --limit 1000" in flags for flags in attacks[1]) and len(attacks[1]) == 7


def test_every_row_of_the_paper_belongs_to_exactly_one_row_of_its_pipeline(make) -> None:
    rows: dict[str, list[tuple[str, str]]] = {}
    for name in [*(f"table{n}" for n in range(1, 12)), "section54"]:
        lines = make(f"jobs-{name}", "SCALE=paper", "SEEDS=1").stdout.splitlines()
        trainings = [line for line in lines if line.startswith("train\t")]
        rows[name] = list(zip(trainings, [line for line in lines if line.startswith("evaluate\t")], strict=True))
    met = set()
    records = [json.loads(line) for line in (ROOT / "bsk/comparison/paper/results.jsonl").read_text().splitlines()]
    for record in (each for each in records if each["table"] != "fastat"):
        name = f"table{record['table']}" if isinstance(record["table"], int) else "section54"
        owners = [n for n, (training, evaluate) in enumerate(rows[name]) if owns(name, training, evaluate, record)]
        assert len(owners) == 1, record
        met.add((name, owners[0]))
    extra = {(name, place) for name, found in rows.items() for place in range(len(found))} - met
    assert extra == {("section54", 0)}  # Fast AT, which section 5.4 compares with figure 5's


def owns(name: str, training: str, evaluation: str, record: dict[str, Any]) -> bool:
    """Return whether a training is that of a record of the paper; if so, check that it has the paper's protocol."""
    flags = resolved(training)
    table = published(f"{name.removeprefix('table')}/{record['dataset']}")
    fitting = [row.numbers for row in table.fitting(flags["method"], flags)]
    numbers = {key: value for key, value in record.items() if key in ("natural", "robust", "minutes", "adbd")}
    if flags["dataset"] != record["dataset"] or flags["method"] != record["method"]:
        return False
    if not any(numbers.items() <= each.items() for each in fitting):
        return False
    schedule = record.get("schedule", "piecewise")
    assert (flags["model"], flags["schedule"], flags["eps"]) == (record["model"], schedule, 0.031)
    assert flags["precision"] == ("fp16" if record.get("precision") == "mixed" else "fp32")
    assert flags["epochs"] == (15 if schedule == "cyclic" else 100) and flags["batch_size"] == 128
    attacks = parsed(evaluation)[1]["attack"].split(",")
    assert record.get("attack", "rays") in attacks and ("adbd" not in record or "autoattack" in attacks)
    return True


@pytest.mark.slow
def test_a_plan_reports_passes_and_finished_jobs(make, tmp_path: Path) -> None:
    make(f"{tmp_path}/data/digits.safetensors")
    target = tmp_path / "out/smoke/runs/digits/fast-at_seed-1.train.json"
    make(f"{target.parent}/setting.flags")  # which notes the flags of its trainings
    target.touch()
    lines = make("plan-table10", "SCALE=smoke", "SEEDS=1").stdout.splitlines()
    header, *rows = [line.split("\t") for line in lines]
    found = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["done"] for row in found] == ["True", *["False"] * 6]
    assert [row["forward_passes"] for row in found[:3]] == ["28800", "57600", "43200"]  # 1,200 images, 12 epochs
    assert found[-1]["job"] == "left" and found[-1]["target"] == "5 of 6"
    assert all(float(row["hours"]) > 0 for row in found)


SHORT = ["SEEDS=1", "smoke=--epochs 2 --batch-size 50 --limit 600", "usual=--attack natural,pgd-100 --no-checks"]


@pytest.mark.slow(first=True)
def test_a_table_end_to_end_and_parallel_jobs_give_the_same_results(make, tmp_path: Path) -> None:
    made = make("-j2", "table10", "SCALE=smoke", *SHORT)
    folder = tmp_path / "out/smoke/table10/cifar10"
    assert sorted(each.name for each in folder.iterdir() if each.suffix != ".flags") == [
        "curves.svg", "figure.png", "logs.jsonl", "results.jsonl",
        "table.jsonl", "table.md", "table.tex", "table.tsv", "table.txt",
    ]  # fmt: skip
    assert made.stdout.endswith((folder / "table.txt").read_text())
    rows = [json.loads(line) for line in (folder / "table.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == ["fast-at", "fast-trades", "bs-alone"]
    assert [row["paper_robust"] or row["paper_robust_best"] for row in rows] == [0.463, 0.4625, 0.3926]
    assert all(row["title"] == "Table 10, SCALE=smoke" and row["n"] == 397 for row in rows)
    assert all(0 < row["robust"] < row["natural"] and row["natural"] > 0.3 for row in rows)
    again = make("table10", "SCALE=smoke", *SHORT).stdout
    assert again == (folder / "table.txt").read_text()  # nothing is run again
    make("-j1", f"{tmp_path}/one/smoke/table10/cifar10/results.jsonl", f"OUT={tmp_path}/one", *SHORT)
    one, two = tmp_path / "one/smoke", tmp_path / "out/smoke"
    weights = sorted(path.relative_to(one) for path in one.rglob("*seed-1.safetensors"))
    assert len(weights) == 3
    for name in weights:  # the headers have seconds
        mine, others = load_file(one / name), load_file(two / name)
        assert mine.keys() == others.keys() and all(torch.equal(mine[key], others[key]) for key in mine)
    bits = [
        [json.loads(line)["correct"] for line in (each / "table10/cifar10/results.jsonl").read_text().splitlines()]
        for each in (one, two)
    ]
    assert bits[0] == bits[1] and len(bits[0]) == 6


def test_every_flag_in_a_pipeline_exists(make) -> None:
    known = {name: {o for each in command_named(name).params for o in each.opts} for name in COMMANDS}
    met = set()
    for target in ("demo", "readme-table", "paper", "report", "frontier", "budget", "collapse"):
        for line in make("-n", target).stdout.replace("\\\n", "").splitlines():
            if match := re.search(r"-m bsk ([a-z-]+) ([^>]*)", line):
                met.add(match[1])
                method = re.search(r"--method (\S+)", match[2])
                own = {each.flag for each in registry.parameters(method[1]).values()} if method else set()
                assert set(re.findall(r"(?<!\S)--[a-z-]+", match[2])) <= known[match[1]] | own, line
    assert met == {"prepare-data", "train", "attack", "evaluate", "compare", "plot", "starts", "report"}


STUB = """#!/bin/bash
out=; prev=; for word in "$@"; do [ "$prev" = --out ] && out=$word; prev=$word; done
echo "$*" >> "{log}"
case "$*" in *"train"*"--method bs"*"--seed 2"*) [ -e "{broken}" ] && exit 4;; esac
if [ -n "$out" ] && [ "$1" != evaluate ]; then mkdir -p "$(dirname "$out")"; touch "$out"; fi
if [ "$1" = train ]; then touch "${{out%.safetensors}}.jsonl"; fi
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
    assert len(done) == 11 and "bs_seed-1.demo.eval.jsonl" in done and "bs_seed-2.demo.eval.jsonl" not in done
    assert not (tmp_path / "out" / "demo" / "bs_seed-2.train.json").exists()
    broken.unlink()
    before = len(log.read_text().splitlines())
    make(table, bsk=str(stub))
    added = log.read_text().splitlines()[before:]
    assert [line.split()[0] for line in added] == ["train", "evaluate", "compare"]
    make(table, bsk=str(stub))
    assert len(log.read_text().splitlines()) == before + 3


@pytest.fixture
def stub(tmp_path: Path) -> tuple[str, Path]:
    """A stub of bsk that only writes files and logs its calls."""
    log, path = tmp_path / "log", tmp_path / "stub"
    path.write_text(STUB.format(log=log, broken=tmp_path / "broken"))
    path.chmod(0o755)
    return str(path), log


def trained(log: Path) -> list[str]:
    return re.findall(r"^train .*--method (\S+).*--seed (\d+)", log.read_text(), re.M)


def test_more_seeds_are_trained_and_fewer_are_shown_alone(make, stub, tmp_path: Path) -> None:
    bsk, log = stub
    results = tmp_path / "out/smoke/table10/cifar10/results.jsonl"
    make("table10", "SEEDS=1", bsk=bsk)
    assert len(trained(log)) == 3 and len(results.read_text().splitlines()) == 3
    make("table10", "SEEDS=1 2", bsk=bsk)
    assert len(trained(log)) == 6 and len(results.read_text().splitlines()) == 6
    made = len(log.read_text().splitlines())
    make("table10", "SEEDS=2", bsk=bsk)
    assert len(trained(log)) == 6 and len(results.read_text().splitlines()) == 3
    assert len(log.read_text().splitlines()) > made  # the table is made again
    made = len(log.read_text().splitlines())
    make("table10", "SEEDS=2", bsk=bsk)
    assert len(log.read_text().splitlines()) == made


def test_changed_flags_of_a_scale_make_its_runs_due(make, stub, tmp_path: Path) -> None:
    bsk, log = stub
    more = ["SEEDS=1", "smoke=--epochs 21 --batch-size 100"]

    def changed(*words: str) -> list[str]:
        lines = [line.split("\t") for line in make("jobs-table10", *words, bsk=bsk).stdout.splitlines()]
        return [line[0] for line in lines if line[3:] == ["changed"]]

    assert changed("SEEDS=1") == [], "nothing is there yet"
    make("table10", "SEEDS=1", bsk=bsk)
    assert changed("SEEDS=1") == [] and changed(*more) == ["train"] * 3
    assert changed("SEEDS=1", "usual=--attack natural") == ["evaluate"] * 3
    first = next(iter(sorted((tmp_path / "out/smoke/runs/digits").glob("*.train.json"))))
    make(str(first), *more, bsk=bsk)  # as if the make had been killed after it
    assert changed(*more) == ["train"] * 2, "those made before the flags were noted"
    make("table10", *more, bsk=bsk)
    assert len(trained(log)) == 6


def test_data_of_another_archive_are_named_and_not_made_again(make, stub, tmp_path: Path) -> None:
    (bsk, log), data = stub, f"{tmp_path}/data/cifar10-small.safetensors"
    assert "warning" not in make(data, "CIFAR10=subset.tar.gz", bsk=bsk).stderr
    assert "warning" not in make(data, "CIFAR10=subset.tar.gz", bsk=bsk).stderr
    assert "warning" not in make(data, bsk=bsk).stderr, "no archive is named"
    told = make(data, "CIFAR10=whole.tar.gz", bsk=bsk)
    assert f"{data}: was made by prepare-data cifar10 --from 'subset.tar.gz'" in told.stderr
    assert "remove it to make it from whole.tar.gz" in told.stderr
    assert len(re.findall("^prepare-data", log.read_text(), re.M)) == 1


def test_the_demo_runs_beside_a_table_without_a_second_make(make, stub) -> None:
    bsk, log = stub
    make("-j2", "demo", "table10", "SEEDS=1", bsk=bsk)
    assert len(re.findall("^prepare-data", log.read_text(), re.M)) == 1
    assert "--no-print-directory -j" in make("-n", "demo", bsk=bsk).stdout, "alone, its jobs run side by side"


def test_a_temporary_file_is_of_one_process_and_goes_with_a_job_that_fails(make, stub, tmp_path: Path) -> None:
    """So that two makes in one OUT do not write to the same one."""
    bsk, _ = stub
    listing = f"ls {tmp_path}/out/smoke/runs/digits >> {tmp_path}/names; [ $1 = train ] && exit 4\nout="
    (tmp_path / "failing").write_text(Path(bsk).read_text().replace("out=", listing, 1))
    (tmp_path / "failing").chmod(0o755)
    assert make("-k", "table10", "SEEDS=1", check=False, bsk=str(tmp_path / "failing")).returncode
    names = re.findall(r"^\S+\.train\.json\.\d+\.tmp$", (tmp_path / "names").read_text(), re.M)
    assert len(set(names)) == 3 and not list(tmp_path.rglob("*.tmp"))


def test_a_finished_tree_has_nothing_due_and_other_flags_of_evaluation_or_table_are_noticed(
    make, stub, tmp_path: Path
) -> None:
    bsk, log = stub
    make("table10", "SEEDS=1", bsk=bsk)
    begun = len(log.read_text().splitlines())
    assert not re.search(r"stub (train|evaluate|compare)", make("-n", "table10", "SEEDS=1", bsk=bsk).stdout)
    make("table10", "SEEDS=1", "usual=--attack natural,pgd-10", bsk=bsk)
    again = [line.split()[0] for line in log.read_text().splitlines()[begun:]]
    assert again.count("evaluate") == 3 and again.count("compare") == 1 and "train" not in again
    begun += len(again)
    make("table10", "SEEDS=1", "usual=--attack natural,pgd-10", "title=--title Other", bsk=bsk)
    again = [line.split()[0] for line in log.read_text().splitlines()[begun:]]
    assert sorted(set(again)) == ["compare", "plot"]


def test_a_partial_table_has_the_finished_runs(make, stub, tmp_path: Path) -> None:
    bsk, log = stub
    (tmp_path / "broken").touch()
    assert make("-k", "table2", "SEEDS=1 2", check=False, bsk=bsk).returncode
    results = tmp_path / "out/smoke/table2/cifar10/results.jsonl"
    assert not results.exists()
    done = len(trained(log))
    make("table2", "SEEDS=1 2", "PARTIAL=yes", bsk=bsk)
    assert len(results.read_text().splitlines()) == 11 and len(trained(log)) == done
    (compared,) = [line for line in log.read_text().splitlines() if line.startswith("compare")]
    assert "--title Table 2, SCALE=smoke, 11 of 12 runs --paper" in compared.replace("'", "")
    drawn = [line for line in log.read_text().splitlines() if line.startswith("plot")]
    assert drawn and all("11 of 12 runs" in line for line in drawn)
    plain = make("-n", "table2", "SEEDS=1 2", "PARTIAL=no", bsk=bsk).stdout
    assert "--title 'Table 2, SCALE=smoke'" in plain and " runs'" not in plain
    assert len(re.findall(" train ", plain)) == 1, "PARTIAL=no is as without it"
    assert "PARTIAL=1: yes or no" in make("-n", "table2", "PARTIAL=1", check=False).stderr


def test_a_partial_table_without_runs_is_an_error(make, stub, tmp_path: Path) -> None:
    failed = make("-k", "table10", "SEEDS=7", "PARTIAL=yes", check=False, bsk=stub[0])
    place = tmp_path / "out/smoke/table10/cifar10"
    for name in ("results.jsonl", "logs.jsonl"):
        assert f"table10/cifar10/{name}: none of its runs exists; give SEEDS= of existing runs" in failed.stderr
        assert not (place / name).exists()


def test_unusual_spellings_of_folders_work(make, tmp_path: Path) -> None:
    plain = make("-n", "table10", "OUT=o", "DATA=d").stdout
    assert make("-n", "table10", "OUT=./o/", "DATA=././d").stdout == plain and "--method bs-alone" in plain
    failed = make("-n", "table10", "OUT=~/o", check=False)
    assert failed.returncode and "no ~ in paths" in failed.stderr


@pytest.mark.parametrize(
    "value", ["", "/", ".", "./", ".//", "..", "a/..", "../..", ".//.", *(f"a{odd}b" for odd in ":;#$' %=(")]
)
@pytest.mark.parametrize("variable", ["OUT", "DATA"])
def test_folders_with_special_characters_are_refused(make, variable: str, value: str) -> None:
    failed = make("-n", "table10", f"{variable}={value}", check=False)
    assert failed.returncode and f"*** {variable}={value}: " in failed.stderr, failed.stderr
    assert failed.stderr.count("\n") == 1 and "choose another folder" in failed.stderr


def test_the_report_waits_for_what_is_asked_for_with_it(make, stub) -> None:
    bsk, log = stub
    make("-j2", "table10", "figure3", "report", "SEEDS=1", bsk=bsk)
    assert log.read_text().splitlines()[-1].startswith("report ")


def test_a_job_killed_with_its_shell_leaves_no_target_and_is_done_again(make, stub, tmp_path: Path) -> None:
    bsk, log = stub
    kill = '[ "$1" = train ] && [ -e "$KILL" ] && kill -9 $PPID\nout='
    (tmp_path / "killing").write_text(Path(bsk).read_text().replace("out=", kill, 1))
    (tmp_path / "killing").chmod(0o755)
    (tmp_path / "kill").touch()
    assert make("table10", "SEEDS=1", check=False, bsk=f"env KILL={tmp_path}/kill {tmp_path}/killing").returncode
    assert not list(tmp_path.glob("out/smoke/runs/*/*.train.json"))
    (tmp_path / "kill").unlink()
    make("table10", "SEEDS=1", bsk=f"env KILL={tmp_path}/kill {tmp_path}/killing")
    assert (tmp_path / "out/smoke/table10/cifar10/results.jsonl").exists()


def test_parallel_jobs_make_the_same_files(make, stub, tmp_path: Path) -> None:
    bsk, _ = stub
    for jobs_at_once, name in (("-j1", "one"), ("-j2", "two")):
        make(jobs_at_once, "table10", "figure3", f"OUT={tmp_path}/{name}", bsk=bsk)
    found = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")) for n in ("one", "two")]
    assert found[0] == found[1] and len(found[0]) > 50


def test_unknown_tables_and_paths_with_spaces_are_refused(make) -> None:
    assert "tabel8: no such table or figure; make help lists them" in make("plan-tabel8", check=False).stderr
    failed = make("-n", "table8", "OUT=a b", check=False)
    assert failed.returncode and "no spaces in paths" in failed.stderr
