"""Random combinations of unusual networks, files, folders and environments.

Each must give the plain network's result, or another one with a message that explains it, or be refused in one line.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bsk.data.store import open_data
from torture.children import Ended, fresh, run
from torture.networks import MEAN, STD, structure
from torture.situation_folders import KINDS, make_folder
from torture.situation_parts import FLAGS, MAY, PROCESS, State, write_weights
from torture.subjects import FailedError

EPS, IMAGES, STEPS = "0.1", 200, 150
RATES = {"0.1": "", "1e-9": "", "1e6": "diverge|not finite|NaN", "1e20": "diverge|not finite|NaN"}
SUBJECTS = {  # subject -> the kinds of parts that may be unusual, and its relative frequency
    "network": (("wrapper", "mode", "output", "normalisation", "dtype", "attack", "run", "environment"), 4),
    "file": (("file", "prefix", "dtype", "normalisation", "name", "wrapper", "attack", "run", "environment"), 4),
    "folder": ((*KINDS, "attack", "environment"), 2),
    "training": (("wrapper", "mode", "output", "rate", "environment"), 1),
}
ALL = {**MAY, **KINDS, "rate": RATES}
FILES = {"out": "r ✓.jsonl", "out twice": "r ✓.jsonl", "attack": "a.safetensors"}  # output files of kinds of runs
PROCESSES = 0.4  # probability that environments are allowed that need a new process


@dataclass(frozen=True)
class Situation:
    """A subject, and for each kind of part the name of the part."""

    subject: str
    parts: Mapping[str, str]

    @property
    def odd(self) -> dict[str, str]:
        """The parts that are not plain."""
        return {kind: name for kind, name in self.parts.items() if name != next(iter(ALL[kind]))}

    def may(self) -> list[str]:
        """Return regular expressions of the messages allowed instead of the plain result."""
        return [text for kind, name in self.odd.items() if (text := ALL[kind][name])]

    def __str__(self) -> str:
        """Return the parts that are not plain, as text."""
        return f"{self.subject}: " + (", ".join(f"{kind} {name!r}" for kind, name in self.odd.items()) or "plain")


def drawn(dice: random.Random) -> Situation:
    """Draw a situation in which one to three kinds of parts are unusual and the others plain."""
    subject = dice.choices(list(SUBJECTS), [often for _, often in SUBJECTS.values()])[0]
    kinds = SUBJECTS[subject][0]
    parts = {kind: next(iter(names)) for kind, names in ALL.items()}
    for kind in dice.sample(kinds, dice.choice((1, 2, 2, 3))):
        names = list(ALL[kind])
        if kind == "environment" and dice.random() > PROCESSES:
            names = [name for name in names if name not in PROCESS]
        parts[kind] = dice.choice(names[1:])
    if (
        subject == "folder" and parts["attack"] == "square"
    ):  # its random draws depend on the index of an image in the source
        parts["attack"] = "fgsm"
    if parts["output"] in ("sigmoid", "softmax") and parts["attack"] not in ("natural", "square"):
        parts["attack"] = "square"  # gradients through another function of the logits give other results
    if parts["run"] == "attack" and "," in parts["attack"]:  # bsk attack takes one attack
        parts["attack"] = "fgsm"
    return Situation(subject, parts)


class Bench:
    """The data, the weights, and the results of the plain network, each measured once."""

    def __init__(self, folder: Path) -> None:
        """Prepare the digits and train the plain network on them, with and without normalisation."""
        self.folder, self.data = folder, folder / "digits.safetensors"
        words = ["prepare-data", "digits", "--test-limit", str(IMAGES), "--out", str(self.data)]
        if (ended := run(words, fresh(folder / "plain"), {})).code:
            raise FailedError(f"prepare-data: {ended.said}")
        self.states = {normalised: _trained(self.data, normalised) for normalised in (False, True)}
        self._known: dict[tuple[object, ...], list[Any]] = {}

    def plain(self, situation: Situation) -> list[Any]:
        """Return the plain network's results: verdicts and accuracies, or the accuracies of a training."""
        parts = situation.parts
        key: tuple[object, ...] = (situation.subject == "training", _normalised(parts), parts["dtype"], parts["attack"])
        key += (parts["rate"],) if situation.subject == "training" else ()
        if key not in self._known:
            self._known[key] = self._measured(situation)
        return self._known[key]

    def _measured(self, situation: Situation) -> list[Any]:
        kept = {kind: situation.parts[kind] for kind in ("dtype", "attack", "rate")}
        plain = {kind: next(iter(names)) for kind, names in ALL.items()} | kept
        if _normalised(situation.parts) and situation.subject != "training":
            plain["normalisation"] = "by flags"
        subject = "training" if situation.subject == "training" else "network"
        place = fresh(self.folder / "plain")
        ended = self.run(Situation(subject, plain), place)
        if ended.code == 4:
            return []
        if ended.code:
            raise FailedError(f"the plain network: {ended.said}")
        found = numbers(ended)
        if subject == "network" and plain["attack"] == "natural" and abs(found[0][1] - self._by_torch(plain)) > 1e-9:
            raise FailedError(f"the plain network has {self._by_torch(plain)} by torch, and {found[0][1]} by bsk")
        return found

    def _by_torch(self, parts: Mapping[str, str]) -> float:
        state = self.state(parts)
        dtype = getattr(torch, parts["dtype"])
        state = {name: each.to(dtype).float() if each.is_floating_point() else each for name, each in state.items()}
        net, split = structure("plain", "none", state).eval(), open_data(self.data).split("test")
        x = (split.images / 255 - MEAN) / STD if _normalised(parts) else split.images / 255
        with torch.no_grad():
            return float((net(x).argmax(1) == split.labels).double().mean())

    def state(self, parts: Mapping[str, str]) -> State:
        """Return the weights that match the normalisation of the parts."""
        return self.states[_normalised(parts)]

    def run(self, situation: Situation, place: Path) -> Ended:
        """Make the files of a situation in a folder and run its commands there; return the end of the last one."""
        parts = situation.parts
        data, made = self.data, Ended(0, "", "")
        if situation.subject == "folder":
            source, flags = make_folder(self.data, place, parts)
            data = place / "mine.safetensors"
            words = ["prepare-data", "folder", "--from", str(source), "--out", str(data), *flags]
            if (made := run(words, place, parts)).code:
                return made
        network = f"build({parts['wrapper']!r}, {parts['normalisation']!r}, {parts['mode']!r}, {parts['output']!r})"
        (place / "case.py").write_text(
            f"from torture.networks import build\n\n\ndef network():\n    return {network}\n"
        )
        if situation.subject == "training":
            return _left(run(_train(data, parts), place, parts), place / "m.safetensors")
        weights = place / parts["name"]
        state = structure(parts["wrapper"], parts["normalisation"], self.state(parts)).state_dict()
        write_weights(state, weights, parts)
        ended = run(_evaluate(data, weights, parts), place, parts)
        ended = run(_evaluate(data, weights, parts), place, parts) if parts["run"] == "out twice" else ended
        if parts["run"] in FILES:
            ended = _left(ended, place / FILES[parts["run"]])
        return Ended(ended.code, ended.out, made.said + ended.said)


def _left(ended: Ended, path: Path) -> Ended:
    """Return the end of a command, turned into exit 1 if its output file is missing."""
    return ended if ended.code or path.exists() else Ended(1, ended.out, f"{ended.said}{path.name} is missing")


def _normalised(parts: Mapping[str, str]) -> bool:
    return parts["normalisation"] != "none"


def _trained(data: Path, normalised: bool) -> State:
    """Return the weights of the plain network after a second of training."""
    torch.manual_seed(0)
    split = open_data(data).split("train")
    images = (split.images / 255 - MEAN) / STD if normalised else split.images / 255
    net = structure("plain", "none").train()
    optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for _ in range(STEPS):
        rows = torch.randint(0, len(images), (128,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(images[rows]), split.labels[rows]).backward()
        optimiser.step()
    return {name: each.detach().clone() for name, each in net.state_dict().items()}


def _evaluate(data: Path, weights: Path, parts: Mapping[str, str]) -> list[str]:
    words = ["attack" if parts["run"] == "attack" else "evaluate", "--model", "case:network", "--data", str(data)]
    words += ["--weights", str(weights), "--eps", EPS, "--attack", parts["attack"]]
    words += ["--queries", "30"] if parts["attack"] == "square" else []
    normalisation = parts["normalisation"]
    words += FLAGS if normalisation in ("by flags", "twice") else []
    words += ["--mean", "76.5", "--std", "102"] if normalisation == "in pixels" else []
    words += ["--mean", "0.3"] if normalisation == "mean alone" else []
    words += ["--mean", "0.3,0.3,0.3", "--std", "0.4,0.4,0.4"] if normalisation == "of three channels" else []
    words += ["--weights-key", "ema"] if parts["file"] == "ema by its key" else []
    words += ["--out", FILES[parts["run"]]] if parts["run"] in FILES else []
    words += ["--batch-size", parts["run"].rpartition(" ")[2]] if parts["run"].startswith("batches") else []
    return [*words, "--quiet"] if parts["run"] == "quiet" else words


def _train(data: Path, parts: Mapping[str, str]) -> list[str]:
    words = ["train", "--data", str(data), "--model", "case:network", "--method", "natural", "--epochs", "2"]
    return [*words, "--limit", "300", "--batch-size", "50", "--lr", parts["rate"], "--out", "m.safetensors"]


def numbers(ended: Ended) -> list[Any]:
    """Return the verdicts and accuracy of each record on stdout, or the two accuracies of a training.

    Raises:
        ValueError: a line is not a record.
    """
    records = [json.loads(line) for line in ended.out.splitlines()]
    if any("kind" not in record for record in records):
        raise ValueError("no record")
    kept = [record for record in records if record["kind"] != "data"]
    return [
        (record["correct"], record["accuracy"])
        if "correct" in record
        else (record["val_natural"], record["last_val_natural"])
        for record in kept
    ]


def judged(situation: Situation, ended: Ended, plain: Sequence[Any]) -> tuple[str, str]:
    """Return the kind of end of a situation, in one or two words, and the failure, or ""."""
    said = ended.said + ended.out
    if "Traceback" in ended.said:
        return "traceback", "a traceback"
    try:
        found = numbers(ended)
    except (ValueError, KeyError):
        return "no record", f"stdout has no records: {ended.out[:200]!r}"
    may = situation.may()
    explained = any(re.search(each, said) for each in may)
    if ended.code:
        line = ended.said.splitlines()[-1] if ended.said else ""
        diverged = situation.subject == "training" and {"rate", "output", "wrapper"} & situation.odd.keys()
        allowed = (2, 3, 4) if diverged else (2, 3)
        silent = situation.parts["environment"] == "closed stderr"
        if ended.code not in allowed or not (line.startswith("bsk: ") or silent):
            return f"exit {ended.code}", "neither a result nor a refusal"
        if ended.code != 4 and not any(re.search(each, line) for each in may) and not (silent and may):
            return "refused", "refused without reason"
        return "refused", ""
    if len(found) != len(plain):
        return "records", f"{len(found)} records, expected {len(plain)}"
    if all(_same(situation, *each) for each in zip(found, plain, strict=True)):
        return "same result", ""
    if explained:
        return "explained", ""
    return "wrong", f"{[each[1] for each in found]} without a message, expected {[each[1] for each in plain]}"


def _same(situation: Situation, found: Any, plain: Any) -> bool:
    """Return whether the results are the same.

    If the images have another order, only accuracies are compared; with another batch size, up to a few images. A
    training with an unusual network may rightly have another result, so it is not compared.
    """
    if situation.subject == "training" and ({"output", "mode"} & situation.odd.keys() or _trains_otherwise(situation)):
        return True
    if situation.subject == "folder" or situation.parts["run"] == "batches of 5":
        return bool(abs(found[1] - plain[1]) < (0.011 if situation.subject != "folder" else 1e-9))
    return bool(found == plain)


def _trains_otherwise(situation: Situation) -> bool:
    return bool(situation.may()) or situation.parts["wrapper"] in ("lazy", "traced", "weight norm", "rounds its input")


def situations(folder: Path, count: int, seed: int, say: Callable[[str], None], alone: int | None = None) -> list[str]:
    """Try `count` situations, or only the one with the number `alone`; return the failures."""
    _warm_up()
    bench = Bench(folder)
    ends: dict[str, Counter[str]] = {subject: Counter() for subject in SUBJECTS}
    wrong = []
    for number in range(count) if alone is None else [alone]:
        situation = drawn(random.Random(f"{seed} {number}"))
        plain = bench.plain(situation)
        ended = bench.run(situation, fresh(folder / "place"))
        how, why = judged(situation, ended, plain)
        ends[situation.subject][how] += 1
        if why:
            wrong.append(
                f"--seed {seed} --alone {number}, {situation}: exit {ended.code}, {why}: {ended.said[-300:]!r}"
            )
        if alone is not None:
            say(f"{situation}: exit {ended.code}, {how}\n{ended.out}{ended.said}")
    for subject, found in ends.items():
        say(f"{subject}: {', '.join(f'{how} {n} times' for how, n in sorted(found.items()))}")
    return wrong


def _warm_up() -> None:
    """Import what the children need."""
    import bsk.cli.app
    import bsk.evaluation.run
    import bsk.training.run  # noqa: F401

    torch.set_num_threads(1)
