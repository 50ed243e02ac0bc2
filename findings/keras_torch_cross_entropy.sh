#!/bin/sh
# keras 3.15.1, torch backend: images whose true class has a probability below 1e-7, the worst ones, have no gradient.
#
# The usual Keras network ends in a softmax, and its loss is `sparse_categorical_crossentropy`. In the logits the
# gradient of that loss is p - y. Expected: an image that is surely wrong has the largest gradient of all, and one that
# is surely right a small gradient, whose sign an attack can follow. Observed: the torch backend clips probabilities to
# [1e-7, 1 - 1e-7] before the logarithm, and outside of it the gradient is exactly 0. (`from_logits=True` on the logits
# gives the expected one.)
#
# Here a third of the adversarial images have a true probability below 1e-7, so that adversarial training in Keras would
# learn nothing from them, though an image with 1e-3 counts in full. An attack does not move images that the network is
# sure of: PGD leaves 16 % right, and 0.6 % with the loss of the logits. Nothing warns. The network's own loss curve
# looks usual, since the clipped loss of such an image is 16.1.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'keras==3.15.1' \
    'scikit-learn==1.9.1' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
import os

os.environ["KERAS_BACKEND"] = "torch"
import keras
import torch
from sklearn.datasets import load_digits

print("torch", torch.__version__, "keras", keras.__version__, "backend", keras.backend.backend())
torch.set_num_threads(1)
keras.utils.set_random_seed(0)
digits = load_digits()
images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
layers = keras.layers
body = keras.Sequential([layers.Input((64,)), layers.Dense(128, "relu"), layers.Dense(128, "relu"), layers.Dense(10)])
model = keras.Sequential([body, layers.Softmax()])
model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
probability_loss = keras.losses.SparseCategoricalCrossentropy(reduction=None)
logit_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)


def pgd(loss, network, eps, steps=20):
    """Return the images of a PGD attack in the eps-ball, and the percentage of images whose first gradient is 0."""
    x = images
    for step in range(steps):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(labels, network(x)).sum(), x)
        if step == 0:
            still = (gradient == 0).all(1).float().mean().item()
        x = (x + eps / 4 * gradient.sign()).clamp(images - eps, images + eps).clamp(0, 1)
    return x.detach(), round(100 * still, 1)


def accuracy(x):
    return round(100 * (body(x).argmax(1) == labels).float().mean().item(), 1)


model.fit(images, labels, batch_size=100, epochs=100, verbose=0)
print("accuracy without an attack:", accuracy(images), "%")
found = {}
for name, loss, network in (("probabilities", probability_loss, model), ("logits", logit_loss, body)):
    x_adv, still = pgd(loss, network, 0.2)
    found[name] = accuracy(x_adv), still
    print(f"PGD on the loss of {name}: {still} % of the images do not move at first, accuracy {found[name][0]} %")

p = model(x_adv).gather(1, labels[:, None])[:, 0].detach()
norms = {}
for low, high in ((0, 1e-7), (1e-7, 1e-3), (1e-3, 1)):
    rows = (p >= low) & (p < high)
    weights = body.layers[-1].kernel.value
    for name, loss, network in (("probabilities", probability_loss, model), ("logits", logit_loss, body)):
        (gradient,) = torch.autograd.grad(loss(labels[rows], network(x_adv[rows])).sum(), weights)
        norms[name, low] = gradient.norm().item() / int(rows.sum())
    print(f"{int(rows.sum())} adversarial images with a true probability from {low} to {high}: norm of the weights' "
          f"gradient per image {norms['probabilities', low]:.3f}, by the logits {norms['logits', low]:.3f}")
assert found["logits"][1] == 0 and found["probabilities"][1] > 10
assert found["probabilities"][0] - found["logits"][0] > 10
assert norms["probabilities", 0] == 0 and norms["logits", 0] > 1
assert abs(norms["probabilities", 1e-7] / norms["logits", 1e-7] - 1) < 0.01
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
