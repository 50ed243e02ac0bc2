"""Why a network from elsewhere has a low natural accuracy: common mistakes, each tested on a few images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bsk.attacks.registry import Attack
from bsk.data.batches import to_unit
from bsk.data.store import DataFile
from bsk.evaluation.calls import exact, steady
from bsk.evaluation.diagnostics import Diagnostics
from bsk.evaluation.ledger import Ledger
from bsk.evaluation.settings import EvaluationSettings
from bsk.evaluation.subjects import Subject
from bsk.models.registry import Normalised
from bsk.records.words import plain

N = 256  # images on which the best candidates are tested
FIRST = 32  # images on which all candidates are tested
FEWER = (8, 64)  # FIRST and N for a small budget of passes
TICK = 1e-9  # seconds; lower bound of the time of a pass
SHARE, SHORT = 0.04, 2.0  # budget: this share of the attack's passes, or this many seconds if that is more
FINALISTS = 3  # candidates that are tested on N images
LOW = 0.3  # on a scale from chance to perfect: causes are tried below this, and a cause must reach it
EACH = 3  # least images per class for matching outputs to classes
SEEN, UNSEEN = 5, 0.15  # with fewer than SEEN images per class, matches are uncertain and UNSEEN replaces LOW
ALMOST = 0.85  # a more common preprocessing wins if it gets this fraction of the best hits
GAIN = 0.15  # least gain in accuracy that a cause must explain
SURE = 1e-4  # a p-value below this rules out guessing, to accept a cause
MAYBE = 1e-3  # a p-value below this rules out guessing, to raise no doubt
SHOWN = 3  # classes in a message
BYTE = 1 / 255
NETWORK = "network"  # in a header: the network normalises with its own buffers
GREY = (((0.0,), (1.0,)), ((0.5,), (0.5,)), ((0.0,), (BYTE,)), ((0.1307,), (0.3081,)))  # the last is that of MNIST
COLOUR = (
    ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),  # CIFAR-10
    (
        (0.4914, 0.4822, 0.4465),
        (0.2023, 0.1994, 0.2010),
    ),  # CIFAR-10 in kuangliu's code: the mean of the deviations of single images
    ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),  # CIFAR-100
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet
    ((0.485, 0.456, 0.406), (BYTE, BYTE, BYTE)),  # ImageNet in [0, 255], as in Caffe
)


@dataclass(frozen=True)
class Preprocessing:
    """One way to preprocess images: (x - mean) / std, with the channels reversed first if `turned`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    turned: bool = False


class GuessCheck:
    """Explains a low natural accuracy of a network that bsk did not train; the tests run at most once."""

    def __init__(self, subject: Subject, settings: EvaluationSettings) -> None:
        """Set the network and the settings; nothing is computed yet."""
        self._subject, self._settings = subject, settings
        self._found: list[str] | None = None

    def added_to(self, diagnostics: Diagnostics, attack: Attack, ledger: Ledger) -> Diagnostics:
        """Return the diagnostics, with another doubt if the natural accuracy is low or close to chance."""
        natural, foreign = attack.stages[0].name == "natural", self._subject.header.get("kind") in ("foreign", "live")
        right, n = int((ledger.broken_by != 0).sum()), len(ledger.broken_by)
        low = is_low(right, n, len(self._settings.data.classes))
        if not (natural and foreign and self._settings.checks and low):
            return diagnostics
        if self._found is None:
            passes = int(ledger.forward.sum() + ledger.backward.sum())
            self._found = explained(self._subject, self._settings, max(SHARE * passes, SHORT / max(ledger.pace, TICK)))
        found = self._found
        if found is None:  # a longer attack has a larger budget
            labels = self._settings.data.stream(self._settings.split, self._settings.limit).labels
            found = [f"{_start(right, labels)}; finding the cause takes longer than this attack: run natural,pgd-100"]
            found = found if _chance_of(right, labels) > MAYBE else []
        return Diagnostics(diagnostics.facts, (*diagnostics.doubts, *found))


def is_low(right: int, n: int, classes: int, part: float = LOW) -> bool:
    """Return whether `right` of n images is below `part` on the scale from chance (0) to perfect (1)."""
    chance = 1 / classes
    return right < n * (chance + part * (1 - chance))


def explained(subject: Subject, settings: EvaluationSettings, passes: float = math.inf) -> list[str] | None:
    """Return a doubt that names the likely cause of a low accuracy, or an empty list if there is no doubt.

    Uses the first 256 images of the split, or three per class if that is more. Tested are the common normalisations,
    inputs in [0, 255], and BGR order: all combinations on 32 images, then the best three on 256. The order of classes
    is tested too: outputs are matched to classes by the confusion matrix of three quarters of the images, and the
    accuracy is measured on the rest. A cause is accepted if its accuracy is far above the original one and above
    chance.

    If this takes more than `passes` forward passes, 8 and 64 images are used; if these do too, the result is None.
    """
    classes = settings.data.classes
    candidates = _candidates(settings.data)
    sizes = ((FIRST, max(N, EACH * len(classes))), FEWER)
    costs = [len(candidates) * first + FINALISTS * min(n, N) + 2 * n for first, n in sizes]
    first, n = next((size for size, cost in zip(sizes, costs, strict=True) if cost <= passes), (0, 0))
    if n == 0:
        return None
    examples = settings.data.stream(settings.split, n)
    rows = torch.arange(len(examples.labels))
    x, y = to_unit(examples.take(rows).to(settings.device)), examples.labels
    share, said = 0.0, "no common normalisation, [0, 255] range, BGR or class order explains it: check model and data"
    with exact(subject.model), torch.no_grad():
        trial = _Trial(subject, settings, x, y, candidates)
        given = trial.predicted(None, len(y))
        right = int((given == y).sum())
        best, hits = trial.best(first)
        if trial.explains(hits, y[:N], right, LOW):
            share = hits / len(y[:N])
            said = _advice(subject, best, share)
        for way in (None, trial.usual):
            predicted = given if way is None else trial.predicted(way, len(y))
            order, hits, rest = _matched(predicted, y, trial.classes)
            simpler = share + GAIN > hits / max(1, len(rest))  # prefer one cause to two
            least = LOW if len(y) >= SEEN * trial.classes else UNSEEN
            if not simpler and trial.explains(hits, rest, right, least):
                share = hits / len(rest)
                said = _order_advice(subject, classes, order, hits, len(rest), way)
    return [f"{_start(right, y)}; {said}"] if share or _chance_of(right, y) > MAYBE else []


def _candidates(data: DataFile) -> list[Preprocessing]:
    """Return the common ways to preprocess, that of the data first, each in RGB and, with three channels, in BGR."""
    channels = len(data.mean)
    pairs = [(tuple(data.mean), tuple(data.std)), *GREY, *(COLOUR if channels == 3 else ())]
    wide = [[each * channels if len(each) == 1 else each for each in pair] for pair in dict.fromkeys(pairs)]
    return [
        Preprocessing(mean, std, turned) for mean, std in wide for turned in (False, True)[: 2 if channels == 3 else 1]
    ]


class _Trial:
    """A network and images to test different ways to preprocess."""

    def __init__(
        self, subject: Subject, settings: EvaluationSettings, x: Tensor, y: Tensor, candidates: Sequence[Preprocessing]
    ) -> None:
        self.model, self.x, self.y, self.most = subject.model, x, y, settings.batch_size
        self.candidates, self.usual, self.classes = candidates, candidates[0], len(settings.data.classes)

    def predicted(self, way: Preprocessing | None, n: int) -> Tensor:
        """Return the predictions on the first n images, (n,), or -1 if the network raises; None: as configured."""
        x = self.x[:n]
        network = self.model
        if way is not None:
            inner = self.model if not isinstance(self.model, Normalised) else self.model.network
            said = getattr(self.model, "outside", "") or "model"
            network = Normalised(inner, way.mean, way.std, said, getattr(self.model, "order", None)).to(x.device)
            x = x.flip(1) if way.turned else x
        try:
            logits = [steady(network, self.most)(part) for part in x.split(self.most)]
            return torch.cat(logits).argmax(dim=1).cpu()
        except Exception:  # a user's network may reject such inputs in any way
            return torch.full((n,), -1)

    def explains(self, hits: int, y: Tensor, before: int, least: float) -> bool:
        """Return whether the hits among labels y are far above chance, and above the rate before."""
        more = hits >= (before / len(self.y) + GAIN) * len(y) and not is_low(hits, len(y), self.classes, least)
        return more and _chance_of(hits, y) < SURE

    def best(self, first: int) -> tuple[Preprocessing, int]:
        """Return the most common preprocessing whose hits are close to the best, and its hits."""

        def right(way: Preprocessing, n: int) -> int:
            return int((self.predicted(way, n) == self.y[:n]).sum())

        best = sorted(self.candidates, key=lambda way: -right(way, first))[:FINALISTS]
        counts = {way: right(way, min(N, len(self.y))) for way in sorted(best, key=self.candidates.index)}
        return next((way, hits) for way, hits in counts.items() if hits >= ALMOST * max(counts.values()))


def _matched(predicted: Tensor, y: Tensor, classes: int) -> tuple[list[int], int, Tensor]:
    """Return the class of each output, matched on 3/4 of the images; hits on the rest; and labels of the rest."""
    from scipy.optimize import linear_sum_assignment

    seen = len(y) - len(y) // 4
    confusion = torch.zeros(classes + 1, classes, dtype=torch.int64)  # the last row counts predictions of -1
    confusion.index_put_((predicted[:seen], y[:seen]), torch.tensor(1), accumulate=True)
    order = linear_sum_assignment(confusion[:classes].numpy(), maximize=True)[1].tolist()
    rest = y[seen:]
    return order, int((torch.tensor([*order, classes])[predicted[seen:]] == rest).sum()), rest


def _chance_of(right: int, y: Tensor) -> float:
    """Return the p-value of guessing: P(at least `right` hits) at the rate of the most frequent class."""
    if len(y) == 0:
        return 1.0
    from scipy.special import bdtrc

    chance = int(y.bincount().max()) / len(y)
    return 1.0 if right == 0 or chance == 1 else float(bdtrc(right - 1, len(y), chance))


def _start(right: int, y: Tensor) -> str:
    level = "is at chance level" if _chance_of(right, y) > MAYBE else "is low"
    return f"natural accuracy {level}, {right / len(y):.1%} of {len(y)} images"


def _advice(subject: Subject, way: Preprocessing, share: float) -> str:
    """Return which preprocessing the network expects and which flags to pass."""
    takes_flags = subject.header.get("kind") == "foreign" and subject.header.get("normalisation") != NETWORK
    turned = "channels in BGR order and " if way.turned else ""
    if takes_flags:
        how, then = f"{turned}{_flags(way)}", "pass these"
    else:
        mean, std = (",".join(map(plain, each)) for each in (way.mean, way.std))
        how = f"{turned}images as (x - mean) / std with mean {mean} and std {std}"
        then = "do that in its forward, for images in [0, 1]"
    if way.turned and takes_flags:
        then += ", and reverse the channels with x.flip(1) in the forward of a --model module:function"
    return f"with {how} it is {share:.1%}: {then}"


def _flags(way: Preprocessing) -> str:
    return " ".join(f"--{name} {','.join(map(plain, getattr(way, name)))}" for name in ("mean", "std"))


def _order_advice(
    subject: Subject, classes: Sequence[str], order: Sequence[int], hits: int, n: int, way: Preprocessing | None
) -> str:
    """Return the order of classes that the outputs seem to have, and what to pass."""
    first = ", ".join(f"{k} is {classes[order[k]]}" for k in range(min(SHOWN, len(order))))
    also = f"{_flags(way)} and " if way is not None else ""
    foreign = subject.header.get("kind") == "foreign"
    then = "pass --class-order FILE, its class names one per line" if foreign else "reorder its logits"
    return f"with {also}another class order (its output {first}, ...) it is {hits / n:.1%} of {n} others: {then}"
