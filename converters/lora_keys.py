"""The keys of LoRA files: which module of the model each belongs to, and which part it is.

Every program names them in its own way. A key is a prefix, a module and the name of a part:

    transformer.            blocks.0.attn1.to_q       .lora_A.weight         diffusers
    base_model.model.       blocks.0.self_attn.q      .lora_A.weight         PEFT
    diffusion_model.        blocks.0.self_attn.q      .lora_down.weight      ComfyUI, LightX2V
    lora_unet_              blocks_0_self_attn_q      .alpha                 Kohya, musubi-tuner
    lora_unet__             blocks_0_cross_attn_k     .lora_up.weight        VideoX-Fun
    lycoris_                blocks_0_self_attn_to_q   .lokr_w1               ai-toolkit

Names with underscores are never split: all modules of the model are written so, and looked up.

Source: diffusers `loaders/lora_conversion_utils.py`; PEFT `utils/save_and_load.py`; musubi-tuner
`networks/lora.py`; ComfyUI `comfy/lora.py`, `comfy/lora_convert.py`, `comfy/weight_adapter`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from flashmotion_jax.runtime.errors import UserError

from .wrappers import is_holder

#: The name of an adapter of PEFT, which may stand in the middle: `.lora_A.default.weight`.
_NAME = r"(\.(?!bias$)\w+)??"

#: What a suffix of a key means -> the suffixes, as regular expressions.
PARTS = {
    "down": rf"\.lora_A{_NAME}(\.weight)?|\.lora_down(\.weight)?|"
    r"[._]lora(_linear_layer)?\.down\.weight",
    "up": rf"\.lora_B{_NAME}(\.weight)?|\.lora_up(\.weight)?|"
    r"[._]lora(_linear_layer)?\.up\.weight",
    "up_bias": rf"\.lora_B{_NAME}\.bias|\.lora_up\.bias",
    "alpha": r"\.alpha",
    "magnitude": rf"\.dora_scale|\.lora_magnitude_vector{_NAME}(\.weight)?",
    "difference": r"\.diff|\.w_norm",
    "bias_difference": r"\.diff_b|\.b_norm",
    "modulation_difference": r"\.diff_m",
    "new_weight": r"\.set_weight",
    **{f"lokr_{x}": rf"\.lokr_{x}{_NAME}" for x in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")},
    **{f"hada_{x}": rf"\.hada_{x}{_NAME}" for x in ("w1_a", "w1_b", "w2_a", "w2_b")},
}

#: Suffixes of what is not supported -> what to call it.
UNSUPPORTED = {
    r"\.lora_mid\.weight|\.lokr_t2(\.\w+)?|\.hada_t[12](\.\w+)?": "the core of a Tucker "
    "decomposition, which only convolutions have",
    r"\.reshape_weight": "a control LoRA, which adds input channels",
    r"\.(oft_blocks|oft_diag|oft_R|rescale|boft_\w+)(\.\w+)*": "OFT or BOFT, which rotates weights",
    r"\.[ab][12]\.weight": "GLoRA",
    r"\.lora_embedding_[AB](\.\w+)?": "a LoRA of an embedding table",
    r"\.(ia3_l|vera_lambda_\w+|hra_u)(\.\w+)*": "IA3, VeRA or HRA",
}

#: Prefixes of names with underscores. Those with dots are the `wrappers` of any file of weights.
PREFIXES = ("lora_unet_", "lora_transformer_", "lora_dit_", "lycoris_", "_")

#: Prefixes of text encoders, whose LoRAs are left out.
TEXT_ENCODERS = ("lora_te", "text_encoder", "text_model", "lora_prior_te")

_PARTS = {part: re.compile(rf"(.*?)({pattern})") for part, pattern in PARTS.items()}
_UNSUPPORTED = {re.compile(rf".+({pattern})"): name for pattern, name in UNSUPPORTED.items()}


def split_key(key: str) -> tuple[str, str] | None:
    """Splits a key into its module, with prefixes, and its part, a name of `PARTS`.

    Returns:
      The module and the part; None if the key is not that of a LoRA.

    Raises:
      UserError: The part is known and not supported.
    """
    for part, pattern in _PARTS.items():
        if match := pattern.fullmatch(key):
            return match.group(1), part
    for pattern, name in _UNSUPPORTED.items():
        if pattern.fullmatch(key):
            raise UserError(
                f"{key} belongs to {name}; expected LoRA, DoRA, LoHa, LoKr or differences of "
                "weights: merge it into the model with the program that made it"
            )
    return None


def is_lora(keys: Iterable[str]) -> bool:
    """Whether the keys of a file are those of a LoRA, of a supported kind or not."""
    patterns = (*_PARTS.values(), *_UNSUPPORTED)
    return any(pattern.fullmatch(key) for key in keys for pattern in patterns)


def is_text_encoder(module: str) -> bool:
    """Whether a module, with prefixes, is one of a text encoder."""
    return module.removeprefix("base_model.model.").startswith(TEXT_ENCODERS)


class Modules:
    """The modules of a model by all names that LoRA files have for them.

    Args:
      names: Names with dots; several may be one module.
    """

    def __init__(self, names: Iterable[str]):
        self._names = {name: name for name in names}
        flat = {name.replace(".", "_"): name for name in self._names}
        if len(flat) != len(self._names):
            raise ValueError("two modules have the same name with underscores")
        self._names |= flat

    def find(self, module: str) -> str | None:
        """Returns the name of a module without prefixes, or None if the model has none such."""
        module = module.replace(".processor.", ".")
        while module not in self._names:
            head, dot, rest = module.partition(".")
            if dot and is_holder(head):
                module = rest
            elif prefix := next((p for p in PREFIXES if module.startswith(p)), None):
                module = module.removeprefix(prefix)
            else:
                return None
        return self._names[module]
