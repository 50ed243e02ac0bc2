"""The model-info entry of RobustBench for a network, as far as records have the facts.

Source: the JSON files of `model_info` in RobustBench: accuracies are texts in percent, the radius is "8/255".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bsk.errors import UsageError
from bsk.records.schema import EvaluationRecord
from bsk.records.words import searched

WHOLE = 10_000  # test images of CIFAR, which its accuracies are for
_RESNET = re.compile(r"(preact-)?resnet(\d+)(-(\d+))?(-[a-z]+)?")
_WIDE = re.compile(r"wrn-(\d+)-(\d+)(-silu)?")


def model_info(records: Sequence[EvaluationRecord]) -> dict[str, Any]:
    """Return RobustBench's fields for the one network of the records; unknown fields are None.

    Only a full `autoattack` gives `autoattack_acc`: neither screen nor an audit does.

    Raises:
        UsageError: the records have several radii, splits or numbers of images, or several results of one attack.
    """
    if any(isinstance(each.corruption, str) for each in records):
        raise UsageError("--to robustbench: records of corrupted images; give those of clean test images only")
    if len({(each.data_sha256, each.split, each.n) for each in records}) > 1:
        raise UsageError(
            "--to robustbench: records of several datasets, splits or numbers of images; give those of one"
        )
    if len({(each.eps, norm_of(each)) for each in records if each.attack != "natural"}) > 1:
        raise UsageError("--to robustbench: records of several radii or norms; give those of one")
    whole = _one_result(records, "autoattack")
    first = whole or next((each for each in records if each.attack != "natural"), records[0])
    natural = _one_result(records, "natural")
    clean = (first.after or {}).get("natural", natural.accuracy if natural else None)
    return {
        "link": None,
        "name": None,
        "authors": None,
        "additional_data": _additional_data(first),
        "number_forward_passes": 1 if architecture(first.model) else None,
        "dataset": first.dataset,
        "venue": None,
        "architecture": architecture(first.model),
        "eps": _radius(first),
        "clean_acc": _percent(clean),
        "reported": None,
        "autoattack_acc": _percent(whole.accuracy if whole else None),
        "footnote": _footnote(first),
        "unreliable": bool(whole.doubts) if whole else None,
    }


def _one_result(records: Sequence[EvaluationRecord], attack: str) -> EvaluationRecord | None:
    """Return the record of an attack, None without one; of several with the same accuracy one that searched in fp32."""
    found = [each for each in records if each.attack == attack]
    if len({each.accuracy for each in found}) > 1:
        said = ", ".join(f"{_percent(each.accuracy)} %" for each in found)
        raise UsageError(f"--to robustbench: several results of {attack} ({said}); give the record of one")
    return min(found, key=lambda each: searched(each.attack_parameters or {}), default=None)


def _additional_data(record: EvaluationRecord) -> bool | None:
    """Return whether the network saw more than its training data, or None if its initial weights may have."""
    flags = record.flags or {}
    if flags.get("extra"):
        return True
    return None if "extra" not in flags or flags.get("init") else False


def architecture(model: str | None) -> str | None:
    """Return RobustBench's name of one of bsk's networks, or None for other networks."""
    if wide := _WIDE.fullmatch(model or ""):
        return f"WideResNet-{wide[1]}-{wide[2]}"
    if found := _RESNET.fullmatch(model or ""):
        width = f" of width {found[4]}" if found[4] else ""
        return f"{'PreActResNet' if found[1] else 'ResNet'}-{found[2]}{width}"
    return None


def norm_of(record: EvaluationRecord) -> str:
    """Return the norm of an attack; an attack of several stages has it in each stage."""
    parameters = record.attack_parameters or {}
    nested = (each.get("norm") for each in parameters.values() if isinstance(each, dict))
    return str(parameters.get("norm") or next(filter(None, nested), "linf"))


def _radius(record: EvaluationRecord) -> str | None:
    if record.eps is None:
        return None
    levels = record.eps * 255
    by_linf = norm_of(record) == "linf"
    return f"{levels:.0f}/255" if by_linf and abs(levels - round(levels)) < 1e-6 else f"{record.eps:g}"


def _percent(accuracy: float | None) -> str | None:
    return None if accuracy is None else f"{100 * accuracy:.2f}"


def _footnote(record: EvaluationRecord) -> str | None:
    """Return a footnote unless the accuracy is on all test images and the search in fp32, as on the leaderboard."""
    few = "" if (record.split, record.n) == ("test", WHOLE) else f"On {record.n} images of the {record.split} split."
    low = searched(record.attack_parameters or {})
    return " ".join(filter(None, [few, f"AutoAttack {low}." if low else ""])) or None
