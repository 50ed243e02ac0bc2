#!/bin/sh
# torch 2.14.1: cosine_similarity of a gradient with itself is 0.01 if its norm is 1e-9, and 0.000001 if it is 1e-11.
#
# A cosine does not depend on lengths, and an eps in its denominator is expected to matter for zero alone. But torch
# replaces each norm below eps, 1e-8, by eps, before it divides. So the result falls with the square of the norm, from 1
# towards 0, without a warning, although fp32 has the numbers: norms down to 1e-18 can be squared, and smaller ones can
# be scaled first.
#
# Gradients with respect to images are that small where a network is sure. The cosine between those at an image and at a
# random neighbour is a usual measure of local linearity: GradAlign maximises it, and a low one is a sign of
# catastrophic overfitting. Below, the network is linear with a single logit, so that the true cosine is 1 for any two
# points. Trained on and on it stays linear, while the measured cosine falls to 0.42. `F.normalize` has the same property
# from 1e-12 on.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch, and a minute.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'scikit-learn==1.9.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

print("torch", torch.__version__)
torch.manual_seed(0)
torch.set_num_threads(1)
v = F.normalize(torch.randn(1, 3072))
for norm in (1e-7, 1e-8, 1e-9, 1e-11):
    print(f"norm {norm:g}: cosine of a vector with itself {F.cosine_similarity(norm * v, norm * v).item():.3g}")
assert abs(F.cosine_similarity(1e-9 * v, 1e-9 * v).item() - 0.01) < 1e-4
assert abs(F.cosine_similarity(1e-9 * v.double(), v.double()).item() - 0.1) < 1e-4  # in fp64 too

digits = load_digits()
rows = digits.target < 2
x = torch.tensor(digits.data[rows], dtype=torch.float32) / 16
y = torch.tensor(digits.target[rows]).float()
network = torch.nn.Linear(64, 1)
optimiser = torch.optim.Adam(network.parameters(), lr=0.5)


def gradient(at):
    leaf = at.clone().requires_grad_()
    losses = F.softplus((1 - 2 * y) * network(leaf)[:, 0])  # of a logistic regression
    return torch.autograd.grad(losses.sum(), leaf)[0]


found = []
for update in range(1, 1001):
    optimiser.zero_grad()
    F.softplus((1 - 2 * y) * network(x)[:, 0]).mean().backward()
    optimiser.step()
    if update in (3, 10, 100, 1000):
        at_x, near = gradient(x), gradient(x + 8 / 255 * (2 * torch.rand_like(x) - 1))
        unit = [each / each.abs().amax(1, keepdim=True) for each in (at_x, near)]
        found.append((F.cosine_similarity(at_x, near).mean().item(), F.cosine_similarity(*unit).mean().item()))
        print(f"after {update} updates: median norm {at_x.norm(dim=1).median():.1g}, mean cosine {found[-1][0]:.3f};",
              f"of the gradients divided by their largest entries {found[-1][1]:.3f}")
assert all(abs(exact - 1) < 1e-3 for _, exact in found)
assert found[0][0] > 0.99 and found[-1][0] < 0.6
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
