"""The commands as a shell sees them: streams, exit codes, one-line errors, no partial files."""

import functools
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bsk.attacks import registry as attacks
from bsk.cli import app, options
from bsk.cli.app import COMMANDS
from bsk.data.datasets import DATASETS
from bsk.data.store import Info, problem
from bsk.methods import registry as methods
from bsk.models.registry import MODELS
from bsk.progress import epoch_line
from bsk.records.locks import only_writer

TRAIN = ["--model", "cnn-4", "--epochs", "2", "--batch-size", "32", "--schedule", "cyclic", "--threads", "1"]


def test_names_in_help_and_completion_are_the_registries() -> None:
    assert list(DATASETS) == options.DATASETS
    for model in {*MODELS, *(each.model for each in DATASETS.values())}:
        assert problem(Info("toy", ["a", "b"], 0.1, [0.5], [0.5], model=model)) is None
    assert "expected resnet18, resnet50" in str(problem(Info("toy", ["a", "b"], 0.1, [0.5], [0.5], model="cnn-999")))
    assert options.ATTACKS == attacks.ATTACKS


def test_help_has_every_method_and_of_the_chosen_one_its_flags(call) -> None:
    def told(*words: str) -> str:
        """Without blanks: lines are broken at hyphens too."""
        return "".join(call("train", "--help", *words).stdout.split())

    assert f"Oneof{','.join(methods.names())},ormodule:function." in told()
    for name in methods.names():
        own = told("--method", name).partition(f"Optionsof{name}:")[2]
        expected = [text for each in methods.parameters(name).values() for text in (each.flag, each.help)]
        assert all("".join(text.split()) in own for text in [methods.summary(name).removesuffix("."), *expected])
        assert ("foritscostseebskmethods" in own) == (name != "natural")
        assert own.endswith("(none)") == (not expected)
    liet = told("--method=liet").partition("Optionsofliet:")[2]
    assert "--ramp/--no-rampincrease" in liet and "--boundXmaximumdistanceofx'fromx,inunitsofeps;none:" in liet
    assert "--stepXsizeofthesinglestep,inpixels.[default:eps]" in liet and "--gamma" not in liet


def test_help_fits_two_screens(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands = [("train", "--method", name) for name in methods.names()]
    commands += [(name,) for name in COMMANDS]
    for words in commands:
        lines = call(*words, "--help").stdout.splitlines()
        assert any(line.startswith("      ") and f"bsk {words[0]}" in line for line in lines), f"{words}: no example"
        assert 10 < len(lines) <= 100 and max(map(len, lines)) <= 80, words


def test_only_the_command_that_is_called_is_built(call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(app, "built", lambda name, build=app.built: asked.append(name) or build(name))
    assert "Print the JSON Schema" in call("schema", "--help").stdout and asked == ["schema"]
    del asked[:]
    assert [line.split()[0] for line in _listed(call("--help").stdout)] == list(COMMANDS) == asked
    assert "Did you mean 'evaluate'?" in call("evalute", check=2).line


def _listed(help: str) -> list[str]:
    """Return the lines of the list of commands."""
    return [line for line in help.partition("Commands:\n")[2].partition("\n\n")[0].splitlines() if line[2:3] != " "]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--method trades --step 8/255 --gamma 2 --beta=3", {"step": 8 / 255, "gamma": 2.0, "beta": 3.0, "steps": 10}),
        ("--set gamma=2 --method trades --start backward", {"gamma": 2.0, "start": "backward"}),
        ("--method liet --no-ramp --every 3 --bound none", {"ramp": False, "every": 3, "bound": None}),
        ("--method liet --ramp --bound 2", {"ramp": True, "bound": 2.0, "least": 0.1}),
        ("--method fast-at-plus --rescue-every 5 --set rescue_drop=0.2", {"rescue_every": 5, "rescue_drop": 0.2}),
        ("--gamma 4", {"gamma": 4.0, "method": "bs"}),
    ],
)
def test_flags_of_a_method_are_read_and_recorded(call, toy: Path, words: str, expected: dict) -> None:
    record = json.loads(call("train", "--data", toy, *TRAIN, "--epochs", 1, "--limit", 40, *words.split()).stdout)
    assert {name: record["flags"][name] for name in expected} == expected


def test_help_is_fast_and_imports_no_torch() -> None:
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bsk", "--help"], capture_output=True, text=True, check=True
    )
    assert "prepare-data" in loaded.stdout
    modules = {line.split("|")[-1].strip() for line in loaded.stderr.splitlines()}
    assert not modules & {"torch", "numpy", "rich", "matplotlib", "safetensors", "scipy"}


def test_the_whole_pipe(bsk, toy: Path, trained: Path, tmp_path: Path) -> None:
    done = bsk("evaluate", trained, "--data", toy, "--attack", "natural,pgd-5", "--out", "results.jsonl")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["attack"] for r in records] == ["natural", "pgd-5"]
    assert (tmp_path / "results.jsonl").read_text() == done.stdout
    assert records[0]["n"] == 90 and records[0]["method"] == "bs" and records[0]["flags"]["gamma"] == 1.0
    assert records[1]["eps"] == 0.1 and records[1]["attack_parameters"]["step"] == pytest.approx(0.1 / 4)
    table = bsk("compare", input=done.stdout).stdout.splitlines()
    assert table[0].split("\t")[:5] == ["name", "model", "eps", "natural", "robust"] or len(table) == 2
    assert float(table[1].split("\t")[4]) == records[1]["accuracy"]


def test_train_prints_one_record_and_progress_goes_to_stderr(call, toy: Path, tmp_path: Path) -> None:
    done = call("train", "--data", toy, *TRAIN, "--method", "fast-at", "--gamma", "1", "--step", "8/255")
    record = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1 and record["checkpoint"] == "runs/toy-fast-at-1.safetensors"
    assert record["flags"]["step"] == 8 / 255
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == ["epoch 1", "epoch 2"]
    again = call("train", "--data", toy, *TRAIN, "--method", "fast-at", "--step", "8/255", "--quiet")
    assert again.stderr == "" and json.loads(again.stdout)["checkpoint_sha256"] == record["checkpoint_sha256"]


def test_selection_on_test_images_is_visible_from_training_to_table(call, toy: Path) -> None:
    words = ["--select", "test", "--log-divergence", "--method", "fast-trades", "--out", "t.safetensors"]
    done = call("train", "--data", toy, *TRAIN, *words)
    record = json.loads(done.stdout)
    assert (
        record["selected"] == "best-on-test" and record["flags"]["select"] == "test" and ", test PGD-20 " in done.stderr
    )
    evaluated = call("evaluate", "t.safetensors", "--data", toy, "--attack", "pgd-2", "--no-checks", "--out", "r.jsonl")
    assert json.loads(evaluated.stdout)["selected"] == "best-on-test"
    assert "best-on-test epoch" in call("compare", "r.jsonl", "--format", "table").stdout


def test_attack_writes_images_that_fool(call, toy: Path, trained: Path, tmp_path: Path) -> None:
    words = ["--attack", "pgd-5", "--limit", "30", "--out", "adv.safetensors", "--quiet"]
    record = json.loads(call("attack", trained, "--data", toy, *words).stdout)
    tensors = load_file(tmp_path / "adv.safetensors")
    assert tensors["images"].shape == (30, 1, 8, 8) and tensors["images"].dtype == torch.float32
    assert tensors["images"].min() >= 0 and tensors["images"].max() <= 1
    right = tensors["predictions"] == tensors["labels"]
    assert float(right.float().mean()) == pytest.approx(record["accuracy"])
    clean = load_file(toy)
    by_index = {int(i): image for i, image in zip(clean["test_index"], clean["test_images"], strict=True)}
    for index, image in zip(tensors["index"], tensors["images"], strict=True):
        assert (image - by_index[int(index)] / 255).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("train --eps 8/0", 2, "8/0 is not a number"),
        ("train --eps -8/255", 2, "--eps -0.0313"),
        ("train --eps 31", 2, "--eps 31"),
        ("train --step 10", 2, "--step 10: must be at most 1, in pixels of [0, 1]; write 2/255"),
        ("evaluate m.safetensors --attack pgd-20 --step 8", 2, "--step 8: must be at most 1, in pixels"),
        ("train --method BS-alone", 2, "did you mean bs-alone"),
        ("train --eps nan", 2, "not a number"),
        ("train --eps 0", 2, "--eps 0"),
        ("train --method tradse", 2, "did you mean trades, or module:function?"),
        ("train --model resnet81", 2, "did you mean resnet18"),
        ("train --start bakcward", 2, "did you mean backward?"),
        ("train --method natural --start zero", 2, "--start: natural has no start; it has no hyper-parameters"),
        ("train --method fast-at --beta 1", 2, "--beta: fast-at has no beta; it has start, steps, step, gamma"),
        ("train --method fast-at --set beta=1", 2, "--beta: fast-at has no beta; it has start, steps, step, gamma"),
        ("train --method bs --noise 1", 2, "--noise: bs has no noise; it has start, step, steps, gamma, beta"),
        ("train --inner kl", 2, "--inner"),
        ("train --set gamma", 2, "--set gamma: expected NAME=VALUE"),
        ("train --set gamma=1 --gamma 2", 2, "gamma is set twice"),
        ("train --set gama=1", 2, "--gama: bs has no gama; it has start"),
        ("train --gamma", 2, "--gamma: expected a value, as --gamma 1"),
        ("train --step --quiet", 2, "--quiet"),
        ("train --step x", 2, "--set step=x: expected a number, like its default eps"),
        ("train --steps 1.5", 2, "--set steps=1.5: expected a whole number"),
        ("train --method liet --no-ramp=3", 2, "--no-ramp"),
        ("train --method", 2, "--method"),
        ("train --schedule cycle", 2, "did you mean cyclic?"),
        ("train --precision fp8", 2, "--precision fp8"),
        ("train --select tset", 2, "did you mean test?"),
        ("train --lr 0", 2, "--lr 0"),
        ("train --beta -1", 2, "--beta -1"),
        ("train --awp inf", 2, "--awp inf"),
        ("train --warmup inf", 2, "--warmup inf"),
        ("train --weight-decay inf", 2, "--weight-decay inf"),
        ("train --weight-decay nan", 2, "greater than or equal to 0"),
        ("train --seed 99999999999999999999", 2, "more than 64 bits"),
        ("evaluate m.safetensors --seed -99999999999999999999", 2, "more than 64 bits"),
        ("train --epochs 0", 2, "epochs"),
        ("train --device tpu", 2, "--device tpu"),
        ("train --out m.pt", 2, "must end in .safetensors"),
        ("train --gama 1", 2, "--gama"),
        ("trian", 2, "trian"),
        ("evaluate m.safetensors --attack pdg-20", 2, "did you mean pgd-20?"),
        ("evaluate m.safetensors --attack pgd-5,", 2, "no such attack"),
        ("evaluate m.safetensors --eps 2", 2, "--eps 2"),
        ("evaluate m.safetensors --split tset", 2, "did you mean test?"),
        ("evaluate missing.safetensors", 3, "missing.safetensors: no such file"),
        ("evaluate .", 3, "is a folder"),
        ("prepare-data cifar-10", 2, "did you mean cifar10?"),
        ("compare missing.jsonl", 3, "missing.jsonl"),
    ],
)
def test_a_usage_error_is_one_line_with_its_exit_code(call, toy: Path, tmp_path: Path, words, code, said) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(toy, tmp_path / "data" / "cifar10.safetensors")
    (tmp_path / "m.safetensors").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    done = call(*words.split(), check=code)
    assert said in done.line and done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_invalid_files_are_one_line_errors(call, toy: Path, trained: Path, tmp_path: Path) -> None:
    whole = trained.read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[:-7])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    save_file({"w": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    (tmp_path / "huge.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    for name, said in [
        ("torn", "not a whole safetensors file"),
        ("empty", "not a whole safetensors file"),
        ("foreign", "not written by bsk"),
        ("huge", "not a whole safetensors file"),
    ]:
        line = call("evaluate", f"{name}.safetensors", "--data", toy, check=3).line
        assert f"{name}.safetensors" in line and said in line
    line = call("evaluate", toy, "--data", toy, check=3).line
    assert "expected a model or training-state file, found a data file" in line
    line = call("evaluate", trained, "--data", trained, check=3).line
    assert "m.safetensors" in line


def test_another_kind_of_file_is_not_overwritten(call, toy: Path, trained: Path, tmp_path: Path) -> None:
    before = trained.read_bytes()
    line = call("attack", trained, "--data", toy, "--out", trained, check=3).line
    assert "m.safetensors: exists and is no attack file; choose another --out, or --force" in line
    assert "no data file" in call("prepare-data", "digits", "--out", trained, check=3).line
    assert trained.read_bytes() == before
    for _ in range(2):
        call("prepare-data", "digits", "--out", "d.safetensors")


def test_a_checkpoint_for_other_classes(call, trained: Path, tmp_path: Path) -> None:
    call("prepare-data", "digits")
    line = call("evaluate", trained, "--dataset", "digits", check=3).line
    assert "trained for 3 classes, digits.safetensors has 10; pass --data" in line


def test_the_default_data_is_named_with_the_next_step(call) -> None:
    line = call("train", check=3).line
    assert "data/cifar10.safetensors: no such file; make it with: bsk prepare-data cifar10" in line


def test_an_output_folder_that_cannot_be_written(call, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    line = call("train", "--data", toy, *TRAIN, "--out", "file/m.safetensors", check=3).line
    assert "cannot write" in line
    line = call("train", "--data", toy, *TRAIN, "--out", "/proc/none/m.safetensors", check=3).line
    assert "/proc/none" in line


def test_a_closed_pipe_is_silent(trained: Path, toy: Path, tmp_path: Path) -> None:
    many = " ".join([str(trained)] * 2)
    script = f"set -o pipefail; '{sys.executable}' -m bsk evaluate {many} --data {toy} --attack natural --quiet | true"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


SIGNALLED = """
import os, sys
from bsk.cli.app import main

def write(text, whole=sys.stderr.write):
    if "epoch 1:" in text:
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    return whole(text)

sys.stderr.write = write
main()
"""


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_saves_and_the_same_command_resumes(toy: Path, tmp_path: Path, number, code) -> None:
    words = ["train", "--data", toy, *TRAIN, "--epochs", "4", "--method", "fast-at", "--out", "m.safetensors"]
    command = [sys.executable, "-c", SIGNALLED, *map(str, words)]
    run = functools.partial(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, check=False)
    stopped = run(env={**os.environ, "SIGNAL": str(int(number))})
    assert (stopped.returncode, stopped.stdout) == (code, "")
    assert "epoch 2:" not in stopped.stderr and "the same command resumes from there" in stopped.stderr
    assert not list(tmp_path.glob(".*tmp"))
    done = run(env={**os.environ, "SIGNAL": "0"})
    assert json.loads(done.stdout)["last_epoch"] == 4 and "epoch 1:" not in done.stderr


def test_a_full_disk_loses_nothing(call, toy: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can make a small file system")
    try:
        line = call("train", "--data", toy, *TRAIN, "--model", "cnn-32", "--out", small / "m.safetensors", check=3)
        assert "cannot write" in line.stderr.splitlines()[-1] and "Traceback" not in line.stderr
        assert not (small / "m.safetensors").exists() and not list(small.glob(".*"))
        (small / "m.jsonl").unlink()
        (small / "filler").write_bytes(bytes(64 << 10))
        line = call("train", "--data", toy, *TRAIN, "--out", small / "m.safetensors", check=3).line
        assert "m.jsonl: cannot write: No space left on device; free some space" in line
        assert (small / "m.jsonl").read_bytes() == b""
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.slow
def test_progress_is_drawn_on_a_terminal_only(toy: Path, tmp_path: Path) -> None:
    main, side = pty.openpty()
    words = ["train", "--data", str(toy), *TRAIN, "--out", "m.safetensors"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-m", "bsk", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=side, env=environment
    )
    os.close(side)
    shown = b""
    while True:
        try:
            chunk = os.read(main, 4096)
        except OSError:
            break
        shown += chunk
    assert process.wait() == 0 and process.stdout is not None
    assert json.loads(process.stdout.read())["kind"] == "end"
    assert b"\x1b[" in shown and b"epoch 2" in shown


def test_python_m_bsk_version_and_bare_call(bsk) -> None:
    assert bsk("--version").stdout == "bsk 0.2.0.dev0\n"
    assert "Usage" in bsk("--help").stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["train", "--data", "none.safetensors"],
        ["attack", "none.safetensors", "--out", "a.safetensors"],
        ["evaluate", "none.safetensors"],
        ["starts", "none.safetensors"],
        ["plan", "jobs.tsv"],
    ],
)
def test_torch_is_imported_with_garbage_collection_paused(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "jobs.tsv").write_text("evaluate\tr.jsonl\tnone.safetensors\n")
    code = f"""
import gc, sys
from bsk.cli.app import main

class Watch:
    def find_spec(name, path, target=None):
        if name == "torch":
            print("torch loads, collector on:", gc.isenabled(), file=sys.stderr)

sys.meta_path.insert(0, Watch)
sys.argv = ["bsk", *{words!r}]
try:
    main()
finally:
    print("then on:", gc.isenabled(), gc.get_freeze_count() > 100_000, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert lines[0] == "torch loads, collector on: False" and lines[-1] == "then on: True True", done.stderr


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_file_has_one_writer(call, bsk, toy: Path, trained: Path, tmp_path: Path, force: list[str]) -> None:
    prepared, attacked = tmp_path / "d.safetensors", tmp_path / "a.safetensors"
    attack = ["attack", trained, "--data", toy, "--attack", "fgsm", "--out", attacked, *force]
    for path, words in ((prepared, ["prepare-data", "digits", "--out", prepared, *force]), (attacked, attack)):
        with only_writer(path):
            line = call(*words, check=3).line
        assert line == f"bsk: {path}: another bsk is writing it; wait for it or choose another --out"
        assert not path.exists()
    (tmp_path / ".a.safetensors.lock").touch()  # of one that was killed
    bsk(*attack)
    assert sorted(each.name for each in tmp_path.glob("*a.safetensors*")) == ["a.safetensors"]
    assert not list(tmp_path.glob(".*.lock"))


def test_an_epochs_line_has_all_that_was_validated() -> None:
    record = {"epoch": 3, "lr": 0.1, "loss": 1.5, "val_natural": 0.5, "val_robust": 0.25, "images_per_second": 300.0}
    record |= {"seconds": 2.0, "validation_seconds": 1.0}
    begin, end = (
        "epoch 3: lr 0.1000, loss 1.500, val natural 50.0%, PGD-20 25.0%, ",
        "300 images/s, 2.0 s + 1.0 s validation",
    )
    assert epoch_line(record) == begin + end
    both = {**record, "ema_val_natural": 0.6, "ema_val_robust": 0.3, "test_robust": 0.2}
    assert epoch_line(both) == begin + "averaged 30.0%, test PGD-20 20.0%, " + end
