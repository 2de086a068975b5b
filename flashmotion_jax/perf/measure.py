"""Measures one program: compiles it, runs it on random arrays, times it.

The arrays are made from the program's abstract arguments, so no checkpoint is needed.
"""

from __future__ import annotations

import functools
import inspect
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from flashmotion_jax.perf.programs import OutOfMemory, PlannedProgram
from flashmotion_jax.runtime.errors import is_resource_exhausted
from flashmotion_jax.runtime.sharding import sharding_of
from flashmotion_jax.training.train_state import TrainState

#: How many random numbers the arrays repeat. A prime, so that rows of an array differ.
NUMBERS = 65_521


@dataclass(frozen=True)
class Measured:
    """What a program took.

    Attributes:
      program: The program.
      compile_seconds: Seconds to trace and compile it, or to read it from the cache on disk.
      seconds: Seconds of each run after the first.
      memory: Peak bytes on a device, according to the compiler.
      devices: Number of devices that it ran on.
    """

    program: PlannedProgram
    compile_seconds: float
    seconds: list[float]
    memory: int
    devices: int

    @property
    def rate(self) -> float:
        """Model FLOP/s of one device."""
        return self.program.model_flops / self.median / self.devices

    @property
    def median(self) -> float:
        """Seconds per run."""
        return statistics.median(self.seconds)


def measure(program: PlannedProgram, repeat: int) -> Measured | OutOfMemory:
    """Compiles a program for the current mesh, and runs it.

    Args:
      program: Program to measure.
      repeat: Runs to time, after one warm-up run.

    Raises:
      jax.errors.JaxRuntimeError: It failed for another reason than too little memory.
    """
    try:
        return _measure(program, repeat)
    except jax.errors.JaxRuntimeError as error:
        if not is_resource_exhausted(error):
            raise
        return OutOfMemory.from_message(program, str(error))


def _measure(program: PlannedProgram, repeat: int) -> Measured:
    start = time.perf_counter()
    compiled = program.lower().compile()
    compile_seconds = time.perf_counter() - start
    seconds = time_runs(program, compiled, list(fill(program.args)), repeat)
    analysis: Any = compiled.memory_analysis()
    memory = max(
        analysis.peak_memory_in_bytes,
        analysis.argument_size_in_bytes + analysis.temp_size_in_bytes,
    )
    return Measured(program, compile_seconds, seconds, memory, jax.sharding.get_mesh().size)


def time_runs(
    program: PlannedProgram, compiled: jax.stages.Compiled, args: list[Any], repeat: int
) -> list[float]:
    """Seconds of `repeat` runs of a compiled program, after one warm-up run.

    Args:
      program: The program.
      compiled: The same, compiled.
      args: Arguments; those that a run donates are replaced by the results that succeed them.
      repeat: Runs to time.
    """

    def timed() -> float:
        jax.block_until_ready(args)
        start = time.perf_counter()
        result = jax.block_until_ready(compiled(*args))
        seconds = time.perf_counter() - start
        for index in _donated(program):
            args[index] = _successor(result, args[index])
        return seconds

    return run_times(timed, repeat)


def run_times(timed: Callable[[], float], repeat: int) -> list[float]:
    """Seconds of `repeat` runs, after one warm-up run.

    Args:
      timed: Runs once and returns its seconds.
      repeat: Runs to time.
    """
    timed()
    return [timed() for _ in range(repeat)]


def fill(tree: Any, seed: int = 0) -> Any:
    """Arrays in place of abstract ones: small normal numbers, ones for integers.

    Optimizer states are zero, as at the beginning of a training run.

    Args:
      tree: Pytree of `jax.ShapeDtypeStruct`.
      seed: Seed of the numbers.
    """
    numbers = 0.02 * np.random.default_rng(seed).standard_normal(NUMBERS, np.float32)

    def of_array(array: jax.ShapeDtypeStruct) -> jax.Array:
        place = sharding_of(array)
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            keys = jax.random.split(jax.random.key(seed), max(1, array.size))
            return jax.device_put(keys.reshape(array.shape), place)
        if array.dtype.itemsize == 1 and array.dtype != bool:  # weights in 8 bits, of any size
            return _repeater(array.shape, array.dtype, place)(1600 * numbers)
        if jnp.issubdtype(array.dtype, jnp.floating) and array.ndim > 0:
            return _repeater(array.shape, array.dtype, place)(numbers)
        value = 0.5 if jnp.issubdtype(array.dtype, jnp.floating) else 1
        return jnp.full(array.shape, value, array.dtype, device=place)

    def of_node(node: Any) -> Any:
        if not isinstance(node, TrainState):
            return of_array(node)
        zeros = jax.tree.map(
            lambda array: jnp.zeros(array.shape, array.dtype, device=sharding_of(array)),
            node._replace(params=None),
        )
        return zeros._replace(params=jax.tree.map(of_array, node.params))

    return jax.tree.map(of_node, tree, is_leaf=lambda node: isinstance(node, TrainState))


@functools.cache
def _repeater(shape: tuple[int, ...], dtype: Any, place: Sharding) -> Callable[[Any], jax.Array]:
    """A function that fills an array on its devices by repeating a few numbers.

    Drawing billions of numbers on the host, or copying them from there, would take minutes.
    """
    return jax.jit(
        lambda numbers: jnp.resize(numbers, shape).astype(dtype),
        out_shardings=place,
    )


def _donated(program: PlannedProgram) -> list[int]:
    """Indices of the arguments that a run donates."""
    names = list(inspect.signature(program.program.function).parameters)
    places = [names.index(name) for name in program.program.donated]
    return [place for place in places if jax.tree.leaves(program.args[place])]


def _successor(result: Any, argument: Any) -> Any:
    """The part of a result that replaces a donated argument in the next run."""
    structure = jax.tree.structure(argument)
    return next(part for part in result if jax.tree.structure(part) == structure)


def matmul_flops(repeat: int = 10) -> float:
    """FLOP/s of a large matmul on one device: what a program can reach in practice.

    Args:
      repeat: Number of matmuls, one after the other.
    """
    on_cpu = jax.default_backend() == "cpu"
    size, dtype = (2048, jnp.float32) if on_cpu else (8192, jnp.bfloat16)
    x = jnp.full((size, size), 1 / size, dtype)

    @jax.jit
    def chain(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeat, lambda _, y: (y @ x).astype(dtype), x)

    jax.block_until_ready(chain(x))
    start = time.perf_counter()
    jax.block_until_ready(chain(x))
    return 2 * size**3 * repeat / (time.perf_counter() - start)
