"""FlashMotion's trajectory adapters: the most plausible names of their parameters.

The key names of FlashMotion's published adapters are not documented. The tables here list what
such files usually use; each parameter takes the first name that the file has. A file that fits no
name, or has keys left over, is an error: `inspect` shows what it holds and `--map` takes your own
table. Files we export use the first name of each.

Source: the ControlNets of MagicMotion, diffusers (`controlnet_blocks`) and VideoX-Fun
(`after_proj`) for the alternatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from converters import dit
from converters.mapping import Entry, Row
from converters.reader import Source
from flashmotion_jax.config import AdapterConfig, ControlNetConfig, DiTConfig, ResNetAdapterConfig

#: What may stand before every name.
PREFIXES = (
    "",
    "adapter.",
    "controlnet.",
    "control_net.",
    "control_adapter.",
    "trajectory_adapter.",
    "resnet.",
    "resnet_adapter.",
)

#: The zero-initialised projection of each block: 1x1 Linear, Conv1d, Conv2d or Conv3d.
PROJECTIONS = (
    "zero_convs.{layer}",
    "zero_conv.{layer}",
    "zero_linears.{layer}",
    "proj_out.{layer}",
    "projections.{layer}",
    "controlnet_blocks.{layer}",
    "blocks.{layer}.zero_conv",
    "blocks.{layer}.zero_linear",
    "blocks.{layer}.proj_out",
    "blocks.{layer}.after_proj",
)

_BLOCKS = ("blocks", "resnets", "res_blocks", "resnet_blocks", "layers")


def _in_blocks(*names: str) -> tuple[str, ...]:
    return tuple(f"{blocks}.{{layer}}.{name}" for blocks in _BLOCKS for name in names)


#: Our module -> the names it may have, of the ResNet adapter.
RESNET = (
    ("stem", ("stem", "conv_in", "patch_embedding", "proj_in")),
    ("blocks.norm1", _in_blocks("norm1")),
    ("blocks.conv1", _in_blocks("conv1")),
    ("blocks.norm2", _in_blocks("norm2")),
    ("blocks.conv2", _in_blocks("conv2")),
    ("blocks.projection", PROJECTIONS),
)

#: Likewise of the ControlNet: the DiT's own names in either layout, and the projections.
CONTROLNET = (
    *((ours, names) for ours, *names in dit.NAMES if not ours.startswith("head.")),
    ("projections", PROJECTIONS),
)

NAMES = {"adapters/resnet": RESNET, "adapters/controlnet": CONTROLNET}

DEFAULTS = {"adapters/resnet": ResNetAdapterConfig(), "adapters/controlnet": ControlNetConfig()}


def table(kind: str, dit_config: DiTConfig, source: Source) -> list[Row]:
    """Rows with the names that `source` has, and our own where it has none of them."""
    return [
        Row(ours, _choose(names, source), *_layout(ours, dit_config)) for ours, names in NAMES[kind]
    ]


def is_kind(kind: str, source: Source) -> bool:
    """Whether the file has both a projection and the first convolution, or query, of a block."""
    signature = {"adapters/resnet": "blocks.conv1", "adapters/controlnet": "blocks.self_attn.q"}
    names = dict(NAMES[kind])
    return all(
        any(f"{name.format(layer=0)}.weight" in source for name in _candidates(alternatives))
        for alternatives in (PROJECTIONS, names[signature[kind]])
    )


def read_config(
    kind: str, entries: Sequence[Entry], source: Source, dit_config: DiTConfig
) -> AdapterConfig:
    """Sizes from shapes: the ResNet's width, and what the ControlNet takes as input.

    Args:
      kind: of adapter.
      entries: made with `DEFAULTS`, for their keys.
      source: the tensors.
      dit_config: of the DiT it belongs to.
    """
    keys: dict[str, Any] = {entry.target: entry.keys[0] for entry in entries}
    if kind == "adapters/resnet":
        stem = source.get(keys["stem.bias"])
        return ResNetAdapterConfig(width=stem.shape[0]) if stem else ResNetAdapterConfig()
    patch = source.get(keys["patch_embedding.kernel"])
    if patch and patch.shape[1:2] == (dit_config.in_channels,):
        return ControlNetConfig(input="trajectory")
    return ControlNetConfig()


def _layout(target: str, dit_config: DiTConfig) -> tuple[str | None, dict[str, int]]:
    return dit.row_layout("patch_embedding" if target == "stem" else target, dit_config)


def _choose(names: Sequence[str], source: Source) -> str:
    for name in _candidates(names):
        first = name.format(layer=0)
        if first in source or f"{first}.weight" in source:
            return name
    return names[0]


def _candidates(names: Sequence[str]) -> list[str]:
    return [prefix + name for prefix in PREFIXES for name in names]
