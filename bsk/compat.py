"""What bsk uses that is private to torch, CPython, glibc or typer, or differs between their versions.

No other module may use such a thing. Each function says what it is for, and falls back to a public way where the thing
is missing; the tests cover the fallback too. torch is imported within the functions, since the command line needs some
of them before torch is loaded.
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

ROUNDED = ("tf32", "bf16")  # precisions that round fp32 factors before multiplication
VARIANTS = 64  # maximum number of compiled variants of a function
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
_BLOCK, _ALL = 1 << 30, (1 << 31) - 1


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector within the block, and exempt the objects created there from later collections.

    `gc.freeze` exists in CPython since 3.7, but not in PyPy. Without it the objects are collected like any others.
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
    """Return the standard library's class that reads pickles in Python, whose opcodes can be restricted one by one.

    `pickle._Unpickler` has existed under this name since Python 3.0. `pickle.Unpickler`, written in C, cannot be
    restricted in this way. Without it a class is returned that reads nothing and names the archives that need no
    pickles.
    """
    import pickle

    return getattr(pickle, "_Unpickler", _NoUnpickler)


class _NoUnpickler:
    dispatch: ClassVar[Any] = defaultdict(lambda: None)

    def __init__(self, file: object, **options: object) -> None:
        import pickle

        raise pickle.UnpicklingError("this Python cannot read pickles safely: take the archive's binary version")


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 1 GiB instead of returning them to the system each time.

    A network allocates and frees the same large blocks in every layer; each new block consists of unmapped pages, each
    of which causes a page fault. `mallopt` is specific to glibc; on other systems nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BLOCK)
        mallopt(_TRIM_THRESHOLD, _ALL)


def unknown_option(error: BaseException) -> str | None:
    """Return the option that a command line named though the command has none such, or None for another error.

    Click's NoSuchOption, of which typer has a copy of its own, has the attribute `possibilities`.
    """
    return str(getattr(error, "option_name", "")) or None if hasattr(error, "possibilities") else None


def usage_message(error: BaseException) -> tuple[str, int] | None:
    """Return the message and exit code of an error of typer for an invalid command line, or None for other errors.

    These errors derive from click's `ClickException`. typer has its own private copy of that class since 0.26, and
    exports only one of its subclasses. So the errors are recognised by click's documented `format_message` method.
    """
    if not hasattr(error, "format_message"):
        return None
    return str(error.format_message()), int(getattr(error, "exit_code", 2))


def sgd(parameters: Iterable[nn.Parameter], **options: Any) -> torch.optim.SGD:
    """Return torch's SGD without the wrappers that load torch's compiler when first called.

    The wrappers hide its methods from `torch.compile`, which bsk does not apply to the optimiser. Loading the compiler
    takes one to two seconds per training, more than an epoch on the digits. The option `differentiable` is not
    supported. Methods without such wrappers, or with wrappers that do not reveal what they wrap, are used as they are.
    """
    import torch

    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: unwrap(getattr(torch.optim.SGD, name)) for name in names}
    plain["step"] = torch.no_grad()(unwrap(torch.optim.SGD.step))
    made: torch.optim.SGD = type("SGD", (torch.optim.SGD,), plain)(parameters, **options)
    return made


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Allow two backward passes through one compiled output within the block, and more compiled variants of a function.

    Since torch 2.6 a compiled backward pass overwrites buffers of the forward pass, and only a private switch prevents
    this, both when compiling and when running. If the switch is missing, either the buffers are kept, as in older
    versions, or torch raises an error. torch keeps 8 compiled variants per function and silently runs others
    uncompiled; networks, sizes, modes and precisions soon exceed 8. Without the second switch the limit stays 8.
    """
    with contextlib.ExitStack() as back:
        with contextlib.suppress(ImportError, AttributeError):
            from torch._functorch import config

            back.enter_context(config.patch(donated_buffer=False))
        with contextlib.suppress(ImportError, AttributeError):
            from torch._dynamo import config as dynamo

            back.enter_context(dynamo.patch(recompile_limit=VARIANTS))
        yield


def number_of_hooks(layer: nn.Module) -> int | None:
    """Return how many hooks a layer has, or None if that is not known.

    torch keeps them in private dictionaries and offers no public way to ask.
    """
    kept = [getattr(layer, name, None) for name in _HOOKS]
    known = [each for each in kept if each is not None]
    return sum(map(len, known)) if len(known) == len(kept) else None


def has_hooks(layer: nn.Module) -> bool:
    """Return whether a layer has hooks; if that is not known the answer is yes, to be safe."""
    return number_of_hooks(layer) != 0


def version_of(tensor: Tensor) -> object:
    """Return a value that stays equal as long as the tensor is not modified in place.

    `Tensor._version` counts in-place modifications; torch's notes on autograd document it, but only under this private
    name. A tensor created in inference mode has no counter. Without it the returned value is never equal to an earlier
    one.
    """
    try:
        return tensor._version
    except (AttributeError, RuntimeError):
        return object()


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x (..., in) @ weight (out, in)^T + bias, computed by oneDNN on the CPU in fp32 and without a gradient.

    `_linear_pointwise` is what torch.compile uses for a linear layer on the CPU, since torch 2.0. The public
    alternative, tensors in oneDNN's layout, gives the same bits but copies all of them, and takes 1.3 to 4 times as
    long for a small layer.
    """
    import torch

    product = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if product is not None:
        y: Tensor = product(x.contiguous(), weight, bias, "none", [], "")
        return y
    b = weight.new_zeros(len(weight)) if bias is None else bias
    rows, whole, sums = (each.detach().to_mkldnn() for each in (x.reshape(-1, x.shape[-1]), weight, b))
    return torch.nn.functional.linear(rows, whole, sums).to_dense().reshape(*x.shape[:-1], len(weight))


def cpu_is_fast_in_bf16() -> bool:
    """Return whether the CPU multiplies bf16 faster than fp32: by AMX, or by AVX512-BF16 except on Intel since 2023.

    Intel's CPUs with AVX512-FP16 (Sapphire Rapids and later) have AMX, and multiply in AVX512-BF16 at half of the rate
    that others have. Where a virtual machine hides AMX, bf16 is slower there than fp32
    (`findings/torch_bf16_without_amx.sh`).

    `torch.cpu.get_capabilities` is newer than torch 2.6. Without it the answer is no, which costs only time.
    """
    import torch

    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    half_rate = found.get("avx512_fp16") and "AMD" not in str(found.get("cpu_name"))
    return bool(found.get("amx_bf16") or (found.get("avx512_bf16") and not half_rate))


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Multiply fp32 in full precision within the block, where torch might round the factors to 10 bits or fewer.

    Since torch 2.9 a precision can be set globally, per backend and per kind of operation; an unset one inherits from
    the wider scope. Older versions have `allow_tf32` and the precision of matrix products. torch raises an error when
    an old setting is read that contradicts the new ones, so within the block a model may read only the new ones.
    Afterwards each scope has its own setting again, and inherited ones are inherited again.
    """
    import torch

    products = "highest"
    with contextlib.suppress(RuntimeError):  # it contradicts the new settings, which then take precedence
        products = torch.get_float32_matmul_precision()
    with contextlib.ExitStack() as back:
        if hasattr(torch.backends, "fp32_precision"):
            for place in _precisions():
                if (found := place.fp32_precision) != "ieee":  # set here, since the wider scope is ieee by now
                    back.callback(setattr, place, "fp32_precision", found)
                    place.fp32_precision = "ieee"
        else:
            back.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
            torch.backends.cudnn.allow_tf32 = False
        if products != "highest":
            back.callback(torch.set_float32_matmul_precision, products)
            torch.set_float32_matmul_precision("highest")
        yield


@contextlib.contextmanager
def usual_products() -> Iterator[None]:
    """Multiply fp32 as torch does in a new process within the block: in full precision, but for cuDNN's convolutions.

    It concerns the two settings for all devices. A setting of one backend is left as it is.
    """
    import torch

    backends: Any = torch.backends
    with contextlib.ExitStack() as back:
        if (found := getattr(backends, "fp32_precision", "none")) != "none":
            back.callback(setattr, backends, "fp32_precision", found)
            backends.fp32_precision = "none"
        with contextlib.suppress(RuntimeError):  # see `without_tf32`
            if (products := torch.get_float32_matmul_precision()) != "highest":
                back.callback(torch.set_float32_matmul_precision, products)
                torch.set_float32_matmul_precision("highest")
        yield


def _precisions() -> list[Any]:
    """Return the scopes that have an `fp32_precision`, wider ones first; an empty list if none of them rounds."""
    import torch

    b: Any = torch.backends
    kinds = [b.mkldnn.matmul, b.mkldnn.conv, b.mkldnn.rnn]
    if torch.cuda.is_available():
        kinds += [b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn]
    # Not b.mkldnn itself: its setter writes the global setting (seen in torch 2.14).
    return [b, b.cudnn, *kinds] if any(each.fp32_precision in ROUNDED for each in kinds) else []
