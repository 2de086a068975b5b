"""8-bit weights of other programs: where their scales are, and their values as floats.

A linear layer `L` is stored as `L.weight` in 8 bits and a scale, and its value is their product.
ComfyUI, Kijai and musubi-tuner call the scale `L.scale_weight`; ComfyUI since November 2025,
LightX2V and ModelOpt call it `L.weight_scale`. It has one value, one per row, or one per block of a
row. Weights of float8 without a scale are values themselves.

Source: ComfyUI `comfy/utils.py`, `comfy/quant_ops.py`; musubi-tuner `fp8_optimization_utils.py`;
LightX2V `tools/convert`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import parse_json

from .mapping import Entry
from .tensors import StateDict, Tensor, WeightFile

EIGHT_BITS = ("float8_e4m3fn", "float8_e5m2", "int8")

#: Our names -> NumPy's, of formats that components are stored in too.
NUMPY_NAMES = {"int8": "int8", "fp8": "float8_e4m3fn"}

#: Formats of ComfyUI whose values are a product of weight and scale.
FORMATS = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")

#: Suffixes of the scale of a layer.
SCALES = (".scale_weight", ".weight_scale")

#: Suffixes of what only a matmul in 8 bits needs: the scale of its input, and how it computes.
INPUTS = (".scale_input", ".input_scale", ".comfy_quant")

#: A key that marks a file as quantized, after any prefix.
MARKER = "scaled_fp8"

#: Suffixes of formats that are no product of weight and scale -> their names.
UNSUPPORTED = {
    ".weight_scale_2": "nvfp4",
    ".pre_quant_scale": "AWQ",
    ".weight_scale_inv": "block-wise FP8 of DeepSeek",
    ".qweight": "GPTQ or AWQ",
    ".quant_state.bitsandbytes__nf4": "bitsandbytes NF4",
    ".quant_state.bitsandbytes__fp4": "bitsandbytes FP4",
    ".SCB": "bitsandbytes int8",
}


@dataclass(frozen=True)
class Quantized:
    """A weight in 8 bits.

    Attributes:
      weight: In float8 or int8, `[out, in]`.
      scale: One value, `[out, 1]`, or `[out, blocks, 1]`; None where the weight is the value.
    """

    weight: Tensor
    scale: Tensor | None

    @property
    def has_scale_per_row(self) -> bool:
        """Whether there is one scale, which rows can share, or one per row."""
        return len(self.weight.shape) == 2 and (self.scale is None or len(self.scale.shape) < 3)

    def scale_per_row(self) -> np.ndarray:
        """Reads the scales, float32 `[out]`."""
        scale = np.ones(1) if self.scale is None else self.scale.read()
        return np.broadcast_to(scale.astype(np.float32).reshape(-1), self.weight.shape[:1])

    def read(self) -> np.ndarray:
        """Reads the value, in float32."""
        value = self.weight.read().astype(np.float32)
        if self.scale is None:
            return value
        scale = self.scale.read().astype(np.float32)
        if scale.ndim == 3:
            blocks = value.reshape(*scale.shape[:2], -1)
            blocks *= scale
            return blocks.reshape(value.shape)
        if scale.size == value.shape[0] > 1:
            scale = scale.reshape(-1, *[1] * (value.ndim - 1))
        value *= scale
        return value


@dataclass(frozen=True)
class QuantizedTensor(Tensor):
    """A tensor that reads as float32 and is stored in 8 bits."""

    stored: Quantized


def dequantize(file: WeightFile) -> StateDict:
    """Returns the tensors of a file with 8-bit weights as float32, and without their scales.

    Raises:
      UserError: The file is quantized in another way; the message names it.
    """
    layers = find_quantized(file)
    return {
        key: QuantizedTensor(tensor.shape, "float32", layers[key].read, layers[key])
        if key in layers
        else tensor
        for key, tensor in file.tensors.items()
        if not _is_extra(key, layers)
    }


def stored_readers(
    entry: Entry, source: StateDict, dtype: str
) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of a layer's weight and scale in 8 bits, as they are in a file.

    Args:
      entry: A parameter, as floats.
      source: Tensors of the component.
      dtype: That the component is stored in.

    Returns:
      Name -> function; empty unless all tensors of the parameter are in this format, and have one
      scale or one per row.
    """
    layer, _, leaf = entry.target.rpartition(".")
    tensors = [source[key] for key in entry.keys]
    stored = [one.stored for one in tensors if isinstance(one, QuantizedTensor)]
    wanted = NUMPY_NAMES.get(dtype)
    fits = all(one.weight.dtype == wanted and one.has_scale_per_row for one in stored)
    if len(stored) < len(tensors) or not fits or leaf not in ("kernel", "embedding"):
        return {}

    def stack(arrays: list[np.ndarray]) -> np.ndarray:
        return np.stack(arrays) if entry.is_stacked else arrays[0]

    return {
        f"{layer}.weight": lambda: stack([one.weight.read() for one in stored]),
        f"{layer}.weight_scale": lambda: stack([one.scale_per_row() for one in stored]),
    }


def find_quantized(file: WeightFile) -> dict[str, Quantized]:
    """Returns the 8-bit weights of a file by their keys.

    Raises:
      UserError: The file is quantized in a way that is not supported; the message names it.
    """
    _require_supported(file)
    layers = {
        key: Quantized(tensor, None)
        for key, tensor in file.tensors.items()
        if tensor.dtype in EIGHT_BITS[:2] and tensor.shape and not _is_marker(key)
    }
    for key, scale in file.tensors.items():
        layer = next((key.removesuffix(end) for end in SCALES if key.endswith(end)), None)
        weight = file.tensors.get(f"{layer}.weight") if layer else None
        if weight is None or weight.dtype not in EIGHT_BITS:
            continue
        if not _fits(scale.shape, weight.shape):
            raise UserError(
                f"{key} has the shape {scale.shape}; expected one value, one per row or blocks of "
                f"the rows of a weight {weight.shape}"
            )
        layers[f"{layer}.weight"] = Quantized(weight, scale)
    return layers


def _is_extra(key: str, layers: Mapping[str, Quantized]) -> bool:
    if _is_marker(key):
        return True
    end = next((end for end in (*SCALES, *INPUTS) if key.endswith(end)), None)
    # A layer of a mixed file may be stored as floats, with scales that mean nothing.
    return end is not None and (end in INPUTS or f"{key.removesuffix(end)}.weight" in layers)


def _is_marker(key: str) -> bool:
    return key.rpartition(".")[2] == MARKER


def _fits(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    if np.prod(scale, dtype=int) == 1 or scale in ((weight[0],), (weight[0], 1)):
        return True
    return len(scale) == 3 and (scale[0], scale[2]) == (weight[0], 1) and not weight[1] % scale[1]


def _require_supported(file: WeightFile) -> None:
    for key in file.tensors:
        for end, name in UNSUPPORTED.items():
            if key.endswith(end):
                raise UserError(_unsupported(key.removesuffix(end), name))
    for layer, values in _descriptions(file).items():
        name = values.get("format")
        if name not in FORMATS:
            raise UserError(_unsupported(layer, str(name)))
        if values.get("convrot"):
            raise UserError(_unsupported(layer, f"{name} of rotated weights (convrot)"))


def _unsupported(layer: str, name: str) -> str:
    return (
        f"{layer} is quantized as {name:.60}, which is not supported; use a file in bfloat16, "
        "float16, scaled fp8 or GGUF"
    )


def _parse(text: str | bytes) -> Any:
    return parse_json(text, "the quantization", "download the file again")


def _descriptions(file: WeightFile) -> dict[str, dict]:
    """What ComfyUI says about its layers, in the metadata or in a tensor beside each."""
    try:
        metadata = _parse(file.metadata.get("_quantization_metadata", "{}"))
        layers = {key: dict(value) for key, value in metadata.get("layers", {}).items()}
        for key, tensor in file.tensors.items():
            if key.endswith(INPUTS[2]):
                layers[key.removesuffix(INPUTS[2])] = dict(_parse(bytes(tensor.read())))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"the file's description of its quantization is damaged ({error}); download it again"
        ) from error
    return layers
