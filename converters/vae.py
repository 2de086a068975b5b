"""The video autoencoder: names in the original and the diffusers layout, and its sizes.

Source: Wan2.2 `wan/modules/vae2_2.py`; diffusers `autoencoder_kl_wan.py`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from flashmotion_jax.config import VAEConfig, from_dict
from flashmotion_jax.runtime.errors import UserError

from .mapping import Row
from .tensors import StateDict

#: Our matmuls over channels are convolutions of size one in torch.
POINTWISE_2D = "i o -> o i 1 1"
POINTWISE_3D = "i o -> o i 1 1 1"

#: Our half of the network, its levels, and what diffusers calls a level and its resampling.
HALVES = (
    ("encoder", "downsamples", "down_blocks", "downsampler"),
    ("decoder", "upsamples", "up_blocks", "upsampler"),
)

#: Our part of a residual block, its original name, its name in diffusers, and its layout.
RESIDUAL = (
    ("norm1.scale", "residual.0.gamma", "norm1.gamma", "c -> c 1 1 1"),
    ("conv1", "residual.2", "conv1", None),
    ("norm2.scale", "residual.3.gamma", "norm2.gamma", "c -> c 1 1 1"),
    ("conv2", "residual.6", "conv2", None),
    ("shortcut", "shortcut", "conv_shortcut", POINTWISE_3D),
)
ATTENTION = (
    ("norm.scale", "norm.gamma", "c -> c 1 1"),
    ("to_qkv", "to_qkv", POINTWISE_2D),
    ("proj", "proj", POINTWISE_2D),
)


#: Layout -> names that tell sizes, patterns of levels and of blocks of the first level, and what
#: the keys of Wan2.1's autoencoder begin with, whose levels are not nested.
PLACES = {
    "original": {
        "encoder": "encoder.conv1",
        "decoder": "decoder.conv1",
        "latents": "conv2",
        "level": "encoder.downsamples.{}.downsamples.{}.residual.2",
        "time": "encoder.downsamples.{}.downsamples.{}.time_conv",
        "levels": r"encoder\.downsamples\.(\d+)\.",
        "blocks": r"encoder\.downsamples\.0\.downsamples\.(\d+)\.residual\.",
        "wan21": "encoder.downsamples.0.residual.",
    },
    "diffusers": {
        "encoder": "encoder.conv_in",
        "decoder": "decoder.conv_in",
        "latents": "post_quant_conv",
        "level": "encoder.down_blocks.{}.resnets.{}.conv1",
        "time": "encoder.down_blocks.{}.downsampler.time_conv",
        "levels": r"encoder\.down_blocks\.(\d+)\.",
        "blocks": r"encoder\.down_blocks\.0\.resnets\.(\d+)\.",
        "wan21": "encoder.down_blocks.0.conv1.",
    },
}


#: Our field and its name in diffusers' `config.json`.
FIELDS = (
    ("latent_channels", "z_dim"),
    ("encoder_dim", "base_dim"),
    ("decoder_dim", "decoder_base_dim"),
    ("multipliers", "dim_mult"),
    ("num_res_blocks", "num_res_blocks"),
    ("temporal_downsample", "temperal_downsample"),
    ("patch_size", "patch_size"),
    ("latents_mean", "latents_mean"),
    ("latents_std", "latents_std"),
)


def table(config: VAEConfig, layout: str) -> list[Row]:
    """Rows of the "original" or the "diffusers" layout."""
    is_original = layout == "original"

    def residual(ours: str, original: str, diffusers: str) -> list[Row]:
        return [
            Row(f"{ours}.{a}", f"{original}.{b}" if is_original else f"{diffusers}.{c}", pattern)
            for a, b, c, pattern in RESIDUAL
        ]

    def pick(original: str, diffusers: str) -> str:
        return original if is_original else diffusers

    rows = [
        Row("conv1", pick("conv1", "quant_conv"), POINTWISE_3D),
        Row("conv2", pick("conv2", "post_quant_conv"), POINTWISE_3D),
    ]
    for half, levels, blocks, resampler in HALVES:
        num_blocks = config.num_res_blocks + (half == "decoder")
        resample = pick(
            f"{half}.{levels}.{{x}}.{levels}.{num_blocks}", f"{half}.{blocks}.{{x}}.{resampler}"
        )
        attention = pick(f"{half}.middle.1", f"{half}.mid_block.attentions.0")
        rows += [
            Row(f"{half}.conv1", pick(f"{half}.conv1", f"{half}.conv_in")),
            Row(f"{half}.{levels}.{{x}}.resample", f"{resample}.resample.1"),
            Row(f"{half}.{levels}.{{x}}.time_conv", f"{resample}.time_conv"),
            *residual(
                f"{half}.{levels}.{{x}}.residuals.{{y}}",
                f"{half}.{levels}.{{x}}.{levels}.{{y}}",
                f"{half}.{blocks}.{{x}}.resnets.{{y}}",
            ),
            *residual(f"{half}.middle.0", f"{half}.middle.0", f"{half}.mid_block.resnets.0"),
            *(Row(f"{half}.middle.1.{a}", f"{attention}.{b}", p) for a, b, p in ATTENTION),
            *residual(f"{half}.middle.2", f"{half}.middle.2", f"{half}.mid_block.resnets.1"),
            Row(
                f"{half}.head_norm.scale",
                pick(f"{half}.head.0.gamma", f"{half}.norm_out.gamma"),
                "c -> c 1 1 1",
            ),
            Row(f"{half}.head_conv", pick(f"{half}.head.2", f"{half}.conv_out")),
        ]
    return rows


def read_config(source: StateDict, values: Mapping[str, Any], layout: str) -> VAEConfig:
    """Sizes from shapes (original), or from `config.json` (diffusers).

    Args:
      source: the tensors.
      values: content of `config.json`; the original layout has none.
      layout: "original" or "diffusers".

    Raises:
      UserError: these are not the weights, or not the file, of Wan2.2's autoencoder.
    """
    if layout == "original":
        return from_shapes(source, layout, VAEConfig())
    try:
        return _from_diffusers(values)
    except KeyError as error:
        raise UserError(f"the VAE's config.json or weights lack {error}; wrong model?") from error


def from_shapes(source: StateDict, layout: str, base: VAEConfig) -> VAEConfig:
    """Sizes from the shapes of the tensors.

    Args:
      source: the tensors.
      layout: "original" or "diffusers".
      base: what shapes do not tell: mean and deviation of the latent channels.

    Raises:
      UserError: these are not the weights of Wan2.2's autoencoder, or mean and deviation of so many
        channels are not known.
    """
    places = PLACES[layout]
    if any(key.startswith(places["wan21"]) for key in source):
        raise UserError(
            "the VAE is that of Wan2.1, with 16 latent channels; expected Wan2.2's, with 48"
        )
    try:
        encoder_dim, pixels = source[f"{places['encoder']}.weight"].shape[:2]
        level, num_levels = places["level"], _count(source, places["levels"])
        num_res_blocks = _count(source, places["blocks"])
        widths = [source[f"{level.format(i, 0)}.weight"].shape[0] for i in range(num_levels)]
        latent_channels = source[f"{places['latents']}.weight"].shape[0]
        if latent_channels != base.latent_channels:
            raise UserError(
                f"the VAE has {latent_channels} latent channels, whose mean and deviation are not "
                "in the file; put the config.json of diffusers beside it"
            )
        return dataclasses.replace(
            base,
            encoder_dim=encoder_dim,
            decoder_dim=source[f"{places['decoder']}.weight"].shape[0]
            // (widths[-1] // encoder_dim),
            multipliers=tuple(width // encoder_dim for width in widths),
            num_res_blocks=num_res_blocks,
            temporal_downsample=tuple(
                f"{places['time'].format(i, num_res_blocks)}.weight" in source
                for i in range(num_levels - 1)
            ),
            patch_size=math.isqrt(pixels // 3),
        )
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"the VAE's config.json or weights lack {error}; wrong model?") from error


def _count(source: StateDict, pattern: str) -> int:
    return len({match[1] for key in source if (match := re.match(pattern, key))})


def _from_diffusers(values: Mapping[str, Any]) -> VAEConfig:
    if not values.get("is_residual"):
        raise UserError("the VAE is that of Wan2.1 (is_residual is not set); expected Wan2.2's")
    fields = {ours: values[theirs] for ours, theirs in FIELDS}
    return from_dict(VAEConfig, fields, "the VAE's config.json")


def write_config(config: VAEConfig) -> dict[str, Any]:
    """Content of diffusers' `config.json`; the original layout has none."""
    return {
        "_class_name": "AutoencoderKLWan",
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS},
        "attn_scales": [],
        "dropout": 0.0,
        "is_residual": True,
        "in_channels": 3 * config.patch_size**2,
        "out_channels": 3 * config.patch_size**2,
        "scale_factor_spatial": config.spatial_factor,
        "scale_factor_temporal": config.temporal_factor,
    }
