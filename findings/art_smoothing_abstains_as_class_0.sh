#!/bin/sh
# adversarial-robustness-toolbox 1.20.1: randomised smoothing's abstentions are predictions of class 0.
#
# `PyTorchRandomizedSmoothing.predict` returns one row per image, with a 1 for the class that wins the vote. Expected:
# where it abstains, the image counts as wrong, as in the paper (Cohen et al. 2019), or the class is -1, as from
# `certify` of the same object. Observed: the row is all 0, so that its `argmax(1)` is 0. An abstention counts as right
# if the image belongs to class 0, and as wrong otherwise. `art.utils.compute_success` takes the same argmax: where the
# network abstains, an attack fails on images of class 0 and succeeds on the others.
#
# Class 0 seems to be the most robust class: at every noise its accuracy is 100 %, though with much noise most of it are
# abstentions. The accuracy of all images depends on which class has the number 0, by 6 to 9 points here. Where the
# network knows nothing, it is the share of class 0, which is large if class 0 is the usual case, such as "healthy".
# `art.utils.compute_accuracy(outputs, labels, abstain=False)` counts rows whose sum is 0 as wrong.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' \
    'adversarial-robustness-toolbox==1.20.1' 'scikit-learn==1.9.1' 'scipy==1.17.1' 'numpy==2.4.6' packaging
cat > "$folder/look.py" <<'PYTHON'
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
np.random.seed(0)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
labels = torch.tensor(digits.target)
order = torch.randperm(len(images))
train, test = order[:1200], order[1200:1600]
x, y = images[test].numpy(), labels[test].numpy()


def votes(noise):
    """Train a network on noisy images, and return what the smoothed network predicts for the test images."""
    layers = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(512, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(15):
        for rows in train[torch.randperm(len(train))].split(50):
            noisy = images[rows] + noise * torch.randn_like(images[rows])
            optimizer.zero_grad()
            F.cross_entropy(model(noisy), labels[rows]).backward()
            optimizer.step()
    smoothed = PyTorchRandomizedSmoothing(
        model.eval(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), sample_size=100, scale=noise
    )
    return smoothed.predict(x)


def percent(right):
    return round(100 * float(right.mean()), 1)


print("torch", torch.__version__, "adversarial-robustness-toolbox", version("adversarial-robustness-toolbox"))
for noise in (0.5, 1.0, 2.0):
    outputs = votes(noise)
    abstained = outputs.sum(1) == 0
    right = outputs.argmax(1) == y
    true = right & ~abstained
    zero = y == 0
    classes = set(outputs[abstained].argmax(1).tolist())
    print(f"noise {noise}: {abstained.sum()} abstentions of {len(y)} images, their classes by argmax: {classes}")
    print(f"    class 0: accuracy {percent(right[zero])} %, without abstentions {percent(true[zero])} %")
    print(f"    all: accuracy {percent(right)} %, without abstentions {percent(true)} %")
    # The same votes, with each digit in turn as class 0.
    turns = [percent(true | (abstained & (y == first))) for first in range(10)]
    print(f"    accuracy if another digit were class 0: {min(turns)} to {max(turns)} %")
    assert abstained.sum() > 20 and right[zero & abstained].all() and not right[~zero & abstained].any()
    assert percent(right[zero]) > 95 and max(turns) - percent(true) > 3
assert percent(true[zero]) < 60
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
