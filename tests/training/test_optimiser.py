"""The optimiser: torch's own to the bit, and a training that does not load torch's compiler."""

import copy
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from bsk.training.optimiser import SGD


def test_it_is_torchs_own_to_the_bit_also_after_its_state_was_put_back() -> None:
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    theirs = copy.deepcopy(ours)
    flags = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    a, b = SGD(ours.parameters(), **flags), torch.optim.SGD(theirs.parameters(), **flags)
    for update in range(6):
        x = torch.randn(8, 5)
        for model, optimiser in ((ours, a), (theirs, b)):
            optimiser.zero_grad(set_to_none=True)
            model(x).square().sum().backward()
            optimiser.step()
        if update == 2:
            state = a.state_dict()
            a = SGD(ours.parameters(), lr=1.0)
            a.load_state_dict(state)
    assert all(
        torch.equal(p, q) and p.requires_grad for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    kept, expected = (each.state_dict() for each in (a, b))
    assert kept["param_groups"] == expected["param_groups"] and kept["state"].keys() == expected["state"].keys()
    for number, state in expected["state"].items():
        assert torch.equal(kept["state"][number]["momentum_buffer"], state["momentum_buffer"])


def test_a_training_does_not_load_torchs_compiler(toy: Path, tmp_path: Path) -> None:
    words = ["train", "--data", str(toy), "--model", "cnn-4", "--epochs", "1", "--ema", "0.9", "--awp", "0.01"]
    code = f"""
import sys
from bsk.cli.app import main
sys.argv = ["bsk", *{words!r}, "--out", {str(tmp_path / "m.safetensors")!r}, "--quiet"]
try:
    main()
finally:
    print("loaded" if "torch._dynamo" in sys.modules else "not loaded", file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1] == "not loaded" and (tmp_path / "m.safetensors").exists(), done.stderr
