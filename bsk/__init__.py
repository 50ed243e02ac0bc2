"""Train image classifiers that withstand adversarial perturbations, and measure whether they do.

An implementation of "Efficient Robust Training via Backward Smoothing" (Chen, Cheng, Gan, Gu, Liu).
"""

from bsk.version import VERSION as __version__

__all__ = ["__version__"]
