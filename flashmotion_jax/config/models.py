"""Sizes of the models, and how they are sampled.

Defaults are the published Wan2.2-TI2V-5B; converters fill them from a checkpoint's own files or
tensor shapes, and they are kept as JSON beside the weights.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from flashmotion_jax.config import wan22
from flashmotion_jax.config.checks import require, require_sizes

MapKind = Literal["box", "filled_box", "mask"]
"""What trajectory maps show after frame 0; see `trajectory.render`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """The diffusion transformer (Wan2.2 `config.json`).

    Raises:
      UserError: a size below 1, a width that is not a multiple of the heads, or odd heads.
    """

    dim: int = 3072
    num_heads: int = 24
    ffn_dim: int = 14336
    num_layers: int = 30
    in_channels: int = 48
    out_channels: int = 48
    patch_size: tuple[int, int] = (2, 2)  # height and width of a token, in latent pixels
    text_dim: int = 4096
    text_len: int = 512  # prompts are padded to it with zeros, and the zeros are attended
    freq_dim: int = 256  # width of the timestep's sinusoid
    eps: float = 1e-6

    def __post_init__(self) -> None:
        require_sizes(self)
        require(
            self.dim % (2 * self.num_heads) == 0,
            f"dim={self.dim} must be a multiple of 2 * num_heads={2 * self.num_heads}: heads are "
            "of equal, even width",
        )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.dim // self.num_heads


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """The causal video autoencoder: 4 x in time, 16 x in space (Wan2.2 `vae2_2.py`).

    Raises:
      UserError: a size below 1, latent statistics that are not one number per latent channel, or
        levels whose channels do not divide those of the shortcut between them.
    """

    latent_channels: int = 48
    encoder_dim: int = 160
    decoder_dim: int = 256
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2  # per encoder level; the decoder has one more
    temporal_downsample: tuple[bool, ...] = (False, True, True)  # one a step between levels
    patch_size: int = 2  # pixels folded into channels before the first convolution
    latents_mean: tuple[float, ...] = wan22.LATENTS_MEAN
    latents_std: tuple[float, ...] = wan22.LATENTS_STD

    def __post_init__(self) -> None:
        require_sizes(self)
        for name in ("latents_mean", "latents_std"):
            require(
                len(getattr(self, name)) == self.latent_channels,
                f"{name} has {len(getattr(self, name))} numbers; expected one for each of the "
                f"latent_channels={self.latent_channels}",
            )
        require(
            len(self.temporal_downsample) == len(self.multipliers) - 1,
            f"temporal_downsample={self.temporal_downsample} needs one entry fewer than "
            f"multipliers={self.multipliers}",
        )
        require(
            self._has_shortcuts(),
            f"multipliers={self.multipliers}: a level's channels, times the 4 or 8 pixels that "
            "become one, must be a multiple of the next level's, and the other way round",
        )

    def _has_shortcuts(self) -> bool:
        """Whether space-to-depth gives each level's channels from those of the level before."""
        cells = [4 * (1 + halves_time) for halves_time in self.temporal_downsample]
        down, up = self.multipliers, self.multipliers[::-1]
        downwards = zip((1, *down), down, (*cells, 1), strict=False)
        upwards = zip((up[0], *up), up, cells[::-1], strict=False)  # the last level grows nothing
        return all(before * cell % after == 0 for before, after, cell in downwards) and all(
            after * cell % before == 0 for before, after, cell in upwards
        )

    @property
    def spatial_factor(self) -> int:
        """Pixels a latent pixel, in height and in width."""
        return self.patch_size * 2 ** len(self.temporal_downsample)

    @property
    def temporal_factor(self) -> int:
        """Frames a latent frame, after the first."""
        return 2 ** sum(self.temporal_downsample)

    def latent_shape(self, num_frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Frames, height, width and channels of the latents of a video of these sizes."""
        return (
            (num_frames - 1) // self.temporal_factor + 1,
            height // self.spatial_factor,
            width // self.spatial_factor,
            self.latent_channels,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """The UMT5 encoder (`google/umt5-xxl`).

    Raises:
      UserError: a size below 1.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetAdapterConfig:
    """The light adapter: 2-D residual blocks on the trajectory latents alone.

    Raises:
      UserError: a width below 1.
    """

    # The paper gives 5.02 B for generator and adapter together, so 15 to 25 M for the adapter: two
    # 3 x 3 convolutions of width 128 a block make 20.8 M. Width 64 or 192 would not fit.
    width: int = 128

    def __post_init__(self) -> None:
        require_sizes(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ControlNetConfig:
    """The heavy adapter: a copy of the DiT's blocks with a zero projection after each."""

    # Open in the paper. MagicMotion, by the same authors, puts both side by side in channels.
    input: Literal["latents+trajectory", "trajectory"] = "latents+trajectory"


AdapterConfig = ResNetAdapterConfig | ControlNetConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The trainable classifiers on a frozen DiT (FlashMotion section 3.4).

    Raises:
      UserError: no tap, taps that do not rise, or a width that the heads do not divide.
    """

    taps: tuple[int, ...] = (13, 21, 29)  # DiT blocks, from 0, whose output a classifier sees
    semantic: bool = True  # self-attention with the first frame and the text (SS)
    trajectory: bool = (
        True  # cross-attention to the trajectory (TC); that to the video is always on
    )
    dim: int = 1024  # open in the paper
    num_heads: int = 8

    def __post_init__(self) -> None:
        require(
            len(self.taps) > 0 and list(self.taps) == sorted(set(self.taps)) and self.taps[0] >= 0,
            f"taps={self.taps}; expected rising block indices from 0, for instance (13, 21, 29)",
        )
        require(
            self.dim % (2 * self.num_heads) == 0,
            f"dim={self.dim} must be a multiple of 2 * num_heads={2 * self.num_heads}",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a checkpoint is sampled; kept beside its weights, overridden by the caller.

    Raises:
      UserError: an unknown sampler, or a value out of range.
    """

    sampler: Literal["few_step", "unipc", "euler"] = "few_step"
    denoising_steps: tuple[int, ...] = (1000, 750, 500, 250)  # of the few-step sampler
    # FlashMotion's generator is trained on the shifted grid (1000, 937.5, 833.3, 625); the base
    # Turbo model's inference script feeds the raw list instead.
    warp_denoising_steps: bool = True
    num_steps: int = 50  # of UniPC and Euler
    shift: float = 5.0
    guidance_scale: float = 5.0  # of UniPC and Euler; the few-step student has none
    negative_prompt: str = wan22.NEGATIVE_PROMPT  # what guidance steers away from
    height: int = 704  # without an image; with one, its aspect ratio within the same area
    width: int = 1280
    num_frames: int = 121
    fps: int = 24
    maps: MapKind = "box"  # those that the adapters were trained on

    def __post_init__(self) -> None:
        require(
            self.maps in get_args(MapKind),
            f"maps={self.maps!r} is unknown; use one of {', '.join(get_args(MapKind))}",
        )
        require(
            self.sampler in ("few_step", "unipc", "euler"),
            f"sampler={self.sampler!r} is unknown; use few_step, unipc or euler",
        )
        require(
            self.guidance_scale >= 1,
            f"guidance_scale={self.guidance_scale} is below 1; use 1 for no guidance",
        )

    @property
    def is_guided(self) -> bool:
        """Whether each step also runs the model on the negative prompt."""
        return self.sampler != "few_step" and self.guidance_scale != 1

    @property
    def steps(self) -> int:
        """Steps of the chosen sampler."""
        return len(self.denoising_steps) if self.sampler == "few_step" else self.num_steps

    def with_steps(self, steps: int) -> SamplingConfig:
        """The same sampler with another number of steps; few-step levels are spread evenly.

        Raises:
          UserError: `steps` is below 1, or above 8 for the few-step sampler.
        """
        if self.sampler != "few_step":
            require(steps >= 1, f"steps={steps}; expected at least 1")
            return dataclasses.replace(self, num_steps=steps)
        require(
            1 <= steps <= 8,
            f"steps={steps}; the few-step sampler takes 1 to 8, use the unipc sampler for more",
        )
        levels = tuple(round(1000 * (steps - i) / steps) for i in range(steps))
        return dataclasses.replace(self, denoising_steps=levels)
