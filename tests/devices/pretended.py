"""A pretended accelerator: tensors that claim to be on `cuda:0` or `mps:0`, with their numbers on the CPU.

It shows what fails on a device without having one: an operation on tensors of two devices, random numbers from a
generator of another device, fp64 on MPS. It counts how often the host waits for the device. Results are those of a CPU.
Kernels, precisions, memory, CUDA graphs and NCCL cannot be pretended.
"""

from __future__ import annotations

import collections
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

READS = {"_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero", "masked_select", "repeat_interleave"}
COPIES = {"copy_", "_to_copy", "_copy_from", "lift", "lift_fresh", "detach"}  # may have tensors of two devices
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}  # may have indices on the CPU
waits: collections.Counter[str] = collections.Counter()  # by the line of bsk that caused them

_kind = "cuda"
_made_there: list[bool | None] = []  # whether the function that runs makes its tensors on the device
_drawn_from: list[str] = []  # the device of the generator of the function that runs
_Generator = torch.Generator


def _wait() -> None:
    frame = sys._getframe(1)
    while frame and "/bsk/" not in frame.f_code.co_filename:
        frame = frame.f_back  # type: ignore[assignment]
    if frame:
        waits[f"{frame.f_code.co_filename.rpartition('/bsk/')[2]}:{frame.f_lineno}"] += 1


class There(Tensor):
    """A tensor that claims to be on the device; `here` has its numbers."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor, requires_grad: bool = False) -> There:
        made = Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device="cpu",
            requires_grad=requires_grad,
        )
        made.here = here
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device(_kind, 0)

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return _kind == "cuda"

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.here})"

    def __deepcopy__(self, memo: dict[int, Any]) -> There:
        copied = There(self.here.detach().clone(), self.requires_grad)
        memo[id(self)] = copied
        return copied

    def tolist(self) -> Any:
        _wait()
        return self.here.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {_kind}:0 device type tensor to numpy")

    __array__ = numpy

    def data_ptr(self) -> int:
        return self.here.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _refuse_fp64(dtype: torch.dtype | None) -> None:
    if _kind == "mps" and dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")


def _mixed(name: str, args: Any, others: list[Tensor]) -> bool:
    """Return whether an operation with a tensor on the device has one that should be there and is not."""
    if name in COPIES:
        return False
    if name in INDEXING:
        value = args[2] if name != "index" and len(args) > 2 else None
        on_cpu = isinstance(value, Tensor) and not isinstance(value, There) and value.dim() > 0
        return not isinstance(args[0], There) or on_cpu
    in_place = bool(args) and isinstance(args[0], Tensor) and name.endswith("_") and not isinstance(args[0], There)
    return in_place or any(each.dim() for each in others)


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the numbers, after checks that a device would make."""
    name = func._schema.name.split("::")[1]
    leaves = tree_leaves((args, kwargs))
    there = [each for each in leaves if isinstance(each, There)]
    others = [each for each in leaves if isinstance(each, Tensor) and not isinstance(each, There)]
    if there and name in READS:
        _wait()
    if (
        there
        and name in INDEXING
        and any(
            isinstance(each, Tensor) and (each.dtype == torch.bool or (each.dim() and not isinstance(each, There)))
            for each in tree_leaves(args[1])
        )
    ):
        _wait()
    if there and others and _mixed(name, args, others):
        raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
    result_there = bool(there) or bool(_made_there and _made_there[-1] and not others)
    if kwargs.get("device") is not None:
        device = torch.device(kwargs["device"])
        if device.type == "meta":
            return func(*args, **kwargs)
        within = bool(_made_there and _made_there[-1]) or bool(there and name != "_to_copy")
        result_there = device.type == _kind or within
        kwargs = {**kwargs, "device": "cpu"}
    if kwargs.get("generator") is not None:
        source = _drawn_from[-1] if _drawn_from else kwargs["generator"].device.type
        if source != (_kind if result_there else "cpu"):
            raise RuntimeError(f"Expected a {_kind if result_there else 'cpu'} generator but found {source}: {func}")
    if result_there:
        _refuse_fp64(kwargs.get("dtype"))
        for each in (*there, *others):
            _refuse_fp64(each.dtype)
    known: dict[int, There] = {id(each.here): each for each in there}
    bare = tree_map(lambda each: each.here if isinstance(each, There) else each, (args, kwargs))
    found = func(*bare[0], **bare[1])

    def wrapped(each: Any) -> Any:
        if not isinstance(each, Tensor) or isinstance(each, There) or any(each is other for other in others):
            return each
        if id(each) in known:
            return known[id(each)]
        if result_there:
            _refuse_fp64(each.dtype)
            return There(each)
        return each

    return tree_map(wrapped, found)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _moved(x: Tensor, args: Any, kwargs: Any) -> Tensor:
    """Do what x.to(...) does."""
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for each in args:
        if isinstance(each, Tensor):
            device, dtype = each.device, each.dtype
        elif isinstance(each, (str, torch.device)):
            device = each
        elif isinstance(each, torch.dtype):
            dtype = each
    place = torch.device(device) if device is not None else x.device
    more = {"memory_format": kwargs["memory_format"]} if kwargs.get("memory_format") is not None else {}
    if place.type == _kind:
        _refuse_fp64(dtype or x.dtype)
    with torch._C.DisableTorchFunction():
        if place.type == "cpu" and isinstance(x, There):
            _wait()
            return x.here.detach().clone().to(dtype or x.dtype, **more)
        if place.type == _kind and not isinstance(x, There):
            return There(x.detach().to(dtype or x.dtype, copy=True, **more))
        if isinstance(x, There) and (dtype is not None or more or kwargs.get("copy")):
            _made_there.append(True)
            try:
                return torch.Tensor.to(x, dtype or x.dtype, copy=kwargs.get("copy", False), **more)
            finally:
                _made_there.pop()
        return x if isinstance(x, There) else torch.Tensor.to(x, *args, **kwargs)


class _Functions(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if isinstance(first, Tensor) and func in (torch.Tensor.to, torch.Tensor.type_as):
            return _moved(first, args[1:], kwargs)
        if isinstance(first, Tensor) and func is torch.Tensor.cpu:
            return _moved(first, ("cpu",), {})
        if isinstance(first, There):
            if func in (torch.Tensor.tolist, torch.Tensor.numpy):
                return getattr(first, func.__name__)()
            if getattr(func, "__name__", "") == "__get__":
                with torch._C.DisableTorchFunction():
                    return func(*args, **kwargs)
            if func is torch.Tensor.new_tensor:
                _refuse_fp64(first.dtype)
                return There(torch.tensor(args[1], dtype=first.dtype))
        if func is torch.tensor and kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type == _kind
            _made_there.append(None)
            try:
                made = func(*args, **{**kwargs, "device": "cpu"})
            finally:
                _made_there.pop()
            if not there:
                return made
            _refuse_fp64(made.dtype)
            return There(made)
        generator = kwargs.get("generator")
        _made_there.append(any(isinstance(each, There) for each in tree_leaves((args, kwargs))))
        if generator is not None:
            _drawn_from.append(generator.device.type)
        try:
            return func(*args, **kwargs)
        finally:
            _made_there.pop()
            if generator is not None:
                _drawn_from.pop()


class _OwnGenerator(_Generator):
    """A generator that claims to be on the device."""

    place: str

    def __new__(cls, device: Any = "cpu") -> _OwnGenerator:
        made = _Generator.__new__(cls, "cpu")
        made.place = torch.device(device).type
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cpu") if self.place == "cpu" else torch.device(_kind, 0)


class _Always:
    """A function that returns the same value for any arguments."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.__wrapped__ = self

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self.value


@contextlib.contextmanager
def pretended(kind: str) -> Iterator[None]:
    """Pretend within the block, in a process that ends soon, that there is a device of a kind: cuda or mps."""
    global _kind
    _kind = kind
    torch.Generator = _OwnGenerator  # type: ignore[misc]
    state = torch.zeros(16, dtype=torch.uint8)
    answers: dict[str, Any] = {"get_rng_state": state, "is_available": True}
    silent = ["set_rng_state", "manual_seed", "synchronize", "_lazy_init"]
    if kind == "cuda":
        answers |= {"get_device_capability": (9, 0), "get_device_name": "Pretended", "is_bf16_supported": True}
        answers |= {"device": contextlib.nullcontext(), "is_initialized": False, "current_device": 0, "device_count": 1}
    for name, value in {**answers, **dict.fromkeys(silent)}.items():
        setattr(getattr(torch, kind), name, _Always(value))
    if kind == "mps":
        torch.backends.mps.is_available = _Always(True)
        torch.mps._is_in_bad_fork = _Always(False)  # type: ignore[attr-defined]
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with _Operations(), _Functions():
        yield
