"""What bsk uses that is private to torch, CPython, glibc or typer, or differs between their versions.

No other module may name such a thing. Each function says what the thing is for, and takes a public way where it is
missing; the tests take that way too. torch is imported within the functions, since the command line needs some of
them before it has loaded torch.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from inspect import unwrap
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ROUNDED = ("tf32", "bf16")  # precisions in which fp32 factors are rounded before they are multiplied
FORMS = 64  # of a compiled function
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
_BLOCK, _ALL = 1 << 30, (1 << 31) - 1


@contextlib.contextmanager
def objects_that_stay() -> Iterator[None]:
    """Let the collector of garbage rest within the block, and never look at what came of it.

    `gc.freeze` is CPython's, since 3.7; PyPy has none. Without it the collector looks at these objects as at others.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
    if hasattr(gc, "freeze"):
        gc.freeze()


def python_unpickler() -> Any:
    """Return the class of Python's library that reads pickles in Python, whose opcodes can be chosen one by one.

    `pickle._Unpickler` has been there since Python 3.0, under this name alone: `pickle.Unpickler` is the one in C,
    which knows no such choice. Without it there is a class that reads nothing and says which archives need no pickles.
    """
    import pickle

    return getattr(pickle, "_Unpickler", _NoUnpickler)


class _NoUnpickler:
    dispatch: ClassVar[Any] = defaultdict(lambda: None)

    def __init__(self, file: object, **options: object) -> None:
        import pickle

        raise pickle.UnpicklingError("this Python cannot read pickles safely: take the archive's binary version")


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 1 GiB instead of handing them back to the system each time.

    A network frees and asks for the same large blocks in every layer; each new one comes as empty pages, which
    cost a fault apiece. `mallopt` is glibc's own. Elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BLOCK)
        mallopt(_TRIM_THRESHOLD, _ALL)


def usage_message(error: BaseException) -> tuple[str, int] | None:
    """Return the message and exit code of an error that typer raises for a wrong command line, None for other errors.

    The class of all of them is click's `ClickException`, which typer has a copy of since 0.26, under a private name; of
    its subclasses typer exports one. So they are known by click's documented `format_message`, which all of them have.
    """
    if not hasattr(error, "format_message"):
        return None
    return str(error.format_message()), int(getattr(error, "exit_code", 2))


def sgd(parameters: Iterable[nn.Parameter], **options: Any) -> torch.optim.SGD:
    """Return torch's SGD without the wrappers that load torch's compiler at their first call.

    The wrappers hide its methods from `torch.compile`, which bsk does not use. Loading it takes one to two seconds of
    every training: more than the digits take to an epoch. `differentiable` is not known here. A version whose methods
    have no wrappers, or others that do not say what they wrap, is taken as it is.
    """
    import torch

    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: unwrap(getattr(torch.optim.SGD, name)) for name in names}
    plain["step"] = torch.no_grad()(unwrap(torch.optim.SGD.step))
    made: torch.optim.SGD = type("SGD", (torch.optim.SGD,), plain)(parameters, **options)
    return made


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Let compiled passes go backward twice by one output within the block, and let torch keep many forms of them.

    Since torch 2.6 a compiled backward pass writes over what the forward one has kept, and there is no public switch;
    both as it is compiled and as it runs this private one counts. Where it is missing they keep it, as they did before,
    or torch says that they do not. Of one function torch keeps 8 forms, and runs others as they are, without a word
    that a program sees; networks, sizes, modes and precisions are soon more. Without that switch it is 8.
    """
    with contextlib.ExitStack() as back:
        with contextlib.suppress(ImportError, AttributeError):
            from torch._functorch import config

            back.enter_context(config.patch(donated_buffer=False))
        with contextlib.suppress(ImportError, AttributeError):
            from torch._dynamo import config as forms

            back.enter_context(forms.patch(recompile_limit=FORMS))
        yield


def has_hooks(layer: nn.Module) -> bool:
    """Say if somebody else looks at a layer, by hooks.

    torch keeps them in private dictionaries and has no public way to ask. Where it keeps them elsewhere there may be
    some, so the answer is yes.
    """
    kept = [getattr(layer, name, None) for name in _HOOKS]
    return any(each is None or len(each) > 0 for each in kept)


def state_of(tensor: Tensor) -> object:
    """Return what is equal for as long as nobody writes into the tensor.

    `Tensor._version` counts the writes: torch's notes on autograd describe it, but only by this name. A tensor made in
    inference mode has no count. Without it the answer is never the same twice.
    """
    try:
        return tensor._version
    except (AttributeError, RuntimeError):
        return object()


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x (..., in) @ weight (out, in)^T + bias by oneDNN, all of them fp32, on the CPU and without a gradient.

    `_linear_pointwise` is what torch.compile makes of a linear layer on the CPU, since torch 2.0. The public way,
    tensors in oneDNN's layout, gives the same bits; it copies all of them, and a small layer takes 1.3 to 4 times as
    long.
    """
    import torch

    product = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if product is not None:
        y: Tensor = product(x.contiguous(), weight, bias, "none", [], "")
        return y
    b = weight.new_zeros(len(weight)) if bias is None else bias
    rows, whole, sums = (each.detach().to_mkldnn() for each in (x.reshape(-1, x.shape[-1]), weight, b))
    return torch.nn.functional.linear(rows, whole, sums).to_dense().reshape(*x.shape[:-1], len(weight))


def cpu_multiplies_bf16() -> bool:
    """Say if the CPU has instructions that multiply bf16.

    `torch.cpu.get_capabilities` is of 2026; torch 2.6 has none. Without it the answer is no, which costs time alone.
    """
    import torch

    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Multiply fp32 as fp32 within the block, where torch would round the factors to 10 bits or fewer.

    Since torch 2.9 a precision is kept for all, for a backend and for each kind of operation, and one that has none of
    its own has the wider one's; before there were `allow_tf32` and the precision of matrix products. torch raises where
    one reads an old flag that does not fit the new ones, so that within the block a model may read new ones alone.
    Afterwards each has its own again, and none has what it only had from a wider one.
    """
    import torch

    products = "highest"
    with contextlib.suppress(RuntimeError):  # it does not fit the new ones, which count alone then
        products = torch.get_float32_matmul_precision()
    with contextlib.ExitStack() as back:
        if hasattr(torch.backends, "fp32_precision"):
            for place in _precisions():
                if (found := place.fp32_precision) != "ieee":  # its own: by now the wider one's is ieee
                    back.callback(setattr, place, "fp32_precision", found)
                    place.fp32_precision = "ieee"
        else:
            back.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
            torch.backends.cudnn.allow_tf32 = False
        if products != "highest":
            back.callback(torch.set_float32_matmul_precision, products)
            torch.set_float32_matmul_precision("highest")
        yield


def _precisions() -> list[Any]:
    """Return what has an `fp32_precision`, wider ones first; nothing where none rounds."""
    import torch

    b: Any = torch.backends
    kinds = [b.mkldnn.matmul, b.mkldnn.conv, b.mkldnn.rnn]
    if torch.cuda.is_available():
        kinds += [b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn]
    # Not mkldnn's own: its setter writes the widest one (seen in torch 2.14).
    return [b, b.cudnn, *kinds] if any(each.fp32_precision in ROUNDED for each in kinds) else []
