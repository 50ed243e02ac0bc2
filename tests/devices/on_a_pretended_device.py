"""Train and evaluate on a pretended device, or on the CPU, and print what was found: python THIS cuda|mps|cpu FOLDER.

FOLDER has `toy.safetensors`, prepared data of 3 classes; the trainings are written there. PYTHONPATH has this
folder and `tests/training`.
"""

import contextlib
import json
import sys
from pathlib import Path

import torch
from pretended import pretended, waits
from toys import settings, stopped, trained

import bsk
from bsk.data.store import open_data

TRAININGS = {
    "bs": {"model": "resnet18-2", "ema": 0.9, "awp": 0.005, "log_divergence": True, "epochs": 1},
    "at": {"epochs": 1},
    "fast-at": {"epochs": 1, "on_collapse": "rollback"},
    "gradalign": {"epochs": 1},
    "fgsm-pgi": {"epochs": 3},
}
EVALUATIONS = [
    (["natural", "pgd-10", "apgd-ce"], {}),
    (["fab-t", "square"], {"queries": 40}),
    (["apgd-t"], {"search": "bf16"}),
    (["apgd-ce"], {"norm": "l2", "eps": 0.1}),
    (["rays"], {"queries": 60}),
]


def found(kind: str, folder: Path) -> dict[str, object]:
    """Return the results of all trainings and evaluations, and where the updates waited for the device."""
    device, data = torch.device(kind), open_data(folder / "toy.safetensors")
    results: dict[str, object] = {}
    for method, flags in TRAININGS.items():
        out, s = folder / f"{kind}-{method}.safetensors", settings(method, **flags)
        stopped(out, data, s, 5, device=device)
        end = trained(out, data, s, device=device)
        results[method] = [end["val_natural"], end["val_robust"], end["train_forward_passes"]]
    updates = ("methods/", "contract/", "perturb/gradients", "perturb/ascent", "training/step", "training/awp")
    results["waited"] = sum(waits.values()) > 0
    results["waits"] = {line: count for line, count in waits.items() if line.startswith(updates)}
    for attacks, flags in EVALUATIONS:
        wanted = {"eps": 0.01, "limit": 16, "device": kind, "progress": False, **flags}
        for each in bsk.evaluate(folder / f"{kind}-fgsm-pgi.safetensors", data=data, attack=attacks, **wanted):
            results[f"{each.record['attack']} {flags}"] = [each.record["accuracy"], each.record["forward_passes"]]
    return results


if __name__ == "__main__":
    torch.set_num_threads(1)
    with contextlib.nullcontext() if sys.argv[1] == "cpu" else pretended(sys.argv[1]):
        print(json.dumps(found(sys.argv[1], Path(sys.argv[2]))))
