"""Stochastic gradient descent with momentum and weight decay, as the paper trains."""

from __future__ import annotations

from inspect import unwrap

import torch


class SGD(torch.optim.SGD):
    """torch's own, without the wrappers that load torch's compiler at their first call.

    They hide these methods from `torch.compile`, which bsk does not use. Loading it takes one to two seconds of every
    training: more than the digits take to an epoch. `differentiable` is not known here.
    """

    step = torch.no_grad()(unwrap(torch.optim.SGD.step))


for _name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
    setattr(SGD, _name, unwrap(getattr(torch.optim.SGD, _name)))
