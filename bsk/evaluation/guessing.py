"""Why a network that bsk did not train may guess: the usual mistakes, each tried on a few images."""

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

N = 256  # images on which a cause is judged
FIRST = 32  # of them, on which all are tried
FEWER = (8, 64)  # the same, where passes are few
TICK = 1e-9  # seconds; no pass is faster
SHARE, SHORT = 0.04, 2.0  # of an attack's passes, or seconds, that it may take
FINALISTS = 3
LOW = 0.3  # of the way from guessing to no mistake: below it the causes are tried, beyond it a cause must lead
EACH = 3  # images of a class, at least, by which outputs are matched
SEEN, UNSEEN = 5, 0.15  # with fewer images of a class its output is hardly known, and so far is enough
ALMOST = 0.85  # of what is right in the best way
GAIN = 0.15  # of all images, that are right by a cause alone
SURE = 1e-4  # so seldom does a network that guesses get so many right
MAYBE = 1e-3  # less often than this it guesses not
SHOWN = 3  # classes in a message
BYTE = 1 / 255
NETWORK = "network"  # in a header: the network normalises by buffers of its own
GREY = (((0.0,), (1.0,)), ((0.5,), (0.5,)), ((0.0,), (BYTE,)), ((0.1307,), (0.3081,)))  # the last is of MNIST
COLOUR = (
    ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),  # CIFAR-10
    ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),  # CIFAR-10 as kuangliu has it: the mean of images' deviations
    ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),  # CIFAR-100
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet
    ((0.485, 0.456, 0.406), (BYTE, BYTE, BYTE)),  # ImageNet in [0, 255], as Caffe has it
)


@dataclass(frozen=True)
class Feed:
    """One way to give images to a network: (x - mean) / std, their channels perhaps turned round before."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    turned: bool = False


class Suspicion:
    """Looks why a network that bsk did not train gets hardly an image right as it is, once, if it does."""

    def __init__(self, subject: Subject, settings: EvaluationSettings) -> None:
        """Take the network and the circumstances; nothing is computed yet."""
        self._subject, self._settings = subject, settings
        self._found: list[str] | None = None

    def beside(self, diagnostics: Diagnostics, attack: Attack, ledger: Ledger) -> Diagnostics:
        """Return the diagnostics with a doubt, if the images that an attack left in place look guessed."""
        natural, foreign = attack.stages[0].name == "natural", self._subject.header.get("kind") in ("foreign", "live")
        right, n = int((ledger.broken_by != 0).sum()), len(ledger.broken_by)
        low = is_low(right, n, len(self._settings.data.classes))
        if not (natural and foreign and self._settings.checks and low):
            return diagnostics
        if self._found is None:
            passes = int(ledger.forward.sum() + ledger.backward.sum())
            self._found = explained(self._subject, self._settings, max(SHARE * passes, SHORT / max(ledger.pace, TICK)))
        found = self._found
        if found is None:  # another attack may give more time
            labels = self._settings.data.stream(self._settings.split, self._settings.limit).labels
            found = [f"{_start(right, labels)}; to try why takes longer than this attack allows: run natural,pgd-100"]
            found = found if _chance_of(right, labels) > MAYBE else []
        return Diagnostics(diagnostics.facts, (*diagnostics.doubts, *found))


def is_low(right: int, n: int, classes: int, part: float = LOW) -> bool:
    """Return whether so many of n images are less than this part of the way from guessing to no mistake."""
    chance = 1 / classes
    return right < n * (chance + part * (1 - chance))


def explained(subject: Subject, settings: EvaluationSettings, passes: float = math.inf) -> list[str] | None:
    """Return the doubt whether a network guesses, with what explains it best, or an empty list if it does not.

    On the first 256 images of the split, or three a class if that is more, the network is given them by other usual
    normalisations, in [0, 255] and in the order BGR: all of that on 32 images, then the best three on 256. And its
    outputs are matched to the classes, by the confusion matrix of three quarters of the images, and counted on the
    rest. What gets far more right than before, and so many as hardly a network that guesses, explains it.

    Where that takes more than so many forward passes, it is 8 and 64 images; where these do too, None.
    """
    classes = settings.data.classes
    feeds = _feeds(settings.data)
    sizes = ((FIRST, max(N, EACH * len(classes))), FEWER)
    costs = [len(feeds) * first + FINALISTS * min(n, N) + 2 * n for first, n in sizes]
    first, n = next((size for size, cost in zip(sizes, costs, strict=True) if cost <= passes), (0, 0))
    if n == 0:
        return None
    examples = settings.data.stream(settings.split, n)
    rows = torch.arange(len(examples.labels))
    x, y = to_unit(examples.take(rows).to(settings.device)), examples.labels
    share, said = 0.0, "no usual normalisation, [0, 255], BGR or order of classes explains it: check model and data"
    with exact(subject.model), torch.no_grad():
        trial = _Trial(subject, settings, x, y, feeds)
        given = trial.predicted(None, len(y))
        right = int((given == y).sum())
        best, hits = trial.best_feed(first)
        if trial.explains(hits, y[:N], right, LOW):
            share = hits / len(y[:N])
            said = _advice(subject, best, share)
        for feed in (None, trial.usual):
            predicted = given if feed is None else trial.predicted(feed, len(y))
            order, hits, rest = _matched(predicted, y, trial.classes)
            simpler = share + GAIN > hits / max(1, len(rest))  # one cause rather than two
            least = LOW if len(y) >= SEEN * trial.classes else UNSEEN
            if not simpler and trial.explains(hits, rest, right, least):
                share = hits / len(rest)
                said = _order_advice(subject, classes, order, hits, len(rest), feed)
    return [f"{_start(right, y)}; {said}"] if share or _chance_of(right, y) > MAYBE else []


def _feeds(data: DataFile) -> list[Feed]:
    """Return the usual ways, that of the data first, each in RGB and, of three channels, in BGR."""
    channels = len(data.mean)
    pairs = [(tuple(data.mean), tuple(data.std)), *GREY, *(COLOUR if channels == 3 else ())]
    wide = [[each * channels if len(each) == 1 else each for each in pair] for pair in dict.fromkeys(pairs)]
    return [Feed(mean, std, turned) for mean, std in wide for turned in (False, True)[: 2 if channels == 3 else 1]]


class _Trial:
    """A network and images, and what it makes of them when it is given them in another way."""

    def __init__(
        self, subject: Subject, settings: EvaluationSettings, x: Tensor, y: Tensor, feeds: Sequence[Feed]
    ) -> None:
        self.model, self.x, self.y, self.most = subject.model, x, y, settings.batch_size
        self.feeds, self.usual, self.classes = feeds, feeds[0], len(settings.data.classes)

    def predicted(self, feed: Feed | None, n: int) -> Tensor:
        """Return the classes of the first n images, (n,), -1 where the network refuses them; None is as it is."""
        x = self.x[:n]
        network = self.model
        if feed is not None:
            inner = self.model if not isinstance(self.model, Normalised) else self.model.network
            said = getattr(self.model, "outside", "") or "model"
            network = Normalised(inner, feed.mean, feed.std, said, getattr(self.model, "order", None)).to(x.device)
            x = x.flip(1) if feed.turned else x
        try:
            logits = [steady(network, self.most)(part) for part in x.split(self.most)]
            return torch.cat(logits).argmax(dim=1).cpu()
        except Exception:  # it is anybody's network, and these are not the images that it was made for
            return torch.full((n,), -1)

    def explains(self, hits: int, y: Tensor, before: int, least: float) -> bool:
        """Return whether so many hits among some labels are far more than a guess, and than before among all."""
        more = hits >= (before / len(self.y) + GAIN) * len(y) and not is_low(hits, len(y), self.classes, least)
        return more and _chance_of(hits, y) < SURE

    def best_feed(self, first: int) -> tuple[Feed, int]:
        """Return the most usual of the ways in which almost as many images are right as in the best; and how many."""

        def right(feed: Feed, n: int) -> int:
            return int((self.predicted(feed, n) == self.y[:n]).sum())

        best = sorted(self.feeds, key=lambda feed: -right(feed, first))[:FINALISTS]
        counts = {feed: right(feed, min(N, len(self.y))) for feed in sorted(best, key=self.feeds.index)}
        return next((feed, hits) for feed, hits in counts.items() if hits >= ALMOST * max(counts.values()))


def _matched(predicted: Tensor, y: Tensor, classes: int) -> tuple[list[int], int, Tensor]:
    """Return the class of each output, matched on three quarters of images; how many it hits of the others' labels."""
    from scipy.optimize import linear_sum_assignment

    seen = len(y) - len(y) // 4
    confusion = torch.zeros(classes + 1, classes, dtype=torch.int64)  # the last row is of the network's refusals
    confusion.index_put_((predicted[:seen], y[:seen]), torch.tensor(1), accumulate=True)
    order = linear_sum_assignment(confusion[:classes].numpy(), maximize=True)[1].tolist()
    rest = y[seen:]
    return order, int((torch.tensor([*order, classes])[predicted[seen:]] == rest).sum()), rest


def _chance_of(right: int, y: Tensor) -> float:
    """Return how probable it is to guess so many labels or more, each as often as the commonest class is there."""
    if len(y) == 0:
        return 1.0
    from scipy.special import bdtrc

    chance = int(y.bincount().max()) / len(y)
    return 1.0 if right == 0 or chance == 1 else float(bdtrc(right - 1, len(y), chance))


def _start(right: int, y: Tensor) -> str:
    like = "is that of a guess" if _chance_of(right, y) > MAYBE else "is low"
    return f"natural accuracy {like}, {right / len(y):.1%} of {len(y)} images"


def _advice(subject: Subject, feed: Feed, share: float) -> str:
    """Say how the images must come, and what to pass."""
    takes_flags = subject.header.get("kind") == "foreign" and subject.header.get("normalisation") != NETWORK
    turned = "channels in the order BGR and " if feed.turned else ""
    if takes_flags:
        how, then = f"{turned}{_flags(feed)}", "pass these"
    else:
        mean, std = (",".join(map(plain, each)) for each in (feed.mean, feed.std))
        how = f"{turned}images as (x - mean) / std by mean {mean} and std {std}"
        then = "let its forward take images in [0, 1] and do that"
    if feed.turned and takes_flags:
        then += ", and turn the channels in the forward of a --model module:function by x.flip(1)"
    return f"with {how} it is {share:.1%}: {then}"


def _flags(feed: Feed) -> str:
    return " ".join(f"--{name} {','.join(map(plain, getattr(feed, name)))}" for name in ("mean", "std"))


def _order_advice(
    subject: Subject, classes: Sequence[str], order: Sequence[int], hits: int, n: int, feed: Feed | None
) -> str:
    """Say that the classes are in another order, which it seems to be, and what to pass."""
    first = ", ".join(f"{k} is {classes[order[k]]}" for k in range(min(SHOWN, len(order))))
    also = f"{_flags(feed)} and " if feed is not None else ""
    foreign = subject.header.get("kind") == "foreign"
    then = "pass --class-order FILE, its class names one a line" if foreign else "bring its logits into their order"
    return f"with {also}another order of classes (its output {first}, ...) it is {hits / n:.1%} of {n} others: {then}"
