"""What compiles, and how compiled code reads a tensor: by its address."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.numpy_support import carray

Function = TypeVar("Function", bound=Callable[..., Any])
Floats = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint32]
Doubles = npt.NDArray[np.float64]
Pointers = npt.NDArray[np.int64]
Bins = npt.NDArray[np.uint16]
Scalar = Any  # a machine number of the compiled code

#: Sums run in float64. They may be reordered, which lets the compiler use vector registers; that there is no NaN may
#: not be assumed.
_REORDER: Final = {"reassoc", "contract", "nsz"}


_HERE: Final = Path(__file__).parent


@cache
def _fingerprint(*directories: Path) -> str:
    """Of all sources of compiled code: what is kept of one must not outlive a change of another that it calls."""
    sources = [source for directory in directories for source in sorted(directory.glob("*.py"))]
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


@contextmanager
def _kept_for_sources_in(directory: Path) -> Iterator[None]:
    # numba asks only whether the file of the function itself is as it was.
    options: Any = numba.config
    configured = options.CACHE_DIR
    options.CACHE_DIR = str(Path(configured or directory / "__pycache__") / _fingerprint(_HERE, directory))
    try:
        yield
    finally:
        options.CACHE_DIR = configured


def _marker(directory: Path) -> Path:
    kept = Path(cast(Any, numba.config).CACHE_DIR or directory / "__pycache__")
    return kept / _fingerprint(_HERE, directory) / "complete"


def is_kept(directory: Path = _HERE) -> bool:
    """Whether all that the sources there compile was compiled on this machine before, and is only to be loaded."""
    return _marker(directory).exists()


def mark_kept(directory: Path = _HERE) -> None:
    """Note it. Whoever is stopped while it compiles leaves some functions behind, and no note."""
    with suppress(OSError):  # where nothing can be written nothing was kept
        _marker(directory).touch()


def compiled_with(function: Function, directory: Path) -> Function:
    """Compile for this machine's CPU, and keep it on disk for as long as the sources here and in `directory` last."""
    compiler: Any = numba.njit
    options = {"fastmath": _REORDER, "nogil": True, "error_model": "numpy"}
    try:
        with _kept_for_sources_in(directory):
            return cast(Function, compiler(cache=True, **options)(function))
    except RuntimeError:  # no directory to cache in can be written: compiled anew in every process
        return cast(Function, compiler(**options)(function))


def compiled(function: Function) -> Function:
    """Compile a function of this package, see `compiled_with`."""
    return compiled_with(function, _HERE)


@intrinsic
def _pointer(_context: Any, address: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), codegen


@intrinsic
def as_float(_context: Any, pattern: Any) -> Any:
    """The float32 whose bits these are."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(pattern), codegen


# The compiler gives an intrinsic's first argument itself, which the types don't know.
@compiled
def floats_at(address: int, size: int) -> Floats:
    """The tensor of this size at this address."""
    return carray(_pointer(address), (size,), np.float32)  # type: ignore[call-arg]


@compiled
def bits_at(address: int, size: int) -> Bits:
    """The same elements' bits."""
    return carray(_pointer(address), (size,), np.uint32)  # type: ignore[call-arg]


@compiled
def pointers_at(address: int, size: int) -> Pointers:
    """The int64 array of this size at this address."""
    return carray(_pointer(address), (size,), np.int64)  # type: ignore[call-arg]


@compiled
def doubles_at(address: int, size: int) -> Doubles:
    """The float64 array of this size at this address."""
    return carray(_pointer(address), (size,), np.float64)  # type: ignore[call-arg]


@compiled
def bins_at(address: int, size: int) -> Bins:
    """The uint16 array of this size at this address."""
    return carray(_pointer(address), (size,), np.uint16)  # type: ignore[call-arg]


def described(arrays: Sequence[npt.NDArray[Any]]) -> Pointers:
    """Where arrays lie, and their shapes, [K, 4]: as one argument they cross into compiled code at the cost of one.

    The arrays have up to three dimensions, are contiguous, and have to outlive it.
    """
    found = np.ones((len(arrays), 4), np.int64)
    for row, array in zip(found, arrays, strict=True):
        row[0], row[1 : 1 + array.ndim] = array.ctypes.data, array.shape
    return found
