"""What a single file of weights is: which copy of them to take, under which names, of what."""

from __future__ import annotations

import re

from flashmotion_jax.runtime.errors import UserError

from . import adapters
from .reader import StateDict

#: Parts that wrappers of torch put anywhere into a key.
WRAPPERS = re.compile(r"(^|\.)(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)(?=\.)")

#: What trainers and other programs put before every key.
PREFIX = re.compile(r"^(module\.|state_dict\.|model\.|diffusion_model\.|pipe\.dit\.)+")

#: A key that a component has and no other, by layout.
SIGNATURES = {
    "head.head.weight": ("dit", "original"),
    "condition_embedder.time_proj.weight": ("dit", "diffusers"),
    "decoder.middle.0.residual.2.weight": ("vae", "original"),
    "post_quant_conv.weight": ("vae", "diffusers"),
    "blocks.0.pos_embedding.embedding.weight": ("text_encoder", "original"),
    "encoder.final_layer_norm.weight": ("text_encoder", "diffusers"),
}


def select_weights(source: StateDict, weights: str) -> StateDict:
    """The generator of a training checkpoint, its average if there is one; never its critic.

    Args:
      source: all tensors of the file; those of other files come back as they are.
      weights: "ema" or "raw".

    Raises:
      UserError: the file has a critic but not the generator asked for.
    """
    copies = {key.split(".")[0] for key in source}
    if not copies & {"generator", "generator_ema", "critic"}:
        return source
    wanted = "generator_ema" if weights == "ema" and "generator_ema" in copies else "generator"
    if wanted not in copies:
        raise UserError(
            f"the file holds {', '.join(sorted(copies))}; expected {wanted} for --weights {weights}"
        )
    prefix = f"{wanted}."
    return {key.removeprefix(prefix): t for key, t in source.items() if key.startswith(prefix)}


def strip_prefixes(source: StateDict) -> StateDict:
    """The tensors under the model's own names.

    Raises:
      UserError: two keys become one.
    """
    stripped = {PREFIX.sub("", WRAPPERS.sub("", key).lstrip(".")): key for key in source}
    if len(stripped) < len(source):
        lost = sorted(source.keys() - set(stripped.values()))
        raise UserError(f"without their prefixes these keys are not unique: {', '.join(lost)}")
    return {name: source[key] for name, key in stripped.items()}


def recognize(source: StateDict) -> tuple[str, str]:
    """Kind and layout of the component that the tensors are.

    Args:
      source: under the model's own names.

    Raises:
      UserError: nothing we know.
    """
    for name in adapters.NAMES:
        if adapters.is_kind(name, source):
            return f"adapters/{name}", "flashmotion"
    for key, component in SIGNATURES.items():
        if key in source:
            return component
    raise UserError(
        "the file is no component we know by its keys; `flashmotion convert inspect` lists them, "
        "and --map with --component takes your own table of names"
    )
