"""One program measured: compiled, run on arrays of random numbers, timed.

What a program is given is made from its abstract arguments, so that no checkpoint is needed.
"""

from __future__ import annotations

import functools
import inspect
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flashmotion_jax.perf.programs import PlannedProgram
from flashmotion_jax.runtime.errors import is_resource_exhausted
from flashmotion_jax.training.player import Player

#: How many random numbers arrays are made of.
NUMBERS = 65_521


class Measured(NamedTuple):
    """What a program took.

    Attributes:
      program: that ran.
      compile_seconds: to trace it and compile it, or to read it from the cache on disk.
      seconds: of each run after the first.
      memory: most bytes on a device, as compiled.
      devices: that it ran on.
    """

    program: PlannedProgram
    compile_seconds: float
    seconds: list[float]
    memory: int
    devices: int

    @property
    def rate(self) -> float:
        """Operations of the model a second, of one device."""
        return self.program.model_flops / self.median / self.devices

    @property
    def median(self) -> float:
        """Seconds of a run."""
        return statistics.median(self.seconds)


class TooLarge(NamedTuple):
    """A program that this device has no memory for."""

    program: PlannedProgram
    reason: str


def measure(program: PlannedProgram, repeat: int) -> Measured | TooLarge:
    """Compiles a program and runs it.

    Args:
      program: whose mesh is set.
      repeat: runs that count, after one that does not.

    Raises:
      jax.errors.JaxRuntimeError: it failed, and not for want of memory.
    """
    try:
        return _measure(program, repeat)
    except jax.errors.JaxRuntimeError as error:
        if not is_resource_exhausted(error):
            raise
        return TooLarge(program, str(error).splitlines()[0][:200])


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
    """Seconds of so many runs, after one that does not count.

    Args:
      program: as it was planned.
      compiled: of it.
      args: what it runs on; what a run uses up is replaced by what it returns.
      repeat: runs that count.
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
    """Seconds of so many runs, after one that does not count.

    Args:
      timed: runs once, and returns its seconds.
      repeat: runs that count.
    """
    timed()
    return [timed() for _ in range(repeat)]


def fill(tree: Any, seed: int = 0) -> Any:
    """Arrays for abstract ones: small normal numbers, ones for integers, no moments yet.

    Args:
      tree: of `jax.ShapeDtypeStruct`s.
      seed: of the numbers.
    """
    numbers = 0.02 * np.random.default_rng(seed).standard_normal(NUMBERS, np.float32)

    def of_array(array: jax.ShapeDtypeStruct) -> jax.Array:
        place = _place(array)
        if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
            keys = jax.random.split(jax.random.key(seed), max(1, array.size))
            return jax.device_put(keys.reshape(array.shape), place)
        if jnp.issubdtype(array.dtype, jnp.floating) and array.ndim > 0:
            return _repeater(array.shape, array.dtype, place)(numbers)
        value = 0.5 if jnp.issubdtype(array.dtype, jnp.floating) else 1
        return jnp.full(array.shape, value, array.dtype, device=place)

    def of_node(node: Any) -> Any:
        if not isinstance(node, Player):
            return of_array(node)
        zeros = jax.tree.map(
            lambda array: jnp.zeros(array.shape, array.dtype, device=_place(array)),
            node._replace(params=None),
        )
        return zeros._replace(params=jax.tree.map(of_array, node.params))

    return jax.tree.map(of_node, tree, is_leaf=lambda node: isinstance(node, Player))


@functools.cache
def _repeater(
    shape: tuple[int, ...], dtype: Any, place: NamedSharding | None
) -> Callable[[Any], jax.Array]:
    """Makes an array of the same few numbers over and over where it belongs.

    Drawing billions on the host, or moving them from there, would take minutes.
    """
    return jax.jit(
        lambda numbers: jnp.resize(numbers, shape).astype(dtype),
        out_shardings=place,
    )


def _place(array: jax.ShapeDtypeStruct) -> NamedSharding | None:
    """Where it belongs on the devices of the mesh that is set."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return None
    spec = array.sharding.spec if isinstance(array.sharding, NamedSharding) else PartitionSpec()
    return NamedSharding(mesh, spec)


def _donated(program: PlannedProgram) -> list[int]:
    """Places of the arguments that a run uses up."""
    names = list(inspect.signature(program.program.function).parameters)
    places = [names.index(name) for name in program.program.donated]
    return [place for place in places if jax.tree.leaves(program.args[place])]


def _successor(result: Any, argument: Any) -> Any:
    """The part of a result that the next run gets in place of an argument."""
    structure = jax.tree.structure(argument)
    return next(part for part in result if jax.tree.structure(part) == structure)


def matmul_flops(repeat: int = 10) -> float:
    """Operations a second of a large matmul on one device: what can be reached at all.

    Args:
      repeat: matmuls, one after the other.
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
