"""Search for the most robust training at the cost of 15 epochs of `bs`, by successive halving.

Usage: python -m benchmarks.recipe data/cifar10-medium.safetensors out/recipe

Many candidates are trained briefly on few images, the best of them longer, then on all images, and the last ones with
three seeds. Candidates are ranked by PGD-20 on the val split; only the last ones are evaluated on test images, once. A
candidate whose natural accuracy is below that of `bs` is ranked last. The same command resumes an interrupted search.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from bsk.data.store import open_data
from bsk.records import jsonl as records
from bsk.training.bound import bind
from bsk.training.profile import profile

EPS = "0.031"
BASE, EPOCHS = "bs", 15  # the budget: the passes per image of this method in so many epochs
COMMON = ["--model", "resnet18-16", "--eps", EPS, "--lr", "0.2", "--precision", "bf16", "--threads", "1"]
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


def trained(name: str, rung: int, seed: int, data: str, out: Path) -> dict[str, Any]:
    """Train a candidate, unless that has been done, and return its record."""
    images, share = RUNGS[rung].images, RUNGS[rung].share
    path = out / f"{rung}" / f"{name.replace(' ', '_')}_{seed}.safetensors"
    done = path.with_suffix(".train.json")
    if not done.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        words = ["train", "--data", data, "--method", name.split()[0], "--epochs", str(epochs(name, share))]
        words += ["--schedule", "cyclic"] if "--schedule" not in CANDIDATES[name] else []
        words += [*CANDIDATES[name].split(), *COMMON, "--seed", str(seed), "--out", str(path)]
        words += ["--limit", str(images)] if images else []
        partly = done.with_suffix(".tmp")
        partly.write_text(bsk(words))
        partly.rename(done)
    record: dict[str, Any] = json.loads(done.read_text())
    return record


def bsk(words: Sequence[str]) -> str:
    """Run a command of bsk and return its stdout."""
    return subprocess.run(
        [sys.executable, "-m", "bsk", *words, "--quiet"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def score(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return robust and natural accuracy on val, for averaged weights if there are any."""
    kind = "ema_" if "ema_val_robust" in record else ""
    return record[f"{kind}val_robust"], record[f"{kind}val_natural"]


def ranked(scores: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the candidates by decreasing robust accuracy, those with less natural accuracy than `bs` last."""
    least = scores[BASE][1] - 2 * NOISE
    return sorted(scores, key=lambda name: (scores[name][1] < least, -scores[name][0]))


def search(data: str, out: Path) -> None:
    """Run all rounds; append one line per training to OUT/search.jsonl and print the ranking of each round."""
    names, log = list(CANDIDATES), out / "search.jsonl"
    known = {(line["rung"], line["name"], line["seed"]) for line in (records.read(log) if log.exists() else [])}
    for number, rung in enumerate(RUNGS):
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for seed in rung.seeds:
            for name in names:
                record = trained(name, number, seed, data, out)
                robust, natural = score(record)
                found[name].append((robust, natural))
                line = {
                    "rung": number, "name": name, "seed": seed, "flags": CANDIDATES[name], "images": rung.images,
                    "epochs": record["last_epoch"], "passes": passes(name) * record["last_epoch"],
                    "val_robust": robust, "val_natural": natural, "version": record["version"],
                }  # fmt: skip
                if (number, name, seed) not in known:
                    records.append(log, line)
        scores = {name: (mean(r for r, _ in each), mean(n for _, n in each)) for name, each in found.items()}
        order = ranked(scores)
        for name in order:
            print(number, name, *(f"{100 * value:.1f}" for value in scores[name]), sep="\t", flush=True)
        if rung.keep:
            names = order[: rung.keep]
            names += [] if BASE in names else [BASE]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m benchmarks.recipe DATA.safetensors FOLDER")
    open_data(Path(sys.argv[1]))
    search(sys.argv[1], Path(sys.argv[2]))
