"""What training and evaluation print on stderr while they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bsk.records.words import counted
from bsk.terminal import Bar, for_people

if TYPE_CHECKING:
    from bsk.attacks.registry import Attack
    from bsk.evaluation.verdicts import Progress


class _Shown:
    """A progress bar that is removed at the end of the block; only the first of several processes prints."""

    def __init__(self, name: str, speaks: bool) -> None:
        self._name, self._bar = name, Bar(name, speaks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def aside(self) -> AbstractContextManager[None]:
        """Hide the bar within the block, while a record is printed."""
        return self._bar.aside()

    def notices(self, texts: Sequence[str]) -> None:
        """Print the lines."""
        for text in texts:
            self._bar.note(text)


class TrainingProgress(_Shown):
    """A bar with epoch and loss on a terminal, and one line per epoch everywhere."""

    def __init__(self, speaks: bool) -> None:
        """With `speaks` False nothing is printed, as in all but the first of several processes."""
        super().__init__("training", speaks)

    def step(self, done: int, total: int, epoch: int, loss: Callable[[], float]) -> None:
        """Update the bar."""
        self._bar.show(done, total, lambda: f"epoch {epoch + 1} loss {loss():.3f}")

    def epoch(self, record: dict[str, Any]) -> None:
        """Print the line of an epoch."""
        self._bar.note(epoch_line(record))

    def alarm(self, record: dict[str, Any]) -> None:
        """Print the alarm of catastrophic overfitting."""
        then = "; rolling back to the last good weights, with PGD for a while" if record["back"] else ""
        found = f"FGSM {record['fgsm']:.0%}, PGD-10 {record['pgd']:.0%}, cosine of gradients {record['cosine']:.2f}"
        where = f"on {record['n']} val images{then}"
        self._bar.note(f"update {record['step']}: catastrophic overfitting: {found} {where}")

    def notice(self, text: str) -> None:
        """Print a line."""
        self._bar.note(text)


def epoch_line(record: dict[str, Any]) -> str:
    """Return the record of an epoch as a readable line."""
    test = f"test PGD-20 {record['test_robust']:.1%}, " if "test_robust" in record else ""
    average = f"averaged {record['ema_val_robust']:.1%}, " if "ema_val_robust" in record else ""
    return (
        f"epoch {record['epoch']}: lr {record['lr']:.4f}, loss {record['loss']:.3f}, "
        f"val natural {record['val_natural']:.1%}, PGD-20 {record['val_robust']:.1%}, {average}{test}"
        f"{record['images_per_second']:.0f} images/s, {record['seconds']:.1f} s + "
        f"{record['validation_seconds']:.1f} s validation"
    )


class EvaluationProgress(_Shown):
    """A bar with an upper bound of the robust accuracy on a terminal; one line per stage and per attack elsewhere."""

    def show(self, attack: Attack, at: Progress) -> None:
        """Update the bar; after each of several stages print how many examples survived, and print any notice."""
        if at.notice:
            self._bar.note(f"{self._name}: {at.notice}")
            return
        self._bar.draw(at.done, at.total, f"{attack.name} {at.stage} <= {at.standing / at.n:.1%}")
        if at.ended and len(attack.stages) > 2:
            sample = "" if at.sample is None else f" on a sample of {at.sample}"
            self._bar.note(f"{self._name}: {attack.name}: {at.standing} of {at.n} survive {at.stage}{sample}")

    def done(self, record: dict[str, Any]) -> None:
        """Print a line for the record, unless it was printed as one already, and a line for each doubt."""
        if not for_people():
            self._bar.note(evaluation_line(record))
        if "adbd" in record:
            self._bar.note(f"{self._name}: ADBD {record['adbd']:.4f}, {record['never_fooled']} never fooled")
        if "targeted_success" in record:
            self._bar.note(f"{self._name}: {target_line(record)}")
        if "rounded" in record:
            self._bar.note(f"{self._name}: {rounded_line(record)}")
        self.notices([f"{self._name}: {remark}" for remark in remarks(record)])


def evaluation_line(record: dict[str, Any]) -> str:
    """Return the record of an evaluation as a readable line."""
    bound, doubts = "at most " if record["attack"] == "screen" else "", len(record["doubts"])
    none = "no doubts" if "random" in (record.get("checks") or {}) else "not examined"
    interval = f"{bound}{record['accuracy']:.2%} [{record['low']:.2%}, {record['high']:.2%}] of {record['n']}"
    images = f"on {record['corruption']} {record['severity']}, " if "corruption" in record else ""
    return (
        f"{Path(record['checkpoint']).name}: {images}{record['attack']} at eps {record['eps']:g} "
        f"({record['eps'] * 255:.3g}/255): {audit_line(record) if 'audit' in record else interval}, "
        f"{record['seconds']:.1f} s, {counted(doubts, 'doubt') if doubts else none}"
    )


def target_line(record: dict[str, Any]) -> str:
    """Return the success rate of a targeted attack as a line."""
    if record["targeted_success"] is None:
        return f"every image is already of class {record['target']}"
    interval = f"[{record['targeted_low']:.2%}, {record['targeted_high']:.2%}] of {record['targeted_n']}"
    return f"classified as the target {record['target']}: {record['targeted_success']:.2%} {interval}"


def rounded_line(record: dict[str, Any]) -> str:
    """Return the result of an attack after rounding its images to 8 bits, as a line."""
    found = record["rounded"]
    goal = f", target {found['targeted_success']:.2%}" if found.get("targeted_success") is not None else ""
    inward = (
        f"; {found['inward']} of {record['n']} images rounded inwards to stay in the ball" if found["inward"] else ""
    )
    interval = f"[{found['low']:.2%}, {found['high']:.2%}]"
    return f"in 8 bits {found['accuracy']:.2%} {interval}{goal}, at most {found['distance']:.6g} away{inward}"


def audit_line(record: dict[str, Any]) -> str:
    """Return what an audit says about AutoAttack's accuracy, as a line."""
    audit, n = record["audit"], record["n"]
    return (
        f"screen {audit['survivors'] / n:.2%}, AutoAttack estimated {record['accuracy']:.2%}, 95 % interval "
        f"{audit['low']:.2%} to {audit['high']:.2%} for these {n} images "
        f"({audit['audited']} of {audit['survivors']} survivors audited, {audit['fallen']} fell)"
    )


def remarks(record: dict[str, Any]) -> list[str]:
    """Return one line for each doubt about an evaluation, and one for the checks that were skipped."""
    said = [f"doubtful: {doubt}" for doubt in record["doubts"]]
    if left := (record.get("checks") or {}).get("left_out"):
        beside = f"too slow compared with {record['attack']}; use more images or a longer attack"
        said.append(f"the checks skipped {' and '.join(left)}: {beside}")
    return said
