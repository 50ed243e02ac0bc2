"""Evaluate your own network: any module that maps images in [0, 1] to logits."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import bsk

rows = bsk.prepare("digits").split("train").index  # only bsk's training images, none of which is evaluated below
digits = load_digits()
x, y = torch.tensor(digits.images[rows] / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target[rows])

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(100):
    optimiser.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimiser.step()

for attack in ("natural", "fgsm", "pgd-20"):
    result = bsk.evaluate(model, data=bsk.prepare("digits"), attack=attack, eps=0.1, progress=False)
    print(result, *result.doubts, sep="\n  ")
