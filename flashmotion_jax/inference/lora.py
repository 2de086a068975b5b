"""Merging of LoRAs into the weights of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jax.sharding import PartitionSpec

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.converters.lora import LoRA
from flashmotion_jax.converters.lora_changes import Change
from flashmotion_jax.converters.mapping import Entry
from flashmotion_jax.models.eight_bits import format_of, quantize
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.jit import program


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A LoRA and its strength."""

    lora: LoRA
    weight: float


def load_merged(load: Callable[[], nnx.Module], loras: Sequence[Weighted]) -> nnx.Module:
    """Loads a model and merges LoRAs into it, in their order.

    The sums are computed in float32 and rounded once, to the dtype of the weights; of weights in 8
    bits, only the layers that change are rounded again. In addition to the model, one of its
    parameters is in memory.

    Args:
      load: Makes the model, which stays as it is if someone else holds it.
      loras: For this model.

    Returns:
      The model, on the current mesh.
    """
    model = nnx.clone(load())  # shares the arrays, of which each is let go when it is replaced
    if not (mesh := jax.sharding.get_mesh()).empty:
        model = sharding.place(model, mesh)  # a model in memory need not be there yet
    parameters = flat_parameters(model)
    changes: dict[str, dict[int, list[tuple[Change, float]]]] = {}
    entries: dict[str, Entry] = {}
    for one in loras:
        entries |= one.lora.entries
        for (target, layer), group in one.lora.changes.items():
            of_layer = changes.setdefault(target, {}).setdefault(layer, [])
            of_layer += [(change, one.weight) for change in group]
    for target, layers in changes.items():
        if target in parameters:
            variable = parameters[target]
            variable.set_value(_merge(variable.get_value(), layers, entries[target]))
        else:
            layer = target.removesuffix(".kernel")
            pair = parameters[f"{layer}.weight"], parameters[f"{layer}.weight_scale"]
            weight, scale = (one.get_value() for one in pair)
            arrays = _merge_eight_bits(weight, scale, layers, entries[target])
            for variable, array in zip(pair, arrays, strict=True):
                variable.set_value(array)
    return model


def _merge(
    array: jax.Array, layers: Mapping[int, list[tuple[Change, float]]], entry: Entry
) -> jax.Array:
    """Changes layers of a parameter; `array` itself stays as it is."""
    if not entry.is_stacked:
        return sharding.split_like(_changed(array, layers[0], entry), array)
    array = jnp.copy(array)  # which `_set_layer` then overwrites
    for layer, changes in layers.items():
        index = sharding.replicate(np.int32(layer))
        array = _set_layer(array, _changed(array[layer], changes, entry), index)
    return array


def _merge_eight_bits(
    weight: jax.Array,
    scale: jax.Array,
    layers: Mapping[int, list[tuple[Change, float]]],
    entry: Entry,
) -> tuple[jax.Array, jax.Array]:
    """Changes layers of a stacked weight in 8 bits, which are rounded again."""
    weight, scale = jnp.copy(weight), jnp.copy(scale)
    for layer, changes in layers.items():
        kernel = (weight[layer].astype(jnp.float32) * scale[layer][:, None]).T
        changed = _changed(kernel, changes, entry).T
        values, new_scale = quantize(changed, format_of(weight.dtype))
        index = sharding.replicate(np.int32(layer))
        weight = _set_layer(weight, values, index)
        scale = _set_layer(scale, new_scale[:, 0], index)
    return weight, scale


def _changed(array: jax.Array, changes: list[tuple[Change, float]], entry: Entry) -> jax.Array:
    """One layer of a parameter after all changes, gathered from all devices, in its dtype."""
    if not sharding.is_mesh_hidden():
        array = jax.sharding.reshard(array, PartitionSpec(*[None] * array.ndim))
    theirs, ours = reversed(entry.layout.split(" -> "))
    weight: Any = rearrange(array.astype(jnp.float32), entry.layout, **entry.sizes)
    for change, strength in changes:
        arrays = {
            name: sharding.replicate(tensor.read().astype(np.float32))
            for name, tensor in change.parts.items()
        }
        weight = change.apply(weight, arrays, strength)
    return rearrange(weight, f"{theirs} -> {ours}", **entry.sizes).astype(array.dtype)


def _set_layer_of(array: jax.Array, value: jax.Array, layer: jax.Array) -> jax.Array:
    value = sharding.split_like(value[None], array)
    return jax.lax.dynamic_update_slice_in_dim(array, value, layer, axis=0)


_set_layer = program(_set_layer_of, donate_argnames=("array",))
