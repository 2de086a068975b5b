"""Configurations of the models.

The defaults describe the published Wan2.2-TI2V-5B. Converters read the values from a checkpoint's
configuration files or tensor shapes, and store them as JSON next to the weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

from flashmotion_jax.config import wan22
from flashmotion_jax.config.checks import require, require_sizes

CachedMapKind = Literal["mask", "box", "points"]
"""The kinds of maps that a latent cache may hold. "box" are outlines or filled, as its data has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Configuration of the diffusion transformer (`config.json` of Wan2.2).

    Raises:
      UserError: A size is below 1, or `dim` is not a multiple of `2 * num_heads`.
    """

    dim: int = 3072
    num_heads: int = 24
    ffn_dim: int = 14336
    num_layers: int = 30
    in_channels: int = 48
    out_channels: int = 48
    patch_size: tuple[int, int] = (2, 2)  # height and width of a token in latent pixels
    text_dim: int = 4096
    text_len: int = 512  # prompts are zero-padded to this length; the zeros are attended to
    freq_dim: int = 256  # width of the sinusoidal timestep embedding
    eps: float = 1e-6

    def __post_init__(self) -> None:
        require_sizes(self)
        require(self.eps > 0, f"eps={self.eps}; expected a positive number")
        require(
            self.dim % (2 * self.num_heads) == 0,
            f"dim={self.dim} must be a multiple of 2 * num_heads={2 * self.num_heads}, so that all "
            "heads have the same even width",
        )

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        return self.dim // self.num_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Configuration of the causal video autoencoder (`vae2_2.py` of Wan2.2).

    The defaults compress 4 times in time and 16 times in height and width.

    Raises:
      UserError: A size is below 1, the latent statistics do not have one value per latent channel,
        or the channels of adjacent levels do not fit the space-to-depth shortcut between them.
    """

    latent_channels: int = 48
    encoder_dim: int = 160
    decoder_dim: int = 256
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2  # per encoder level; decoder levels have one more
    temporal_downsample: tuple[bool, ...] = (False, True, True)  # one entry per downsampling
    spatial_downsample: tuple[bool, ...] | None = None  # likewise; None halves space in all
    patch_size: int = 2  # patches become channels before the first convolution
    linear_code: bool = False  # adds a linear autoencoder to the convolutions
    latents_mean: tuple[float, ...] = wan22.LATENTS_MEAN
    latents_std: tuple[float, ...] = wan22.LATENTS_STD

    def __post_init__(self) -> None:
        require_sizes(self)
        require(
            self.num_res_blocks <= 64 and len(self.multipliers) <= 16,
            f"num_res_blocks={self.num_res_blocks} and {len(self.multipliers)} multipliers; "
            "expected at most 64 blocks on each of at most 16 levels",
        )
        for name in ("latents_mean", "latents_std"):
            require(
                len(getattr(self, name)) == self.latent_channels,
                f"{name} has {len(getattr(self, name))} values; expected "
                f"latent_channels={self.latent_channels}",
            )
        for value in self.latents_mean:
            require(math.isfinite(value), f"latents_mean has {value}; expected finite numbers")
        for value in self.latents_std:
            require(0 < value < math.inf, f"latents_std has {value}; expected positive numbers")
        for name, halved in (
            ("temporal_downsample", self.temporal_downsample),
            ("spatial_downsample", self.halves_space),
        ):
            require(
                len(halved) == len(self.multipliers) - 1,
                f"{name}={halved}; expected one entry fewer than multipliers={self.multipliers}",
            )
        require(
            self._has_shortcuts(),
            f"multipliers={self.multipliers}: the channels of a level, times the number of pixels "
            "merged into one, must be a multiple of those of the next level, and vice versa",
        )

    def _has_shortcuts(self) -> bool:
        """Whether space-to-depth shortcuts can join all adjacent levels."""
        # How many pixels a downsampling merges into one, for instance 2 x 2 x 2 with time.
        halved = zip(self.temporal_downsample, self.halves_space, strict=True)
        merged = [(1 + time) * (1 + space) ** 2 for time, space in halved]
        down, up = self.multipliers, self.multipliers[::-1]
        downwards = zip((1, *down), down, (*merged, 1), strict=False)
        upwards = zip((up[0], *up), up, merged[::-1], strict=False)  # the last level does not grow
        return all(before * count % after == 0 for before, after, count in downwards) and all(
            after * count % before == 0 for before, after, count in upwards
        )

    @property
    def halves_space(self) -> tuple[bool, ...]:
        """Whether each downsampling halves height and width."""
        if self.spatial_downsample is None:
            return (True,) * (len(self.multipliers) - 1)
        return self.spatial_downsample

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent pixel, in height and width."""
        return self.patch_size * 2 ** sum(self.halves_space)

    @property
    def temporal_factor(self) -> int:
        """Frames per latent frame, after the first."""
        return 2 ** sum(self.temporal_downsample)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape `(T, h, w, C)` of the latents of a video."""
        return (
            (num_frames - 1) // self.temporal_factor + 1,
            height // self.spatial_factor,
            width // self.spatial_factor,
            self.latent_channels,
        )


Weights = Literal["int8", "fp8", "bfloat16", "float32"]
"""Dtypes of stored weights: of the two in 8 bits, those of large linear layers alone."""

Decoder = Literal["full", "tiny"]
"""Which autoencoder decodes the latents of a video: the VAE, or the tiny one."""

#: Choice of the decoder -> the component of a checkpoint that decodes.
DECODERS: Mapping[Decoder, str] = {"full": "vae", "tiny": "tiny_vae"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyVAEConfig:
    """Configuration of the tiny autoencoder of the same latents (`taew2_2` of TAEHV).

    The defaults compress as Wan2.2's VAE does.

    Raises:
      UserError: A size is below 1, there are more than 64 blocks, or there are not three levels.
    """

    latent_channels: int = 48
    encoder_dim: int = 64
    decoder_dims: tuple[int, ...] = (256, 128, 64, 64)  # before each level, and after the last
    decoder: Literal["base", "super"] = "base"  # "super": twice the weights, wide depthwise kernels
    num_blocks: int = 3  # per level
    temporal_downsample: tuple[bool, ...] = (True, True, False)  # one entry per encoder level
    spatial_downsample: tuple[bool, ...] = (True, True, True)  # likewise
    patch_size: int = 2  # patches become channels before the first convolution
    linear_code: bool = False  # adds a linear autoencoder to the convolutions

    def __post_init__(self) -> None:
        require_sizes(self)
        require(self.num_blocks <= 64, f"num_blocks={self.num_blocks}; expected at most 64")
        for name, length in (
            ("temporal_downsample", 3),
            ("spatial_downsample", 3),
            ("decoder_dims", 4),
        ):
            value = getattr(self, name)
            require(len(value) == length, f"{name}={value}; expected {length} values")

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent pixel, in height and width."""
        return self.patch_size * 2 ** sum(self.spatial_downsample)

    @property
    def temporal_factor(self) -> int:
        """Frames per latent frame, after the first."""
        return 2 ** sum(self.temporal_downsample)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """Configuration of the UMT5 encoder (`google/umt5-xxl`).

    Raises:
      UserError: A size is below 1.
    """

    vocab_size: int = 256384
    dim: int = 4096
    num_heads: int = 64
    head_dim: int = 64
    ffn_dim: int = 10240
    num_layers: int = 24
    num_buckets: int = 32
    max_distance: int = 128
    eps: float = 1e-6

    def __post_init__(self) -> None:
        require_sizes(self)
        require(self.eps > 0, f"eps={self.eps}; expected a positive number")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Configuration of the trainable classifiers on a frozen DiT (FlashMotion, section 3.4).

    Raises:
      UserError: `block_indices` are empty or not increasing, or `dim` is not a multiple of
        `2 * num_heads`.
    """

    block_indices: tuple[int, ...] = (13, 21, 29)  # DiT blocks with a classifier on their output
    semantic: bool = True  # SS: self-attention with the first frame and the text
    trajectory: bool = True  # TC: cross-attention to the trajectory. VC, to the video, is always on
    dim: int = 1024  # the paper does not say; the DiT's own in the code that it builds on
    num_heads: int = 8
    # The rest of that code's classifier: RMS norms of query tokens, queries and keys, a residual
    # around the MLP, and a layer norm of the tokens of all classifiers.
    extra_norms: bool = False

    def __post_init__(self) -> None:
        require(
            len(self.block_indices) > 0
            and list(self.block_indices) == sorted(set(self.block_indices))
            and self.block_indices[0] >= 0,
            f"block_indices={self.block_indices}; expected increasing indices of DiT blocks, "
            "counted from 0, for instance (13, 21, 29)",
        )
        require(
            self.dim % (2 * self.num_heads) == 0,
            f"dim={self.dim} must be a multiple of 2 * num_heads={2 * self.num_heads}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchDiscriminatorConfig:
    """The discriminator of an autoencoder's reconstructions.

    Raises:
      UserError: A size is below 1.
    """

    dim: int = 32  # channels of the first convolution
    num_frames: int = 3  # consecutive frames that are judged together

    def __post_init__(self) -> None:
        require_sizes(self)
