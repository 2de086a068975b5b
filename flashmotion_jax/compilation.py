"""`jax.jit` with what each backend needs, and progress from inside a compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp

P = ParamSpec("P")
T = TypeVar("T")

Progress = Callable[[int], None]
"""Called on the host with the number of finished steps, in no guaranteed order."""

#: XLA:CPU has no bfloat16 matmul and converts to float32. It would move the conversion of a whole
#: stack of layers out of their scan: 19 GB of scratch for the DiT instead of one layer's 0.7 GB.
CPU_OPTIONS = {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}


def program(function: Callable[P, T], *, static_argnames: Sequence[str] = ()) -> Callable[P, T]:
    """Compiles a function with the options of the backend in use.

    Args:
      function: traceable; modules are arguments, never closures.
      static_argnames: as for `jax.jit`.

    Returns:
      The compiled function.
    """

    @functools.cache
    def compiled(backend: str) -> Callable[P, T]:
        options = CPU_OPTIONS if backend == "cpu" else None
        return jax.jit(function, static_argnames=static_argnames, compiler_options=options)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return compiled(jax.default_backend())(*args, **kwargs)

    return call


def report(progress: Progress | None, done: jax.Array, result: jax.Array) -> None:
    """Calls the host from inside a program once a step's result is there.

    Args:
      progress: nothing is traced if it is None.
      done: scalar, finished steps.
      result: of the step.
    """
    if progress is not None:
        # Without the sum the call would depend on nothing and could run before the step does.
        jax.debug.callback(lambda done, _: progress(int(done)), done, jnp.sum(result))
