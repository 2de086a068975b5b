"""The UMT5 encoder: names in the original layout and in transformers, and its sizes.

Source: Wan2.2 `wan/modules/t5.py`; transformers `modeling_umt5.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from flashmotion_jax.config import TextEncoderConfig, from_dict
from flashmotion_jax.runtime.errors import UserError

from .mapping import Row
from .tensors import StateDict

_ATTENTION = "encoder.block.{layer}.layer.0.SelfAttention"
_FFN = "encoder.block.{layer}.layer.1.DenseReluDense"
_GGUF = "enc.blk.{layer}"

LAYOUTS = ("original", "diffusers", "gguf")

#: Our module, and its name in each of `LAYOUTS`: Wan's, that of transformers, that of llama.cpp.
NAMES = (
    ("token_embedding", "token_embedding", "shared", "token_embd"),
    (
        "blocks.norm1",
        "blocks.{layer}.norm1",
        "encoder.block.{layer}.layer.0.layer_norm",
        f"{_GGUF}.attn_norm",
    ),
    *(
        (
            f"blocks.attn.{x}",
            f"blocks.{{layer}}.attn.{x}",
            f"{_ATTENTION}.{x}",
            f"{_GGUF}.attn_{x}",
        )
        for x in "qkvo"
    ),
    (
        "blocks.pos_embedding",
        "blocks.{layer}.pos_embedding.embedding",
        f"{_ATTENTION}.relative_attention_bias",
        f"{_GGUF}.attn_rel_b",
    ),
    (
        "blocks.norm2",
        "blocks.{layer}.norm2",
        "encoder.block.{layer}.layer.1.layer_norm",
        f"{_GGUF}.ffn_norm",
    ),
    ("blocks.ffn.gate", "blocks.{layer}.ffn.gate.0", f"{_FFN}.wi_0", f"{_GGUF}.ffn_gate"),
    ("blocks.ffn.fc1", "blocks.{layer}.ffn.fc1", f"{_FFN}.wi_1", f"{_GGUF}.ffn_up"),
    ("blocks.ffn.fc2", "blocks.{layer}.ffn.fc2", f"{_FFN}.wo", f"{_GGUF}.ffn_down"),
    ("norm", "norm", "encoder.final_layer_norm", "enc.output_norm"),
)

#: Some files repeat the tied token embedding under its second name.
ALIASES = ("encoder.embed_tokens.weight",)

#: Our field and its name in transformers' `config.json`.
FIELDS = (
    ("vocab_size", "vocab_size"),
    ("dim", "d_model"),
    ("num_heads", "num_heads"),
    ("head_dim", "d_kv"),
    ("ffn_dim", "d_ff"),
    ("num_layers", "num_layers"),
    ("num_buckets", "relative_attention_num_buckets"),
    ("max_distance", "relative_attention_max_distance"),
    ("eps", "layer_norm_epsilon"),
)


def table(config: TextEncoderConfig, layout: str) -> list[Row]:
    """Rows of one of `LAYOUTS`."""
    del config
    column = 1 + LAYOUTS.index(layout)
    return [Row(row[0], row[column]) for row in NAMES]


def read_config(source: StateDict, values: Mapping[str, Any], layout: str) -> TextEncoderConfig:
    """Sizes from shapes (original), or from `config.json` (diffusers).

    Args:
      source: the tensors.
      values: content of `config.json`; the original layout has none.
      layout: "original" or "diffusers".

    Raises:
      UserError: these are not the weights, or not the file, of a UMT5 encoder.
    """
    if layout == "original":
        return from_shapes(source, layout, TextEncoderConfig())
    try:
        fields = {ours: values[theirs] for ours, theirs in FIELDS}
    except KeyError as error:
        raise UserError(
            f"the text encoder's config.json or weights lack {error}; wrong model?"
        ) from error
    return from_dict(TextEncoderConfig, fields, "the text encoder's config.json")


def from_shapes(source: StateDict, layout: str, base: TextEncoderConfig) -> TextEncoderConfig:
    """Sizes from the shapes of the tensors.

    Args:
      source: the tensors.
      layout: one of `LAYOUTS`.
      base: what shapes do not tell: the largest distance of the position biases, and `eps`.

    Raises:
      UserError: these are not the weights of a UMT5 encoder.
    """
    column = 1 + LAYOUTS.index(layout)
    names = {row[0]: f"{row[column]}.weight" for row in NAMES}
    start, end = names["blocks.attn.q"].split("{layer}")

    def shape(module: str) -> tuple[int, ...]:
        return source[names[module].format(layer=0)].shape

    try:
        num_buckets, num_heads = shape("blocks.pos_embedding")
        vocab_size, dim = shape("token_embedding")
        return dataclasses.replace(
            base,
            vocab_size=vocab_size,
            dim=dim,
            num_heads=num_heads,
            head_dim=shape("blocks.attn.q")[0] // num_heads,
            ffn_dim=shape("blocks.ffn.fc1")[0],
            num_layers=sum(key.startswith(start) and key.endswith(end) for key in source),
            num_buckets=num_buckets,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"the text encoder's config.json or weights lack {error}; wrong model?"
        ) from error


def write_config(config: TextEncoderConfig) -> dict[str, Any]:
    """Content of transformers' `config.json`; the original layout has none."""
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "tie_word_embeddings": True,
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS},
    }
