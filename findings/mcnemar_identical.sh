#!/bin/sh
# statsmodels 0.15.0 and mlxtend 0.25.0: McNemar's test gives p = 0 for two classifiers with identical predictions.
#
# Expected: if two classifiers are right on the same images, no difference is seen, and p is 1, as the exact test says.
# Observed: with the continuity correction p is 0.0, the strongest possible evidence of a difference. The statistic is
# (|b - c| - 1)^2 / (b + c), where b and c count the images that only one of the two gets right. With b = c = 0 it is
# 1/0, which is infinite. With b = c > 0 it is above 0 too: two classifiers that win one image each (p 0.48) seem to
# differ more than two that win 1 and 2 (p 1.0). The correction must not go beyond |b - c|. mlxtend corrects by default.
# statsmodels computes the exact test by default, and corrects with exact=False.
#
# A robust evaluation meets this: two attacks that break the same images, or two checkpoints of one run, or a small
# sample give b = c = 0. A script that marks p < 0.05 then marks a network as different from itself. Nothing raises;
# numpy prints a warning about a division. Use the exact test, or treat b = c separately.
#
# Exits with 0 if the problem still exists, with 1 if not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check 'statsmodels==0.15.0' 'mlxtend==0.25.0' \
    'scipy==1.17.1' 'numpy==2.4.6' 'pandas==3.1.1' 'scikit-learn==1.9.1'
cat > "$folder/look.py" <<'PYTHON'
from importlib.metadata import version

import numpy as np
from mlxtend.evaluate import mcnemar as of_mlxtend
from mlxtend.evaluate import mcnemar_table
from statsmodels.stats.contingency_tables import mcnemar as of_statsmodels

print(*(f"{name} {version(name)}" for name in ("statsmodels", "mlxtend", "scipy", "numpy")))
rng = np.random.default_rng(0)
labels = rng.integers(0, 10, 1000)
correct = rng.random(1000) < 0.5
predicted = np.where(correct, labels, (labels + 1) % 10)


def both_wrong_or_right(only_first, only_second):
    """Return the table of two classifiers that differ on the first images, and agree on all others."""
    first, second = predicted.copy(), predicted.copy()
    wrong = (labels + 1) % 10
    stop = only_first + only_second
    first[:stop], second[:stop] = labels[:stop], labels[:stop]
    second[:only_first], first[only_first:stop] = wrong[:only_first], wrong[only_first:stop]
    return mcnemar_table(labels, first, second)


found = {}
for b, c in ((0, 0), (1, 1), (1, 2), (5, 5), (5, 6)):
    table = both_wrong_or_right(b, c)
    assert sorted((table[0][1], table[1][0])) == sorted((b, c))
    found[b, c] = (
        float(of_statsmodels(table, exact=True).pvalue),
        float(of_statsmodels(table, exact=False).pvalue),
        float(of_mlxtend(table)[1]),
    )
    print(f"b = {b}, c = {c}: p exact {found[b, c][0]:.3f}, corrected: statsmodels {found[b, c][1]:.3f},",
          f"mlxtend {found[b, c][2]:.3f}")
assert found[0, 0] == (1.0, 0.0, 0.0)
for b in (1, 5):
    assert found[b, b][0] == 1 and max(found[b, b][1:]) < 0.8 and min(found[b, b + 1][1:]) > 0.99
PYTHON
"$folder/env/bin/python" -W ignore "$folder/look.py"
