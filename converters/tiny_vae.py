"""The tiny video autoencoder: names in TAEHV, and its sizes.

Source: TAEHV, https://github.com/madebyollin/taehv, `taehv.py`: `taew2_2` and `taew2_2_super`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flashmotion_jax.config import TinyVAEConfig
from flashmotion_jax.runtime.errors import UserError

from .mapping import Row
from .tensors import StateDict

#: Our convolution in a block -> its place in the block of TAEHV, by the kind of decoder.
_BLOCKS = {
    "base": {"conv1": 0, "conv2": 2, "conv3": 4},
    "super": {"depthwise": 0, "up": 1, "down": 3},
}
#: Kind of decoder -> the places in its sequence of the first convolution, and, in the first level,
#: of blocks, convolution to the next level and convolution to frames; places per level.
_DECODERS = {"base": (1, 3, 8, 7, 6), "super": (0, 1, 4, 7, 7)}
_PUBLISHED = TinyVAEConfig()
_ENCODER_OUT, _DECODER_OUT = "encoder.17", "decoder.22"


def table(config: TinyVAEConfig, layout: str) -> list[Row]:
    """Rows of the only layout, "original".

    Raises:
      UserError: TAEHV has no names for a tiny VAE of these sizes.
    """
    del layout
    for name in ("num_blocks", "spatial_downsample", "linear_code"):
        value, published = getattr(config, name), getattr(_PUBLISHED, name)
        if value != published:
            raise UserError(
                f"the tiny VAE has {name}={value}; TAEHV has names for {published} alone, so this "
                "one cannot be exported"
            )
    first, blocks, up, grow, step = _DECODERS[config.decoder]
    rows = [
        Row("encoder.conv_in", "encoder.0"),
        Row("encoder.conv_out", _ENCODER_OUT),
        Row("decoder.conv_in", f"decoder.{first}"),
        Row("decoder.conv_out", _DECODER_OUT),
    ]
    for level in range(len(config.temporal_downsample)):
        encoder, decoder = f"encoder.levels.{level}", f"decoder.levels.{level}"
        rows += [
            Row(f"{encoder}.merge", f"encoder.{2 + 5 * level}.conv"),
            Row(f"{encoder}.down", f"encoder.{3 + 5 * level}"),
            Row(f"{decoder}.up", f"decoder.{up + step * level}"),
            Row(f"{decoder}.grow", f"decoder.{grow + step * level}.conv"),
        ]
        for block in range(config.num_blocks):
            rows += [
                Row(
                    f"{half}.blocks.{block}.{conv}",
                    f"{half.split('.')[0]}.{start + block}.conv.{place}",
                )
                for half, start, kind in (
                    (encoder, 4 + 5 * level, "base"),
                    (decoder, blocks + step * level, config.decoder),
                )
                for conv, place in _BLOCKS[kind].items()
            ]
    return rows


def read_config(source: StateDict, values: Mapping[str, Any], layout: str) -> TinyVAEConfig:
    """Reads sizes from shapes, as these weights have no `config.json`; see `from_shapes`."""
    del values
    return from_shapes(source, layout, None)


def from_shapes(source: StateDict, layout: str, base: Any) -> TinyVAEConfig:
    """Reads sizes from shapes.

    Args:
      source: The tensors.
      layout: "original".
      base: Not used: shapes tell everything.

    Raises:
      UserError: A tensor that tells a size is missing.
    """
    del layout, base
    decoder = "super" if "decoder.0.weight" in source else "base"
    first, _, up, _, step = _DECODERS[decoder]
    pixels = 4 if decoder == "super" else 1  # that the channels of a convolution become
    try:
        dims = [source[f"decoder.{first}.weight"].shape[0]]
        dims += [source[f"decoder.{up + step * x}.weight"].shape[0] // pixels for x in range(3)]
        merges = [source[f"encoder.{2 + 5 * x}.conv.weight"].shape for x in range(3)]
        latent_channels, encoder_dim = source[f"{_ENCODER_OUT}.weight"].shape[:2]
        return TinyVAEConfig(
            latent_channels=latent_channels,
            encoder_dim=encoder_dim,
            decoder_dims=tuple(dims),
            decoder=decoder,
            temporal_downsample=tuple(shape[1] == 2 * shape[0] for shape in merges),
            patch_size=math.isqrt(source["encoder.0.weight"].shape[1] // 3),
        )
    except (KeyError, IndexError) as error:
        raise UserError(f"the tiny VAE's weights lack {error}; wrong model?") from error
