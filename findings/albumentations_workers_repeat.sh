#!/bin/sh
# albumentations 2.0.8: in workers of a DataLoader, every epoch repeats the augmentation of the first one.
#
# Expected: each image gets a new crop, flip and noise in each epoch, as with torchvision, and as in the main process.
# torch 2.14.1 gives each worker of each epoch its own seed, for torch, random and numpy. Observed: a Compose holds its
# own generator of random numbers, seeded when it is made. A worker starts with a copy of it as it was in the main
# process, where nothing advances it. So the workers of one epoch all draw the same numbers, and those of the next epoch
# draw them again. This is so without `seed` too. `numpy.random.seed`, `random.seed` and a `worker_init_fn` that seeds
# them change nothing.
#
# With a shuffled order, images and draws are paired anew, but all epochs choose from the same few draws: as many as one
# worker makes in one epoch. Without shuffling each image has one augmentation forever. So a training that relies on
# augmentation against robust overfitting gets less of it than its log says, and repeated noise for randomised smoothing
# is not new noise: votes over ten passes are ten times the same vote. `persistent_workers=True` helps between epochs,
# not between workers. A `worker_init_fn` avoids both that calls `set_random_seed(torch.initial_seed() % 2**32)` on the
# Compose.
#
# Exits with 0 if the problem still exists, with 1 if not. Needs 6 GB of disk for torch.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'torch==2.14.1' 'torchvision==0.29.1' \
    'albumentations==2.0.8' 'numpy==2.4.6'
cat > "$folder/look.py" <<'PYTHON'
from importlib.metadata import version

import albumentations
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms import v2

WORKERS, IMAGES = 2, 6


class OfAlbumentations(Dataset):
    """Return how noise changes the mean of a gray image."""

    def __init__(self):
        self.transform = albumentations.Compose([albumentations.GaussNoise(p=1.0)])

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        return float(self.transform(image=np.full((8, 8, 3), 0.5, np.float32))["image"].mean()) - 0.5


class OfTorchvision(OfAlbumentations):
    def __init__(self):
        self.noise = v2.GaussianNoise(sigma=0.1)

    def __getitem__(self, index):
        return float(self.noise(torch.full((3, 8, 8), 0.5)).mean()) - 0.5


def give_seed(worker):
    get_worker_info().dataset.transform.set_random_seed(torch.initial_seed() % 2**32)


def look(name, dataset, **settings):
    """Return whether two epochs are equal, and whether the two workers of the first one are."""
    loader = DataLoader(dataset, batch_size=1, **settings)
    first, second = ([round(batch.item(), 4) for batch in loader] for _ in range(2))
    found = first == second, first[::2] == first[1::2]
    print(f"{name}: epochs {first} {second}: equal epochs {found[0]}, equal workers {found[1]}")
    return found


print("torch", torch.__version__, "albumentations", version("albumentations"))
assert look("albumentations, main process", OfAlbumentations()) == (False, False)
assert look("torchvision, 2 workers", OfTorchvision(), num_workers=WORKERS) == (False, False)
seeded = look("albumentations, 2 workers with seeds", OfAlbumentations(), num_workers=WORKERS, worker_init_fn=give_seed)
assert seeded == (False, False)
lasting = look("albumentations, 2 lasting workers", OfAlbumentations(), num_workers=WORKERS, persistent_workers=True)
assert lasting == (False, True)
assert look("albumentations, 2 workers", OfAlbumentations(), num_workers=WORKERS) == (True, True)
PYTHON
NO_ALBUMENTATIONS_UPDATE=1 "$folder/env/bin/python" -W ignore "$folder/look.py"
