"""The diffusion transformer: names in the original and the diffusers layout, and its sizes.

Source: Wan2.2 `wan/modules/model.py`; diffusers `transformer_wan.py`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from flashmotion_jax.config import DiTConfig, from_dict
from flashmotion_jax.runtime.errors import UserError

from .mapping import Row
from .tensors import StateDict

#: The published strided convolution over (t, h, w) and our matmul of a folded patch.
PATCH_LAYOUT = "(q r c) d -> d c 1 q r"

#: Width of a head in all models of Wan.
HEAD_DIM = 128

#: What keys of other models begin with -> the model.
OTHER_MODELS = {
    "vace_blocks.": "Wan VACE",
    "control_adapter.": "Wan-Fun Control",
    "img_emb.": "Wan2.1-I2V, which sees the image by CLIP",
    "face_adapter.": "Wan2.2-Animate",
    "casual_audio_encoder.": "Wan2.2-S2V",
    "condition_embedder.image_embedder.": "Wan2.1-I2V, which sees the image by CLIP",
}

#: Our module or parameter, its name in the original layout, its name in diffusers.
NAMES = (
    ("patch_embedding", "patch_embedding", "patch_embedding"),
    ("text_embedding.up", "text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.down", "text_embedding.2", "condition_embedder.text_embedder.linear_2"),
    ("time_embedding.up", "time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.down", "time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection", "time_projection.1", "condition_embedder.time_proj"),
    ("blocks.modulation", "blocks.{layer}.modulation", "blocks.{layer}.scale_shift_table"),
    *(
        (f"blocks.{ours}.{name}", f"blocks.{{layer}}.{ours}.{name}", f"blocks.{{layer}}.{theirs}")
        for ours, diffusers in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for name, theirs in (
            *((name, f"{diffusers}.to_{name}") for name in "qkv"),
            ("o", f"{diffusers}.to_out.0"),
            ("norm_q", f"{diffusers}.norm_q"),
            ("norm_k", f"{diffusers}.norm_k"),
        )
    ),
    ("blocks.norm3", "blocks.{layer}.norm3", "blocks.{layer}.norm2"),
    ("blocks.ffn.up", "blocks.{layer}.ffn.0", "blocks.{layer}.ffn.net.0.proj"),
    ("blocks.ffn.down", "blocks.{layer}.ffn.2", "blocks.{layer}.ffn.net.2"),
    ("head.head", "head.head", "proj_out"),
    ("head.modulation", "head.modulation", "scale_shift_table"),
)

#: Our field, its name in the original `config.json`, its name in diffusers'.
FIELDS = (
    ("num_layers", "num_layers", "num_layers"),
    ("num_heads", "num_heads", "num_attention_heads"),
    ("ffn_dim", "ffn_dim", "ffn_dim"),
    ("freq_dim", "freq_dim", "freq_dim"),
    ("in_channels", "in_dim", "in_channels"),
    ("out_channels", "out_dim", "out_channels"),
    ("eps", "eps", "eps"),
)


def table(config: DiTConfig, layout: str) -> list[Row]:
    """Rows of the "original" or the "diffusers" layout."""
    return [
        Row(ours, diffusers if layout == "diffusers" else original, *row_layout(ours, config))
        for ours, original, diffusers in NAMES
    ]


def row_layout(target: str, config: DiTConfig) -> tuple[str | None, dict[str, int]]:
    """Layout and sizes of the row for `target`, where they are not the usual ones."""
    if target == "patch_embedding":
        return PATCH_LAYOUT, dict(zip("qr", config.patch_size, strict=True))
    return ("n d -> 1 n d" if target.endswith("modulation") else None), {}


def read_config(source: StateDict, values: Mapping[str, Any], layout: str) -> DiTConfig:
    """Sizes from `config.json`, and of the text from the shape of its embedding.

    Args:
      source: the tensors.
      values: content of `config.json`.
      layout: "original" or "diffusers".

    Raises:
      UserError: the file lacks a field, or is that of another model.
    """
    is_original = layout == "original"
    try:
        fields: dict[str, Any] = {
            ours: values[original if is_original else diffusers]
            for ours, original, diffusers in FIELDS
        }
        if is_original:
            fields["dim"] = values["dim"]
            fields["text_len"] = values["text_len"]
            fields["text_dim"] = source["text_embedding.0.weight"].shape[1]
        else:
            fields["dim"] = values["num_attention_heads"] * values["attention_head_dim"]
            fields["text_dim"] = values["text_dim"]
            fields["patch_size"] = values["patch_size"][1:]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"the DiT's config.json or weights lack {error}; wrong model?") from error
    return from_dict(DiTConfig, fields, "the DiT's config.json")


def from_shapes(source: StateDict, layout: str, base: DiTConfig) -> DiTConfig:
    """Sizes from the shapes of the tensors.

    Args:
      source: the tensors; of those that are missing, the sizes are those of `base`.
      layout: "original" or "diffusers".
      base: what shapes do not tell: the number of heads if the width is the same, `text_len` and
        `eps`. Wan's models of other widths have heads of width 128.

    Raises:
      UserError: the width is not that of `base`, nor a multiple of 128.
    """
    column = 1 if layout == "original" else 2
    names = {row[0]: row[column] for row in NAMES}

    def shape(module: str, *otherwise: int) -> tuple[int, ...]:
        tensor = source.get(f"{names[module].format(layer=0)}.weight")
        found = tensor.shape if tensor else ()
        return found if len(found) > 1 and all(found) else otherwise

    patch_shape = shape("patch_embedding", base.dim, base.in_channels, *base.patch_size)
    has_patch = len(patch_shape) > 3  # some files store the kernel flat
    patch_size = (patch_shape[-2], patch_shape[-1]) if has_patch else base.patch_size
    area = math.prod(patch_size)
    dim = shape("text_embedding.up", patch_shape[0])[0]
    blocks = re.compile(re.escape(names["blocks.self_attn.q"]).replace(r"\{layer\}", r"(\d+)"))
    layers = {match[1] for key in source if (match := blocks.match(key))}
    if dim != base.dim and dim % HEAD_DIM:
        raise UserError(
            f"the file does not tell the number of heads of its DiT of width {dim}; put the "
            "model's config.json beside it"
        )
    return dataclasses.replace(
        base,
        dim=dim,
        num_heads=base.num_heads if dim == base.dim else dim // HEAD_DIM,
        ffn_dim=shape("blocks.ffn.up", base.ffn_dim)[0],
        num_layers=len(layers) or base.num_layers,
        in_channels=math.prod(patch_shape) // (dim * area),
        out_channels=shape("head.head", base.out_channels * area)[0] // area,
        patch_size=patch_size,
        text_dim=shape("text_embedding.up", dim, base.text_dim)[1],
        freq_dim=shape("time_embedding.up", dim, base.freq_dim)[1],
    )


def require_ours(source: StateDict) -> None:
    """Raises `UserError` if the tensors are of a model that has more than this DiT."""
    for start, name in OTHER_MODELS.items():
        if key := next((key for key in source if key.startswith(start)), None):
            raise UserError(f"the DiT is that of {name} (it has {key}); expected Wan2.2-TI2V-5B")


def write_config(config: DiTConfig, layout: str) -> dict[str, Any]:
    """Content of the `config.json` of a layout."""
    values = {
        original if layout == "original" else diffusers: getattr(config, ours)
        for ours, original, diffusers in FIELDS
    }
    if layout == "original":
        return {
            "_class_name": "WanModel",
            "model_type": "ti2v",
            "dim": config.dim,
            "text_len": config.text_len,
            **values,
        }
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": [1, *config.patch_size],
        "attention_head_dim": config.head_dim,
        "text_dim": config.text_dim,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024,
        **values,
    }
