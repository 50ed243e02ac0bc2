#!/bin/sh
# torch 2.14.1: after `vector_to_parameters` the vector is the weights: training the network changes it.
#
# `torch.nn.utils.parameters_to_vector` copies the weights of a network into one vector. Expected: its inverse copies
# the vector into the weights, as `load_state_dict` does. Observed: each parameter becomes a view of the vector. A step
# of an optimiser writes into the vector, and writing into the vector changes the network.
#
# So weights that were saved as a vector can be restored once. The second time, the "saved" ones are those that the
# training in between left, and restoring them does nothing. Attempts from one start, such as fine-tuning with several
# radii or several seeds, each start where the one before ended. Weights that are perturbed in place and then put back
# (adversarial weight perturbation, landscapes of the loss) stay perturbed. Two networks that get the same vector are
# one network: a teacher that is kept fixed, or an average of weights, is trained along with the student. Nothing
# warns, and the first use is right. Pass `vector.clone()`.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'scikit-learn==1.9.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

print("torch", torch.__version__)
torch.set_num_threads(1)
digits = load_digits()
images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def accuracy(model):
    return round((model(images).argmax(1) == labels).float().mean().item(), 3)


def train(model, updates):
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(updates):
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()


def attempts(prepare):
    """Return the accuracies at the start of three attempts that are all to start from the same weights."""
    model = network()
    start = parameters_to_vector(model.parameters()).detach()
    found = []
    for _ in range(3):
        vector_to_parameters(prepare(start), model.parameters())
        found.append(accuracy(model))
        train(model, 10)
    return found


shared, copied = attempts(lambda vector: vector), attempts(torch.clone)
print("accuracy at the start of three attempts from one vector:", shared, "from a clone each:", copied)

teacher, student = network(), network()
vector = parameters_to_vector(teacher.parameters()).detach()
for model in (teacher, student):
    vector_to_parameters(vector, model.parameters())
before = accuracy(teacher)
train(student, 30)
print("accuracy of the teacher before", before, "and after", accuracy(teacher), "a training of the student only")

model = network()
saved = parameters_to_vector(model.parameters()).detach()
with torch.no_grad():
    model[0].weight.add_(1.0)
kept = bool((parameters_to_vector(model.parameters()) != saved).any())
print("the vector of parameters_to_vector is a copy:", kept)
assert kept and len(set(copied)) == 1
assert shared[0] < shared[1] < shared[2]
assert accuracy(teacher) == accuracy(student) > before + 0.2
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
