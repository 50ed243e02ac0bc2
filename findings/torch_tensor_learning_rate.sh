#!/bin/sh
# torch 2.14.1: with a learning rate that is a tensor, all groups of an optimiser share it.
#
# `lr` may be a tensor; a compiled optimiser step needs one, to avoid compiling again when the rate changes. Expected:
# each group has its own rate, as with a float. Observed: all groups hold the same tensor, that of the caller, and the
# schedulers fill it in place. LambdaLR with one function per group gives every group the rate of the last function.
#
# So a usual pair of groups, a pretrained body that stays fixed for some epochs (factor 0) and a new head (factor 1),
# trains the body at the full rate, or the head not at all, depending on the order. Two optimisers with the same tensor,
# such as that of the weights and that of the adversarial perturbation of the weights or of a patch, are coupled: the
# scheduler of the first changes the rate of the second. With floats none of this happens. Give each group its own
# tensor.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR


def moved(first, second, factors):
    """Return how far a step at rate 0.1 moves the weight of each group, scaled by the factors."""
    weights = [torch.nn.Parameter(torch.zeros(())) for _ in range(2)]
    groups = [{"params": [weights[0]]}, {"params": [weights[1]]}]
    if second is not None:
        groups[0]["lr"], groups[1]["lr"] = first, second
    optimiser = SGD(groups, lr=first)
    LambdaLR(optimiser, [lambda epoch, factor=factor: factor for factor in factors])
    sum(weights).backward()
    optimiser.step()
    return [round(-weight.item(), 4) for weight in weights]


print("torch", torch.__version__)
found = {}
for factors in ((0.0, 1.0), (1.0, 0.0), (1.0, 0.1)):
    found[factors] = (
        moved(0.1, None, factors),
        moved(torch.tensor(0.1), None, factors),
        moved(torch.tensor(0.1), torch.tensor(0.1), factors),
    )
    print(f"factors {factors}: steps of the groups with a float {found[factors][0]}, a tensor {found[factors][1]},",
          f"two tensors {found[factors][2]}")

rate = torch.tensor(0.1)
one, other = (SGD([torch.nn.Parameter(torch.zeros(()))], lr=rate) for _ in range(2))
schedule = MultiStepLR(one, [1], gamma=0.1)
one.step()
schedule.step()
after = float(rate), float(other.param_groups[0]["lr"])
print("after a step of the first optimiser's schedule: the caller's tensor", after[0], "the second's rate", after[1])
for factors, (of_float, of_tensor, of_two) in found.items():
    wanted = [round(0.1 * factor, 4) for factor in factors]
    assert of_float == of_two == wanted and of_tensor == [wanted[1]] * 2
assert max(after) < 0.02
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
