"""Trajectory adapters: plausible names of their parameters, and their sizes.

The parameter names of FlashMotion's published adapters are not documented. The tables list names
that such files usually have; each parameter takes the first one that the file contains. Missing and
unused keys are an error: `inspect` lists them, and `--map` takes a table of your own. Export writes
the first name of each.

Source: the ControlNets of MagicMotion (`out_projectors`), diffusers (`controlnet_blocks`) and
VideoX-Fun (`after_proj`) for the alternatives; the residual blocks of diffusers, of latent
diffusion (`in_layers`) and of Wan's autoencoder (`residual`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flashmotion_jax.config.adapters import (
    AdapterConfig,
    ControlNetConfig,
    ResNetAdapterConfig,
    SparseCtrlConfig,
)
from flashmotion_jax.config.models import DiTConfig

from . import dit
from .mapping import Row
from .tensors import StateDict

#: Lists of blocks.
_BLOCKS = ("blocks", "resnets", "res_blocks", "resnet_blocks", "residual_blocks", "layers")

#: Lists of the zero-initialized projections of the blocks, beside the blocks ...
_LISTS = (
    "zero_convs",
    "zero_conv",
    "zero_linears",
    "zero_linear",
    "zero_projs",
    "out_projectors",
    "out_projections",
    "out_projs",
    "proj_outs",
    "proj_out",
    "projections",
    "projectors",
    "controlnet_blocks",
    "control_blocks",
)

#: ... and projections inside the blocks. Each is linear, or a 1x1 convolution of any rank.
_INSIDE = ("zero_conv", "zero_linear", "zero_proj", "proj_out", "after_proj", "out_projector")

PROJECTIONS = (
    *(f"{name}.{{layer}}" for name in _LISTS),
    *(f"{name}.{{layer}}.0" for name in _LISTS),
    *(f"{blocks}.{{layer}}.{name}" for blocks in _BLOCKS for name in _INSIDE),
)


def _in_blocks(*names: str) -> tuple[str, ...]:
    return tuple(f"{blocks}.{{layer}}.{name}" for blocks in _BLOCKS for name in names)


#: A stem of size one on patches that are folded as by torch's `pixel_unshuffle`.
FOLDED_LAYOUT = "(q r c) d -> d (c q r)"

#: What a norm may call its scale; the weights of all other modules have the first name.
_LEAVES = ("weight", "gamma", "scale")


@dataclass(frozen=True, kw_only=True)
class AdapterNames:
    """What files call the parameters of a kind of adapter.

    Attributes:
      modules: Our module, and the names it may have.
      signature: The one of `modules` that, with the projections, tells the kind from others.
      read_config: Configuration from the shapes in a file, given our modules' names in it, its
        tensors and the configuration of the DiT that the adapter belongs to; and a line for
        everything that the file does not tell.
      left_out: Regular expressions of keys that files repeat and that are not used.
    """

    modules: Sequence[tuple[str, Sequence[str]]]
    signature: str
    read_config: Callable[
        [Mapping[str, str], StateDict, DiTConfig], tuple[AdapterConfig, list[str]]
    ]
    left_out: Sequence[str] = ()


def _sparsectrl_config(
    names: Mapping[str, str], source: StateDict, dit_config: DiTConfig
) -> tuple[SparseCtrlConfig, list[str]]:
    del names, source, dit_config  # how it was trained is not in the file, and is not needed
    return SparseCtrlConfig(), []


def _controlnet_config(
    names: Mapping[str, str], source: StateDict, dit_config: DiTConfig
) -> tuple[ControlNetConfig, list[str]]:
    patch = source.get(f"{names['patch_embedding']}.weight")
    channels = _patch_channels(patch.shape, dit_config) if patch else 2 * dit_config.in_channels
    if channels == dit_config.in_channels:
        return ControlNetConfig(input="trajectory"), []
    return ControlNetConfig(), [
        f"the order of the {channels} input channels is not in the file: latents, then trajectory, "
        "as in MagicMotion; --set input=trajectory+latents swaps it"
    ]


def _patch_channels(shape: tuple[int, ...], dit_config: DiTConfig) -> int:
    """Input channels of a patch embedding, whose kernel some files store flat."""
    return shape[1] if len(shape) > 2 else math.prod(shape[1:]) // math.prod(dit_config.patch_size)


def dit_config(name: str, source: StateDict, base: DiTConfig) -> DiTConfig:
    """Configuration of the DiT that an adapter belongs to, as far as its own shapes tell.

    Args:
      name: Its kind.
      source: Its tensors.
      base: What they do not tell.

    Raises:
      UserError: The width is not that of `base`, and the number of heads is not known.
    """
    names = choose_names(name, source)
    if "blocks.self_attn.q" not in names:
        return base
    layout = "original" if "self_attn" in names["blocks.self_attn.q"] else "diffusers"
    config = dit.from_shapes(source, layout, base)
    return dataclasses.replace(config, in_channels=base.in_channels, out_channels=base.out_channels)


def _resnet_config(
    names: Mapping[str, str], source: StateDict, dit_config: DiTConfig
) -> tuple[ResNetAdapterConfig, list[str]]:
    stem = source.get(f"{names['stem']}.weight")
    if stem is None or len(stem.shape) < 2:
        return ResNetAdapterConfig(), []
    width, channels = stem.shape[:2]
    fields: dict[str, Any] = {"width": width}
    notices = []
    kernel = stem.shape[-1] if len(stem.shape) > 3 else 1
    if channels == math.prod(dit_config.patch_size) * dit_config.in_channels and kernel % 2:
        fields["stem_kernel"] = kernel
        notices.append(
            f"the order of the {channels} channels of folded patches is not in the file: channel, "
            "row, column, as torch's pixel_unshuffle has them"
        )
    elif channels == dit_config.in_channels and kernel % 2:
        fields |= {"stem_kernel": kernel, "stem_strided": True}
        notices.append("the stride of the stem is not in the file: that of the DiT's patches")
    if f"{names['blocks.norm1'].format(layer=0)}.bias" in source:
        conv = source.get(f"{names['blocks.conv1'].format(layer=0)}.weight")
        is_3d = conv is not None and len(conv.shape) == 5
        fields["norm"] = "group_video" if is_3d else "group"
        fields["num_groups"] = math.gcd(width, 32)
        notices.append(
            f"the norms have biases, so they are group norms of {fields['num_groups']} groups over "
            f"{'all frames' if is_3d else 'each frame'}; --set num_groups=N and --set norm="
            f"{'group' if is_3d else 'group_video'} change what is not in the file"
        )
    return ResNetAdapterConfig(**fields), notices


#: The DiT's own names in either layout, and the projections.
_COPIED = (
    *((ours, names) for ours, *names in dit.NAMES if not ours.startswith("head.")),
    ("projections", PROJECTIONS),
)
#: An adapter has no head, but copies of the whole DiT keep it.
_HEAD = (r"head\..*", r"proj_out\.(weight|bias)", "scale_shift_table")
#: What embeds condition and mask, with the bias of the noisy input, which is zero.
_CONDITION_EMBEDDINGS = ("condition_embedding", "controlnet_cond_embedding", "cond_embedding")

#: By the kinds of `flashmotion_jax.config.adapters.ADAPTERS`.
NAMES: dict[str, AdapterNames] = {
    "resnet": AdapterNames(
        modules=(
            ("stem", ("stem", "conv_in", "patch_embedding", "proj_in", "input_conv", "conv1")),
            ("blocks.norm1", _in_blocks("norm1", "in_layers.0", "residual.0")),
            ("blocks.conv1", _in_blocks("conv1", "in_layers.2", "residual.2")),
            ("blocks.norm2", _in_blocks("norm2", "out_layers.0", "residual.3")),
            ("blocks.conv2", _in_blocks("conv2", "out_layers.3", "residual.6")),
            ("blocks.projection", PROJECTIONS),
        ),
        signature="blocks.conv1",
        read_config=_resnet_config,
    ),
    # Before the ControlNet, whose signature it has, too.
    "sparsectrl": AdapterNames(
        modules=(("patch_embedding", _CONDITION_EMBEDDINGS), *_COPIED[1:]),
        signature="patch_embedding",
        read_config=_sparsectrl_config,
        left_out=_HEAD,
    ),
    "controlnet": AdapterNames(
        modules=_COPIED,
        signature="blocks.self_attn.q",
        read_config=_controlnet_config,
        left_out=_HEAD,
    ),
}


def table(name: str, config: AdapterConfig, dit_config: DiTConfig, source: StateDict) -> list[Row]:
    """Rows with the names that `source` has, and our own where it has none of them."""
    rows = []
    for ours, chosen in choose_names(name, source).items():
        first = chosen.format(layer=0)
        scale = next((leaf for leaf in _LEAVES if f"{first}.{leaf}" in source), "weight")
        rows += [Row(f"{ours}.scale", f"{chosen}.{scale}")] if scale != "weight" else []
        weight = source.get(f"{first}.weight")
        shape = weight.shape if weight else ()
        rows.append(Row(ours, chosen, *_layout(ours, config, dit_config, shape)))
    return rows


def choose_names(name: str, source: StateDict) -> dict[str, str]:
    """The name of each of our modules in a file, the first one where it has none of them."""
    return {ours: _choose(names, source) for ours, names in NAMES[name].modules}


def is_kind(name: str, source: StateDict) -> bool:
    """Whether the file has both a projection and the module that is the kind's signature."""
    names = NAMES[name]
    return all(
        any(_has(candidate, source) for candidate in alternatives)
        for alternatives in (PROJECTIONS, dict(names.modules)[names.signature])
    )


def anchors() -> Iterator[str]:
    """Keys of which every adapter has one; what stands before it stands before all its keys."""
    return (f"{name.format(layer=0)}.weight" for name in PROJECTIONS)


def read_config(
    name: str, source: StateDict, dit_config: DiTConfig
) -> tuple[AdapterConfig, list[str]]:
    """Configuration of an adapter from the names and shapes of its tensors.

    Args:
      name: Its kind.
      source: The tensors.
      dit_config: Of the DiT it belongs to.

    Returns:
      The configuration, and a line for everything that the file does not tell.
    """
    return NAMES[name].read_config(choose_names(name, source), source, dit_config)


def _layout(
    target: str, config: AdapterConfig, dit_config: DiTConfig, shape: tuple[int, ...]
) -> tuple[str | None, dict[str, int]]:
    """Layout of a module, given the shape of its weight in the file, empty if there is none."""
    if not isinstance(config, ResNetAdapterConfig):
        return dit.row_layout(target, dit_config)
    if target != "stem":
        is_3d = config.norm == "group_video" and target in ("blocks.conv1", "blocks.conv2")
        return ("h w i o -> o i 1 h w" if is_3d else None), {}
    if config.stem_strided:
        return None, {}
    pattern, sizes = dit.row_layout("patch_embedding", dit_config)
    if config.stem_kernel > 1:
        return "h w (q r c) d -> d (c q r) h w", sizes
    is_folded = len(shape) < 4 or shape[-1] == 1
    return (FOLDED_LAYOUT if shape and is_folded else pattern), sizes


def _choose(names: Sequence[str], source: StateDict) -> str:
    return next((name for name in names if _has(name, source)), names[0])


def _has(name: str, source: StateDict) -> bool:
    first = name.format(layer=0)
    return first in source or any(f"{first}.{leaf}" in source for leaf in _LEAVES)
