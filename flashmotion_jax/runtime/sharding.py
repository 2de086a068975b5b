"""The device mesh, and the one table from logical axis names to mesh axes.

There is always a mesh, of size 1 on one device. Weights are stored sharded over "fsdp" and gathered
layer by layer where they are used. Activations are sharded over "data" and "fsdp" along the batch,
and over "context" along the tokens of a video: each device has the same part of every frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from flashmotion_jax.runtime.errors import UserError

Module = TypeVar("Module", bound=nnx.Module)

MESH_AXES = ("data", "fsdp", "context")

#: Mesh axis over which a logical axis of a parameter is sharded; absent names are replicated.
LOGICAL_AXES = {"embed": "fsdp", "channels_out": "fsdp"}

#: Sharding of the batch dimension of activations.
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(
    data: int = 1, fsdp: int = 1, context: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Makes a mesh of the first `data * fsdp * context` devices, in explicit sharding mode.

    On a TPU, neighbors in the mesh are neighbors in the torus, as far as the sides of the torus can
    be factored into those of the mesh.

    Args:
      data: Copies of the weights.
      fsdp: Shards of the weights.
      context: Shards of a video.
      devices: Devices to use; by default all devices of the run.

    Raises:
      UserError: There are fewer devices than that, or an axis is smaller than 1.
    """
    shape = (data, fsdp, context)
    if min(shape) < 1:
        raise UserError(
            f"a mesh of data={data} x fsdp={fsdp} x context={context}; expected at least 1 device "
            "along each axis"
        )
    size = math.prod(shape)
    devices = jax.devices() if devices is None else devices
    if size > len(devices):
        raise UserError(
            f"a mesh of data={data} x fsdp={fsdp} x context={context} needs {size} devices; "
            f"found {len(devices)}"
        )
    # `jax.make_mesh` does not split a side of a torus: it raises for data=4 x fsdp=64 on 16 x 16.
    placed = mesh_utils.create_device_mesh(shape, devices[:size], allow_split_physical_axes=True)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES))


def parameter_spec(param: nnx.Variable, mesh: Mesh) -> PartitionSpec:
    """The sharding of a parameter, from its logical axes.

    Only stacked parameters are sharded, which have one more (leading) dimension than axis names:
    those outside of a stack are small. A dimension that the mesh axis does not divide is not
    sharded.
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


def sharding_of(leaf: Any, mesh: Mesh | None = None) -> Sharding:
    """The sharding of a weight or an array: the one function that decides where arrays are put.

    Args:
      leaf: A parameter, which is sharded by its logical axes; or an array, abstract or not, which
        keeps its partition spec and is replicated if it has none.
      mesh: The current mesh by default; without one, arrays go to the first device.
    """
    mesh = jax.sharding.get_mesh() if mesh is None else mesh
    if mesh.empty:
        return SingleDeviceSharding(jax.devices()[0])
    if isinstance(leaf, nnx.Variable):
        return NamedSharding(mesh, parameter_spec(leaf, mesh))
    has_spec = isinstance(leaf.sharding, NamedSharding)
    return NamedSharding(mesh, leaf.sharding.spec if has_spec else PartitionSpec())


def shardings(module: Module, mesh: Mesh) -> Module:
    """A tree like `module` with the sharding in place of each parameter's array."""
    return jax.tree.map(
        lambda param: param.replace(sharding_of(param, mesh)),
        module,
        is_leaf=lambda leaf: isinstance(leaf, nnx.Variable),
    )


def place(module: Module, mesh: Mesh) -> Module:
    """Shard a module's parameters over the mesh."""
    return jax.device_put(module, shardings(module, mesh))


def replicate(tree: Any) -> Any:
    """Copies host arrays to all devices of the mesh; without a mesh, to the default device."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:
        return jax.device_put(tree)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def put(value: Any) -> jax.Array:
        array = np.asarray(value)
        # `jax.device_put` would make all processes compare their values first.
        return jax.make_array_from_callback(array.shape, everywhere, lambda index: array[index])

    with jax.transfer_guard("allow"):  # this transfer is meant
        return jax.tree.map(put, tree)


def gather(module: Module) -> Module:
    """All-gather a layer's weights, just before they are used."""
    if is_mesh_hidden():
        return module
    return jax.tree.map(
        lambda value: jax.sharding.reshard(value, PartitionSpec(*[None] * value.ndim)), module
    )


def split_batch_like(x: jax.Array, reference: jax.Array) -> jax.Array:
    """Shard the first dimension of `x` as that of `reference`, and no other.

    Reshaping a dimension that was merged from batch and frames may leave mesh axes of size 1 on the
    frames, which explicit sharding takes for another type.
    """
    if is_mesh_hidden():
        return x
    batch = jax.typeof(reference).sharding.spec[0]
    return jax.sharding.reshard(x, PartitionSpec(batch, *[None] * (x.ndim - 1)))


def split_like(x: jax.Array, reference: jax.Array) -> jax.Array:
    """Shard `x` as `reference`, which has as many dimensions."""
    if is_mesh_hidden():
        return x
    return jax.sharding.reshard(x, jax.typeof(reference).sharding.spec)


def is_mesh_hidden() -> bool:
    """Whether arrays have no sharding here: no mesh is set, or this is inside a `shard_map`."""
    return jax.sharding.get_abstract_mesh().empty or is_one_device()


def split_tokens(x_BTPD: jax.Array) -> jax.Array:
    """Shard the tokens of every frame over "context", padded with zeros where needed.

    Args:
      x_BTPD: Tokens `[B, T, P, D]`, replicated over "context".

    Returns:
      `[B, T, P', D]`, where P' is the next multiple of the axis's size.
    """
    size = context_size()
    if size == 1:
        return x_BTPD
    batch = jax.typeof(x_BTPD).sharding.spec[0]
    padded = pad_tokens(x_BTPD, -(-x_BTPD.shape[2] // size) * size)
    return jax.sharding.reshard(padded, PartitionSpec(batch, None, "context", None))


def join_tokens(x_BTPD: jax.Array, num_tokens: int) -> jax.Array:
    """All-gather the tokens of every frame and drop the padding: the inverse of `split_tokens`."""
    return join_columns(x_BTPD)[:, :, :num_tokens]


def join_columns(x: jax.Array) -> jax.Array:
    """All-gather an array over "context"; only the batch stays sharded."""
    return x if context_size() == 1 else split_batch_like(x, x)


def context_size() -> int:
    """Number of devices that share a video, on the current mesh; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.shape["context"]


def is_one_device() -> bool:
    """Whether the code being traced is that of one device, inside a `jax.shard_map`."""
    return AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types


def pad_tokens(x_BTPD: jax.Array, num_tokens: int) -> jax.Array:
    """Pad the tokens of every frame with zeros, up to `num_tokens`."""
    missing = num_tokens - x_BTPD.shape[2]
    return jnp.pad(x_BTPD, ((0, 0), (0, 0), (0, missing), (0, 0))) if missing else x_BTPD


def look_up(table_N: jax.Array, index_B: jax.Array) -> jax.Array:
    """Entries of a small table for each video, sharded like the indices."""
    if is_mesh_hidden():
        return table_N[index_B]
    return table_N.at[index_B].get(out_sharding=jax.typeof(index_B).sharding.spec)
