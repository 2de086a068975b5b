"""The device mesh, and the one table from logical axis names to mesh axes.

There is always a mesh, of size 1 on one device. Weights are stored sharded over "fsdp" and gathered
layer by layer where they are used; activations are split over the batch, and a video's tokens over
"context": the same part of every frame's tokens on each device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flashmotion_jax.runtime.errors import UserError

Module = TypeVar("Module", bound=nnx.Module)

MESH_AXES = ("data", "fsdp", "context")

#: Logical axis -> mesh axis that stores it; names that are absent are not split.
LOGICAL_AXES = {"embed": "fsdp", "channels_out": "fsdp"}

#: Mesh axes over which the batch dimension of activations is split.
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(
    data: int = 1, fsdp: int = 1, context: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over the first `data * fsdp * context` devices, in explicit sharding mode.

    On a TPU's torus neighbours of the mesh are neighbours of the torus, as far as its sides can be
    multiplied and split to those of the mesh.

    Args:
      data: copies of the weights.
      fsdp: parts of the weights.
      context: parts of a video.
      devices: those of this process, by default.

    Raises:
      UserError: there are fewer devices than that, or an axis has none.
    """
    shape = (data, fsdp, context)
    if min(shape) < 1:
        raise UserError(
            f"a mesh of data={data} x fsdp={fsdp} x context={context}; expected at least 1 device "
            "along each"
        )
    size = math.prod(shape)
    devices = jax.devices() if devices is None else devices
    if size > len(devices):
        raise UserError(
            f"a mesh of data={data} x fsdp={fsdp} x context={context} needs {size} devices; "
            f"found {len(devices)}"
        )
    # `jax.make_mesh` splits no side of a torus: data=4 x fsdp=64 on 16 x 16 would be refused.
    placed = mesh_utils.create_device_mesh(shape, devices[:size], allow_split_physical_axes=True)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES))


def parameter_spec(param: nnx.Variable, mesh: Mesh) -> PartitionSpec:
    """Where a parameter lies: its logical axes through the table.

    Only stacked parameters, those with a leading dimension more than names, are split: what stands
    outside a stack is small. A dimension that the mesh axis does not divide is left whole.
    """
    shape = param.get_value().shape
    names = param.get_metadata().get("axes", (None,) * len(shape))
    if len(names) == len(shape):
        return PartitionSpec()
    axes = [LOGICAL_AXES.get(name) for name in names]
    return PartitionSpec(
        *[None] * (len(shape) - len(names)),
        *(
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(axes, shape[-len(names) :], strict=True)
        ),
    )


def shardings(module: Module, mesh: Mesh) -> Module:
    """The tree of `module` with a `NamedSharding` in place of each parameter's array."""
    return jax.tree.map(
        lambda param: param.replace(NamedSharding(mesh, parameter_spec(param, mesh))),
        module,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )


def place(module: Module, mesh: Mesh) -> Module:
    """Moves a module's parameters to their places on the mesh."""
    return jax.device_put(module, shardings(module, mesh))


def gather(module: Module) -> Module:
    """A layer's weights whole on every device, where they are about to be used."""
    if is_mesh_hidden():
        return module
    return jax.tree.map(
        lambda value: jax.sharding.reshard(value, PartitionSpec(*[None] * value.ndim)), module
    )


def split_batch_like(x: jax.Array, reference: jax.Array) -> jax.Array:
    """`x` with its first dimension split as that of `reference`, all others whole.

    Splitting a dimension that was merged from batch and frames may leave mesh axes of size 1 on the
    frames; explicit sharding then tells the two apart.
    """
    if is_mesh_hidden():
        return x
    batch = jax.typeof(reference).sharding.spec[0]
    return jax.sharding.reshard(x, PartitionSpec(batch, *[None] * (x.ndim - 1)))


def split_like(x: jax.Array, reference: jax.Array) -> jax.Array:
    """`x` split as `reference`, which has as many dimensions."""
    if is_mesh_hidden():
        return x
    return jax.sharding.reshard(x, jax.typeof(reference).sharding.spec)


def is_mesh_hidden() -> bool:
    """Whether no array has a place on a mesh here: none is set, or this is code of one device."""
    return jax.sharding.get_abstract_mesh().empty or is_one_device()


def split_tokens(x_BTPD: jax.Array) -> jax.Array:
    """Splits every frame's tokens over "context", with zeros behind them where they do not divide.

    Args:
      x_BTPD: whole over "context".

    Returns:
      `[B, T, P', D]`, P' the next multiple of the axis' size.
    """
    size = context_size()
    if size == 1:
        return x_BTPD
    batch = jax.typeof(x_BTPD).sharding.spec[0]
    padded = pad_tokens(x_BTPD, -(-x_BTPD.shape[2] // size) * size)
    return jax.sharding.reshard(padded, PartitionSpec(batch, None, "context", None))


def join_tokens(x_BTPD: jax.Array, num_tokens: int) -> jax.Array:
    """The inverse of `split_tokens`: the `num_tokens` tokens of every frame on every device."""
    return join_columns(x_BTPD)[:, :, :num_tokens]


def join_columns(x: jax.Array) -> jax.Array:
    """An array with every dimension but the batch whole on every device of "context"."""
    return x if context_size() == 1 else split_batch_like(x, x)


def context_size() -> int:
    """Devices over which a video is split, on the mesh that is set; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape["context"]


def is_one_device() -> bool:
    """Whether the code being traced is inside a `jax.shard_map`, that of one device."""
    return AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types


def pad_tokens(x_BTPD: jax.Array, num_tokens: int) -> jax.Array:
    """Puts zeros behind the tokens of every frame, up to `num_tokens`."""
    missing = num_tokens - x_BTPD.shape[2]
    return jnp.pad(x_BTPD, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing else x_BTPD


def look_up(table_N: jax.Array, index_B: jax.Array) -> jax.Array:
    """Entries of a small table for each video, split over devices as the indices are."""
    if is_mesh_hidden():
        return table_N[index_B]
    return table_N.at[index_B].get(out_sharding=jax.typeof(index_B).sharding.spec)
