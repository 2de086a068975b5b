"""`jax.jit` with the compiler options that each backend needs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, Generic, ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")

#: Options of XLA, by backend.
#:
#: CPU: matmuls in bfloat16 are converted to float32. XLA would hoist the conversion of all stacked
#: layers out of their scan: 19 GB of temporaries for the DiT instead of 0.7 GB for one layer.
#:
#: GPU: without Triton's matmuls, XLA fuses biases and GELU into those of cuBLAS. A step of the DiT
#: takes 1.7 % less time (H200, `tools/measure_options.py`).
OPTIONS: dict[str, dict[str, str | bool]] = {
    "cpu": {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"},
    "gpu": {"xla_gpu_enable_triton_gemm": False},
}

_TARGET: ContextVar[str | None] = ContextVar("target", default=None)


def backend() -> str:
    """The backend to compile for, "cpu", "gpu" or "tpu"; models choose their kernels by it."""
    return _TARGET.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform: str) -> Generator[None]:
    """Traces and compiles for devices that this process does not have.

    Args:
      platform: What `backend` returns meanwhile.
    """
    with tracing_with(_TARGET, platform):
        yield


@contextlib.contextmanager
def tracing_with(variable: ContextVar[T], value: T) -> Generator[None]:
    """Sets a variable that traces depend on, which JAX's caches of traces do not know."""
    if variable.get() == value:
        yield
        return
    jax.clear_caches()
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
        jax.clear_caches()


class Program(Generic[P, T]):
    """A function compiled with the options of the current backend; see `program`.

    Attributes:
      function: The function itself, to trace it as a part of something else.
      donated: Names of the arguments that it donates.
    """

    def __init__(self, function: Callable[P, T], **options: Any):
        functools.update_wrapper(self, function)
        self.function, self._options = function, options
        self.donated: tuple[str, ...] = options.get("donate_argnames", ())
        self._compiled: dict[str, Any] = {}  # by backend

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs the function, compiled for the shapes of its arguments."""
        return self._jitted()(*args, **kwargs)

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> jax.stages.Lowered:
        """Traces the function for arguments that may be abstract, to compile without running it."""
        return self._jitted().lower(*args, **kwargs)

    def trace(self, *args: P.args, **kwargs: P.kwargs) -> jax.stages.Traced:
        """Traces the program for arguments that may be abstract; a call with the same reuses it."""
        return self._jitted().trace(*args, **kwargs)

    def _jitted(self) -> Any:
        target = backend()
        if target not in self._compiled:
            self._compiled[target] = jax.jit(
                self.function, compiler_options=OPTIONS.get(target), **self._options
            )
        return self._compiled[target]


def program(
    function: Callable[P, T],
    *,
    static_argnames: tuple[str, ...] = (),
    donate_argnames: tuple[str, ...] = (),
) -> Program[P, T]:
    """Compiles a function with the options of the current backend.

    Args:
      function: Traceable function. Modules are arguments, never closures: weights that it closes
        over would become constants of the program.
      static_argnames: See `jax.jit`.
      donate_argnames: See `jax.jit`.

    Returns:
      The compiled function.
    """
    return Program(function, static_argnames=static_argnames, donate_argnames=donate_argnames)
