"""Recognition of single files: which copy of the weights to use, and of which component."""

from __future__ import annotations

import re

from flashmotion_jax.runtime.errors import UserError

from . import adapters
from .tensors import StateDict

#: Parts that torch wrappers insert anywhere in a key.
WRAPPERS = re.compile(r"(^|\.)(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)(?=\.)")

#: Prefixes that training code and other programs add to every key.
PREFIX = re.compile(r"^(module\.|state_dict\.|model\.|diffusion_model\.|pipe\.dit\.)+")

#: A key that only one component has, and in only one layout -> the component and the layout.
SIGNATURES = {
    "head.head.weight": ("dit", "original"),
    "condition_embedder.time_proj.weight": ("dit", "diffusers"),
    "decoder.middle.0.residual.2.weight": ("vae", "original"),
    "post_quant_conv.weight": ("vae", "diffusers"),
    "blocks.0.pos_embedding.embedding.weight": ("text_encoder", "original"),
    "encoder.final_layer_norm.weight": ("text_encoder", "diffusers"),
}


def select_weights(source: StateDict, weights: str) -> StateDict:
    """Selects the generator of a training checkpoint; never its critic.

    Args:
      source: All tensors of a file. Those of other files are returned unchanged.
      weights: "ema" for the moving average, if there is one, or "raw".

    Raises:
      UserError: It is a training checkpoint without the requested generator.
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
    """Removes prefixes and wrappers from keys.

    Raises:
      UserError: Two keys become equal.
    """
    stripped = {PREFIX.sub("", WRAPPERS.sub("", key).lstrip(".")): key for key in source}
    if len(stripped) < len(source):
        lost = sorted(source.keys() - set(stripped.values()))
        raise UserError(f"without their prefixes these keys are not unique: {', '.join(lost)}")
    return {name: source[key] for name, key in stripped.items()}


def recognize(source: StateDict) -> tuple[str, str]:
    """Returns the kind and layout of a component.

    Args:
      source: State dict without prefixes.

    Raises:
      UserError: The component is unknown.
    """
    for name in adapters.NAMES:
        if adapters.is_kind(name, source):
            return f"adapters/{name}", "flashmotion"
    for key, component in SIGNATURES.items():
        if key in source:
            return component
    raise UserError(
        "the keys of the file are those of no known component; `flashmotion convert inspect` lists "
        "them, and --map with --component takes a table of names of your own"
    )


def conventions_of(source: str) -> str:
    """Returns how the DiT of a file is sampled, judged by its name; few-step without any hint.

    Args:
      source: A path, or a name on the Hugging Face Hub.

    Returns:
      A name in `config.CONVENTIONS`.
    """
    *folders, file = source.lower().split("/")
    if "turbo" in "/".join([*folders[-1:], file]):
        return "turbo"
    return "wan22" if re.search(r"ti2v[-_]?5b", file) else "flashmotion"
