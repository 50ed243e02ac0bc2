"""`bsk plot` as a shell sees it: files or a pipe in, pictures out, nothing on stdout."""

import json
from pathlib import Path

import pytest

TRAIN = ["--model", "cnn-4", "--epochs", "2", "--batch-size", "32", "--schedule", "cyclic", "--threads", "1"]


@pytest.fixture
def results(call, toy: Path, tmp_path: Path) -> Path:
    """Two seeds of two methods, trained with their divergences and attacked."""
    for method in ("bs", "fast-trades"):
        for seed in (1, 2):
            words = ["--method", method, "--seed", seed, "--out", f"{method}-{seed}.safetensors", "--log-divergence"]
            call("train", "--data", toy, *TRAIN, *words, "--quiet")
            words = ["--data", toy, "--attack", "natural,pgd-2", "--no-checks", "--out", "results.jsonl", "--quiet"]
            call("evaluate", f"{method}-{seed}.safetensors", *words)
    return tmp_path / "results.jsonl"


def test_boxes_and_curves_of_what_was_trained(call, results: Path, tmp_path: Path) -> None:
    done = call("plot", "boxes", "results.jsonl", "--title", "Figure 5", "--out", "a.png", "--out", "a.svg")
    assert (done.stdout, done.stderr) == ("", "")
    text = (tmp_path / "a.svg").read_text()
    assert (
        "<!-- Figure 5 -->" in text and "<!-- bs -->" in text and text.count("<!-- 2 seeds -->") == 2 and "n 90" in text
    )
    logs = [f"{method}-{seed}.jsonl" for method in ("bs", "fast-trades") for seed in (1, 2)]
    done = call(
        "plot",
        "curves",
        *logs,
        "--y",
        "kl_start,kl_ascent",
        "--log",
        "--title",
        "KL",
        "--out",
        "c.svg",
        "--out",
        "c.png",
    )
    assert (done.stdout, done.stderr) == ("", "")
    text = (tmp_path / "c.svg").read_text()
    assert "<!-- fast-trades, after the ascent -->" in text and "<!-- KL -->" in text
    for name in ("a.png", "c.png"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.slow
def test_records_come_from_a_pipe_too(bsk, results: Path, tmp_path: Path) -> None:
    done = bsk("plot boxes --by gamma --out a.svg", input=results.read_text(), check=3)
    assert done.stdout == "" and done.stderr.startswith("bsk: stdin:6: has the same gamma (1) as stdin:2, but another")
    bs = "".join(line + "\n" for line in results.read_text().splitlines() if json.loads(line)["method"] == "bs")
    assert bsk("plot boxes - --by gamma --out a.svg", input=bs).stderr == ""
    assert (tmp_path / "a.svg").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("boxs r.jsonl --out a.png", 2, "plot boxs: no such figure; did you mean boxes?"),
        ("boxes r.jsonl", 2, "plot: no --out; name F.png or F.svg"),
        ("boxes r.jsonl --out a.png --out a.pdf", 2, "--out a.pdf: must end in .png or .svg"),
        ("boxes r.jsonl --y loss --out a.png", 2, "plot boxes: --y and --log are for curves; leave them out"),
        ("radius r.jsonl --by step --out a.png", 2, "plot radius: --by is for boxes and curves; leave it out"),
        ("boxes missing.jsonl --out a.png", 3, "missing.jsonl: cannot read: No such file or directory"),
        ("boxes r.jsonl --out a.png", 3, "plot boxes: no evaluation under attack among the records"),
        ("curves r.jsonl --out a.png", 3, "plot curves: no epochs among the records"),
        ("curves r.jsonl --y a,b,c,d,e,f,g --out a.png", 2, "--y a,b,c,d,e,f,g: expected at most 6 different fields"),
    ],
)
def test_a_usage_error_is_one_line(call, tmp_path: Path, words: str, code: int, said: str) -> None:
    (tmp_path / "r.jsonl").write_text('{"kind": "data"}\n')
    done = call("plot", *words.split(), check=code)
    assert said in done.line and done.stdout == "" and [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_the_radii_of_one_run_are_a_line(call, trained: Path, toy: Path, tmp_path: Path) -> None:
    words = ["--data", toy, "--attack", "natural,pgd-2", "--no-checks", "--eps", "4/255,8/255,16/255"]
    call("evaluate", trained, *words, "--out", "r.jsonl", "--quiet")
    assert call("plot", "radius", "r.jsonl", "--out", "r.svg", "--out", "r.png").stderr == ""
    text = (tmp_path / "r.svg").read_text()
    assert all(f"<!-- {label} -->" in text for label in ("0", "4/255", "8/255", "16/255"))
