"""Benchmarks of evaluations against the plain loop, another build, other packages, and their passes alone.

`python -m benchmarks.evaluations CHECKOUT NETS --data F --attack A --limit N` compares with another build, with
`--search fp32,bf16` in both precisions and with `--peer` also with pyautoattack, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bsk
from benchmarks.autoattack import ours, theirs
from benchmarks.material import PUBLISHED, Material, Model, published
from benchmarks.processes import over_processes
from benchmarks.timing import say
from bsk.data.store import Split, open_data
from bsk.perturb.radius import step_at
from bsk.values import number

HERE = Path(__file__).parents[1]
PLAIN = ["--no-early-stop"]


def attacks(given: Material, other: Path | None) -> None:
    """Time attacks on a small network and on one that `bsk train` made; `other` is a checkout of another build."""
    small, trained = given.small(), given.trained()
    limit = 5.0 if given.real else 1.5
    for model in (small, trained):
        early_stop(given, model, "pgd-100", 300, 5, 0.60)  # fewer images do not fill the calls of the last steps
        early_stop(given, model, "pgd-1000", 64, 1, 0.12)
        pgd_of_torchattacks(model, given.images(64))
        several_radii(given, model)
        if other is not None:
            for attack in ("pgd-100", "screen"):
                words = [*model.words(given.data), "--attack", attack, "--limit", "64"]
                beside_build(f"{attack}, {model.name}, 64 images", words, other)
    autoattack(small, given.images(64), 2, limit)
    autoattack(trained, given.images(64), 1, 1.5)
    runs = [with_bare(small, given.images(64), "rays", queries=1000) for _ in range(3)]
    over = statistics.median(seconds / alone for seconds, _, alone in runs)
    say(f"rays / its bare forward passes, {small.name}, 64 images", over, "<= 1.4", over <= 1.4)
    pairs = [[over_processes(small.path, given.data.path, world, 256, small.eps) for world in (1, 2)] for _ in range(2)]
    faster, detail = statistics.median(one / two for one, two in pairs), "{:.1f} s and {:.1f} s".format(*pairs[0])
    say(f"one process with one thread / two, screen, {small.name}, 256 images", faster, ">= 1.7", faster >= 1.7, detail)


def evaluated(words: Sequence[str], checkout: Path = HERE) -> dict[str, Any]:
    """Return the record of `bsk evaluate` with these arguments, run from a checkout."""
    command = [sys.executable, "-m", "bsk", "evaluate", *words, "--no-checks", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(command, env=environment, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True)
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def early_stop(given: Material, model: Model, attack: str, n: int, pairs: int, most: float) -> None:
    """Time PGD that stops when an iterate repeats, against the plain loop."""
    words = [*model.words(given.data), "--attack", attack, "--limit", str(n)]
    found = [(evaluated(words), evaluated([*words, *PLAIN])) for _ in range(pairs)]
    _row(f"{attack} / without early stop, {model.name}, {n} images", found, most)


def beside_build(
    name: str,
    words: Sequence[str],
    other: Path,
    pairs: int = 5,
    most: float = 1.03,
    searches: Sequence[str] = ("fp32",),
    peer: Callable[[], tuple[float, int]] | None = None,
) -> None:
    """Time an attack by each search, in turns with another build and perhaps a peer, on the same model and data files.

    `peer` evaluates the same images with another package, and returns its seconds and how many images stand.
    """
    turns: list[tuple[dict[str, Any], list[dict[str, Any]], tuple[float, int] | None]] = []
    for _ in range(pairs):
        theirs = evaluated(words, other)
        mine = [evaluated([*words, "--search", search]) for search in searches]
        turns.append((theirs, mine, peer() if peer else None))
    for search, found in zip(searches, zip(*(mine for _, mine, _ in turns), strict=True), strict=True):
        what = name if search == "fp32" else f"{name}, {search}"
        _row(f"{what}: this build / the other", list(zip(found, (turn[0] for turn in turns), strict=True)), most)
        beside = [(turn[2], record) for turn, record in zip(turns, found, strict=True) if turn[2]]
        if beside:
            ratios = sorted(seconds / record["seconds"] for (seconds, _), record in beside)
            seconds = statistics.median(seconds for (seconds, _), _ in beside)
            faster = statistics.median(ratios)
            detail = f"{ratios[0]:.3f} to {ratios[-1]:.3f}; {seconds:.2f} s; {beside[0][0][1]} stand"
            say(f"{what}: the peer / this build", faster, ">= 1.00", faster >= 1, detail)


def _row(what: str, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], most: float) -> None:
    """Print the ratio of seconds of each pair of records, ours first, and whether all outcomes are equal."""
    ratios = sorted(mine["seconds"] / base["seconds"] for mine, base in pairs)
    over, equal = statistics.median(ratios), len({record["correct"] for pair in pairs for record in pair}) == 1
    seconds = [statistics.median(record["seconds"] for record in side) for side in zip(*pairs, strict=True)]
    mine, base = pairs[-1]
    passes = [record["forward_passes"] + record["backward_passes"] for record in (mine, base)]
    detail = f"{ratios[0]:.3f} to {ratios[-1]:.3f}; {seconds[0]:.2f} s and {seconds[1]:.2f} s; "
    detail += f"outcomes {'equal' if equal else 'DIFFER'}; "
    detail += f"{mine['accuracy']:.1%} stand; {passes[0] / passes[1]:.3f} of its passes"
    say(what, over, f"<= {most:.2f}", over <= most and equal, detail)


def several_radii(given: Material, model: Model, n: int = 200, repeats: int = 3) -> None:
    """Time three radii in one run, from either end, against each alone; count the verdicts that differ."""
    radii = [model.eps / 4, model.eps / 2, model.eps]
    ways: dict[str, dict[str, Any]] = {f"{eps:.3g}": {"eps": eps} for eps in radii}
    ways |= {"three radii": {"eps": radii}, "three radii, largest first": {"eps": radii, "largest_first": True}}
    for attack in ("pgd-100", "apgd-ce"):
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        found: dict[str, list[bsk.Evaluation]] = {}
        for turn in range(repeats + 1):  # the first one warms up
            for way, more in ways.items():
                start = time.perf_counter()
                evaluated = bsk.evaluate(model.model, data=given.data, attack=attack, limit=n, progress=False, **more)
                found[way] = evaluated if isinstance(evaluated, list) else [evaluated]
                seconds[way] += [time.perf_counter() - start] if turn else []
        alone = [found[way][0] for way in ways if len(found[way]) == 1]
        for way in list(ways)[-2:]:
            told = sorted(found[way], key=lambda each: each.record["eps"])
            differ = sum(int((one.correct != own.correct).sum()) for one, own in zip(told, alone, strict=True))
            passes = sum(each.record["forward_passes"] for each in told)
            for one, own in zip(list(ways)[:3], alone, strict=True):
                over = statistics.median(a / b for a, b in zip(seconds[way], seconds[one], strict=True))
                what = f"{attack}, {way} / {one} alone, {model.name}, {n} images"
                detail = (
                    f"{passes / own.record['forward_passes']:.2f} of its passes; {differ} of {3 * n} verdicts differ"
                )
                say(what, over, "<= 1.6", over <= 1.6, detail)


def pgd_of_torchattacks(model: Model, images: Split) -> None:
    """Time PGD-100 against torchattacks, with the same start and steps; torchattacks judges only the last iterate."""
    try:
        what = f"torchattacks {version('torchattacks')} PGD / pgd-100, {model.name}, {len(images.labels)} images"
        import torchattacks
    except (PackageNotFoundError, ImportError) as error:
        print(f"torchattacks: left out, {error}; run pip install --no-deps torchattacks", flush=True)
        return
    x, y = images.images.float() / 255, images.labels
    attack = torchattacks.PGD(
        model.model, eps=model.eps, alpha=step_at(2 / 255, model.eps), steps=100, random_start=False
    )
    pairs = [(_timed(attack, x, y), ours(model.model, images, model.eps, "pgd-100")) for _ in range(5)]
    faster = statistics.median(their / our for (their, _), (our, _, _) in pairs)
    (their, x_adv), (our, we_leave, _) = pairs[-1]
    with torch.no_grad():
        they_leave = int((model.model(x_adv).argmax(dim=1) == y).sum())
    say(what, faster, ">= 1.0", faster >= 1.0, f"{their:.2f} s and {our:.2f} s; {they_leave} and {we_leave} stand")


def _timed(attack: Any, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    start = time.perf_counter()
    x_adv: Tensor = attack(x, y)
    return time.perf_counter() - start, x_adv


def autoattack(model: Model, images: Split, pairs: int, least: float) -> None:
    """Time AutoAttack against the authors' code (it should be `least` times as fast) and against its passes alone."""
    name = f"{model.name}, {len(images.labels)} images, {round(model.eps * 255)}/255"
    runs = [(theirs(model.model, images, model.eps), with_bare(model, images)) for _ in range(pairs)]
    faster = statistics.median(their / our for (their, _), (our, _, _) in runs)
    over = statistics.median(our / alone for _, (our, _, alone) in runs)
    (their, they_leave), (our, we_leave, alone) = runs[0]
    detail = f"{their:.1f} s and {our:.1f} s; {they_leave} and {we_leave} stand"
    say(f"pyautoattack / autoattack, {name}", faster, f">= {least}", faster >= least, detail)
    say(f"autoattack / its bare passes, {name}", over, "<= 2.0", over <= 2.0, f"{our:.1f} s and {alone:.1f} s")


def with_bare(model: Model, images: Split, name: str = "autoattack", **flags: int) -> tuple[float, int, float]:
    """Return the seconds of an attack of bsk, the number of standing examples, and the seconds of its passes alone."""
    seconds, standing, calls = ours(model.model, images, model.eps, name, **flags)
    return seconds, standing, calls.bare(model.model)


def main() -> None:
    """Compare an attack on networks with the same attack in another build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="another build")
    parser.add_argument("networks", nargs="+", help=f"checkpoints, or ID:FILE of {', '.join(PUBLISHED)}")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--attack", default="pgd-100")
    parser.add_argument("--search", default="fp32", help="of this build; several with commas")
    parser.add_argument("--peer", action="store_true", help="time pyautoattack on the same images")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--most", type=float, default=1.03, help="highest ratio of seconds that is ok")
    given = parser.parse_args()
    for network in given.networks:
        kind, path = network.split(":") if ":" in network else ("", network)
        path = Path(path).resolve()
        named = ["--model", kind, "--weights", str(path)] if kind else [str(path)]
        words = [*named, "--data", str(given.data.resolve()), "--eps", given.eps, "--attack", given.attack]
        words += ["--limit", str(given.limit)]
        peer = None
        if given.peer:
            model = published(kind, path) if kind else bsk.load(path, device="cpu")
            split = open_data(given.data).split("test", given.limit)
            peer = partial(theirs, model, split, number(given.eps))
        name, searches = f"{given.attack}, {path.stem}, {given.limit} images", given.search.split(",")
        beside_build(name, words, given.checkout, given.pairs, given.most, searches, peer)


if __name__ == "__main__":
    main()
