"""Search for the most robust training at the cost of 15 epochs of `bs`, by successive halving.

Usage: python -m benchmarks.recipe data/cifar10-medium.safetensors out/recipe [JOBS]

Many candidates are trained briefly on few images, the best of them longer, then on all images, and the last ones with
three seeds. Candidates are ranked by CW-20 on the val split: PGD-20 maximises the cross entropy, and prefers methods
that flatten only this loss. A candidate whose natural accuracy is below that of `bs`, or that diverges, is ranked last.
The search uses no test images; on these, `bsk evaluate` judges the last candidates once. JOBS trainings run at a time,
each with one thread. The same command resumes an interrupted search; what OUT/search.jsonl lists is not repeated, so
this file alone goes to another machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from bsk import __version__
from bsk.data.store import open_data
from bsk.errors import DivergedError
from bsk.records import jsonl as records
from bsk.training.bound import bind
from bsk.training.profile import profile

EPS = "0.031"
BASE, EPOCHS = "bs", 15  # the budget: the passes per image of this method in so many epochs
COMMON = ["--model", "resnet18-16", "--eps", EPS, "--threads", "1"]
ATTACK = "cw-20"
NOISE = 0.015  # standard deviation of natural accuracies on 1,000 images


@dataclass(frozen=True)
class Rung:
    """A round of the search: number of training images, fraction of the budget, candidates kept after it, and seeds."""

    images: int | None
    share: float
    keep: int
    seeds: tuple[int, ...] = (1,)


RUNGS = (Rung(6_000, 1 / 3, 14), Rung(9_000, 1.0, 6), Rung(None, 1 / 3, 3), Rung(None, 1.0, 0, (1, 2, 3)))

METHODS = [
    "fast-at", "fast-at-plus", "fast-trades", "fast-trades-2", "bs-at", "bs-alone", "n-fgsm", "liet",
    "nuat", "gat", "fgsm-pgi", "fgsm-mep", "zero-grad", "multi-grad", "ssat", "rs-cs",
    "elle", "rs-aaer", "n-aaer", "uap", "cuap", "pco", "atas", "gradalign",
    "free-at", "at", "trades", "mart", "dynamic-at", "llr",
]  # fmt: skip
LOOP = {
    "ema": "--ema 0.999",
    "smooth": "--label-smoothing 0.1",
    "awp": "--awp 0.005",
    "decay": "--weight-decay 0.001",
    "cosine": "--schedule cosine --warmup 1",
    "batch-64": "--batch-size 64",
    "flip": "--augment flip",
    "light": "--weight-decay 0.0002",
    "lr-0.1": "--lr 0.1",
}
OWN = {
    "bs": {"gamma-2": "--gamma 2", "beta-6": "--beta 6", "beta-15": "--beta 15", "step-12": "--step 0.0465"},
    "n-fgsm": {"noise-1": "--noise 1", "step-12": "--step 0.0465"},
}
CANDIDATES: dict[str, str] = {BASE: ""} | dict.fromkeys(METHODS, "")
CANDIDATES |= {f"{method} {name}": flags for method in ("bs", "liet", "n-fgsm") for name, flags in LOOP.items()}
CANDIDATES |= {f"{method} {name}": flags for method, own in OWN.items() for name, flags in own.items()}
CANDIDATES |= {f"{method} ema smooth": f"{LOOP['ema']} {LOOP['smooth']}" for method in ("bs", "liet", "n-fgsm", "gat")}


def passes(name: str) -> float:
    """Return the passes per image in an epoch, forward plus backward."""
    method, flags = name.split()[0], CANDIDATES[name].split()
    given = dict(zip((flag.removeprefix("--") for flag in flags[::2]), flags[1::2], strict=True))
    own = {key: value for key, value in given.items() if key in ("gamma", "beta", "step", "noise")}
    bound = bind(method, float(EPS), {key: float(value) for key, value in own.items()})
    found = profile(bound, (3, 32, 32), 10)
    total = found.passes + found.trained if "awp" in given else found.passes
    return (total.forward + total.to_input + total.full) * bound.replays


def epochs(name: str, share: float) -> int:
    """Return the number of epochs nearest to this fraction of the budget."""
    return max(1, round(share * EPOCHS * passes(BASE) / passes(name)))


def trained(rung: int, name: str, seed: int, data: str, out: Path) -> dict[str, Any]:
    """Train a candidate, evaluate it on val, and return its line for the log."""
    images, flags = RUNGS[rung].images, CANDIDATES[name].split()
    line = {"rung": rung, "name": name, "seed": seed, "flags": " ".join(flags), "images": images}
    path = out / f"{rung}" / f"{name.replace(' ', '_')}_{seed}.safetensors"
    words = ["--method", name.split()[0], "--epochs", str(epochs(name, RUNGS[rung].share)), *flags, *COMMON]
    words += [] if "--schedule" in flags else ["--schedule", "cyclic"]
    words += [] if "--lr" in flags else ["--lr", "0.2"]
    words += ["--limit", str(images)] if images else []
    try:
        record = json.loads(bsk(["train", "--data", data, *words, "--seed", str(seed), "--out", str(path)]))
    except subprocess.CalledProcessError as error:
        if error.returncode != DivergedError.exit_code:
            raise
        return {**line, "diverged": True, "val_robust": 0.0, "val_natural": 0.0, "version": __version__}
    kind = "ema_" if "--ema" in flags else ""  # of averaged weights
    weights = path.with_suffix(".ema.safetensors") if kind else path
    words = ["--data", data, "--split", "val", "--attack", f"natural,{ATTACK}", "--threads", "1", "--no-checks"]
    lines = bsk(["evaluate", str(weights), *words, "--out", str(path.with_suffix(".eval.jsonl"))]).splitlines()
    accuracy = {line["attack"]: line["accuracy"] for line in map(json.loads, lines)}
    return {
        **line,
        "epochs": record["last_epoch"], "passes": passes(name) * record["last_epoch"],
        "val_robust": accuracy[ATTACK], "val_natural": accuracy["natural"],
        "val_pgd20": record[f"{kind}val_robust"],
        "precision": record["flags"]["precision"], "device": record["device"], "version": record["version"],
    }  # fmt: skip


def bsk(words: Sequence[str]) -> str:
    """Run a command of bsk and return its stdout."""
    return subprocess.run(
        [sys.executable, "-m", "bsk", *words, "--quiet"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def ranked(scores: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the candidates by decreasing robust accuracy, those with less natural accuracy than `bs` last."""
    least = scores[BASE][1] - 2 * NOISE
    return sorted(scores, key=lambda name: (scores[name][1] < least, -scores[name][0]))


def search(data: str, out: Path, jobs: int = 1) -> None:
    """Run all rounds; append one line per training to OUT/search.jsonl and print the ranking of each round."""

    def made(each: tuple[int, str, int]) -> dict[str, Any]:
        line = trained(*each, data, out)
        records.append(log, line)
        return line

    names, log = list(CANDIDATES), out / "search.jsonl"
    known = {(line["rung"], line["name"], line["seed"]): line for line in (records.read(log) if log.exists() else [])}
    for number, rung in enumerate(RUNGS):
        wanted = [(number, name, seed) for seed, name in product(rung.seeds, names)]
        missing = [each for each in wanted if each not in known]
        with ThreadPoolExecutor(jobs) as pool:
            known |= zip(missing, pool.map(made, missing), strict=True)
        found = {name: [known[number, name, seed] for seed in rung.seeds] for name in names}
        scores = {
            name: (mean(line["val_robust"] for line in lines), mean(line["val_natural"] for line in lines))
            for name, lines in found.items()
        }
        order = ranked(scores)
        for name in order:
            print(number, name, *(f"{100 * value:.1f}" for value in scores[name]), sep="\t", flush=True)
        if rung.keep:
            names = order[: rung.keep]
            names += [] if BASE in names else [BASE]


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit("usage: python -m benchmarks.recipe DATA.safetensors FOLDER [JOBS]")
    open_data(Path(sys.argv[1]))
    search(sys.argv[1], Path(sys.argv[2]), int((sys.argv[3:] or ["1"])[0]))
