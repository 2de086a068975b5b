"""Trajectory adapters: plausible names of their parameters.

The parameter names of FlashMotion's published adapters are not documented. The tables list names
that such files usually have; each parameter takes the first one that the file contains. Missing and
unused keys are an error: `inspect` lists them, and `--map` takes a table of your own. Export writes
the first name of each.

Source: the ControlNets of MagicMotion, diffusers (`controlnet_blocks`) and VideoX-Fun
(`after_proj`) for the alternatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flashmotion_jax.config.adapters import AdapterConfig, ControlNetConfig, ResNetAdapterConfig
from flashmotion_jax.config.models import DiTConfig

from . import dit
from .mapping import Entry, Row
from .tensors import StateDict

#: Prefixes that every name may have.
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

#: The zero-initialized projection of each block: linear, or a 1x1 convolution of any rank.
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


def _resnet_config(
    keys: Mapping[str, str], source: StateDict, dit_config: DiTConfig
) -> ResNetAdapterConfig:
    del dit_config
    stem = source.get(keys["stem.bias"])
    return ResNetAdapterConfig(width=stem.shape[0]) if stem else ResNetAdapterConfig()


def _controlnet_config(
    keys: Mapping[str, str], source: StateDict, dit_config: DiTConfig
) -> ControlNetConfig:
    patch = source.get(keys["patch_embedding.kernel"])
    if patch and patch.shape[1:2] == (dit_config.in_channels,):
        return ControlNetConfig(input="trajectory")
    return ControlNetConfig()


@dataclass(frozen=True, kw_only=True)
class AdapterNames:
    """What files call the parameters of a kind of adapter.

    Attributes:
      modules: our module, and the names it may have.
      signature: the one of `modules` that, with the projections, tells the kind from others.
      read_config: sizes from the shapes in a file, given our parameters' keys in it, its tensors
        and the sizes of the DiT that the adapter belongs to.
    """

    modules: Sequence[tuple[str, Sequence[str]]]
    signature: str
    read_config: Callable[[Mapping[str, str], StateDict, DiTConfig], AdapterConfig]


#: By the kinds of `flashmotion_jax.config.adapters.ADAPTERS`.
NAMES: dict[str, AdapterNames] = {
    "resnet": AdapterNames(
        modules=(
            ("stem", ("stem", "conv_in", "patch_embedding", "proj_in")),
            ("blocks.norm1", _in_blocks("norm1")),
            ("blocks.conv1", _in_blocks("conv1")),
            ("blocks.norm2", _in_blocks("norm2")),
            ("blocks.conv2", _in_blocks("conv2")),
            ("blocks.projection", PROJECTIONS),
        ),
        signature="blocks.conv1",
        read_config=_resnet_config,
    ),
    # The DiT's own names in either layout, and the projections.
    "controlnet": AdapterNames(
        modules=(
            *((ours, names) for ours, *names in dit.NAMES if not ours.startswith("head.")),
            ("projections", PROJECTIONS),
        ),
        signature="blocks.self_attn.q",
        read_config=_controlnet_config,
    ),
}


def table(name: str, dit_config: DiTConfig, source: StateDict) -> list[Row]:
    """Rows with the names that `source` has, and our own where it has none of them."""
    return [
        Row(ours, _choose(names, source), *_layout(ours, dit_config))
        for ours, names in NAMES[name].modules
    ]


def is_kind(name: str, source: StateDict) -> bool:
    """Whether the file has both a projection and the module that is the kind's signature."""
    names = NAMES[name]
    return all(
        any(f"{key.format(layer=0)}.weight" in source for key in _candidates(alternatives))
        for alternatives in (PROJECTIONS, dict(names.modules)[names.signature])
    )


def read_config(
    name: str, entries: Sequence[Entry], source: StateDict, dit_config: DiTConfig
) -> AdapterConfig:
    """Sizes of an adapter from the shapes of its tensors.

    Args:
      name: its kind.
      entries: made with the default sizes, for their keys.
      source: the tensors.
      dit_config: of the DiT it belongs to.
    """
    keys = {entry.target: entry.keys[0] for entry in entries}
    return NAMES[name].read_config(keys, source, dit_config)


def _layout(target: str, dit_config: DiTConfig) -> tuple[str | None, dict[str, int]]:
    return dit.row_layout("patch_embedding" if target == "stem" else target, dit_config)


def _choose(names: Sequence[str], source: StateDict) -> str:
    for name in _candidates(names):
        first = name.format(layer=0)
        if first in source or f"{first}.weight" in source:
            return name
    return names[0]


def _candidates(names: Sequence[str]) -> list[str]:
    return [prefix + name for prefix in PREFIXES for name in names]
