"""The Wan2.2 video autoencoder: pixels to normalized latents and back, chunk by chunk.

The first frame is a latent frame of its own; after it, four frames make one. The past frames that
causal operations need are passed from chunk to chunk: in one `lax.scan` over a whole video, or by a
caller who shows progress or uses each chunk as soon as it is done.

Source: Wan2.2 `wan/modules/vae2_2.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.lax import broadcast_to_rank
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from flashmotion_jax.config import VAEConfig
from flashmotion_jax.models.attention import can_check_vma, vary_along
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.models.linear_code import LinearCode
from flashmotion_jax.models.space_to_depth import join_cells, split_cells
from flashmotion_jax.models.streaming import Past, Stream, scan_chunks
from flashmotion_jax.models.vae_blocks import (
    CausalConv,
    ChannelNorm,
    DownLevel,
    UpLevel,
    middle,
    pointwise,
    run_middle,
)
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import context_size, join_columns


class Encoder(nnx.Module):
    """Maps folded pixels to features of the latent grid."""

    def __init__(self, config: VAEConfig, *, policy: Policy, rngs: nnx.Rngs):
        channels = [config.encoder_dim * m for m in (1, *config.multipliers)]
        last = len(config.multipliers) - 1
        self.conv1 = CausalConv(3 * config.patch_size**2, channels[0], policy=policy, rngs=rngs)
        self.downsamples = nnx.List(
            [
                DownLevel(
                    channels[i],
                    channels[i + 1],
                    config.num_res_blocks,
                    halve_space=i != last and config.halves_space[i],
                    halve_time=i != last and config.temporal_downsample[i],
                    policy=policy,
                    rngs=rngs,
                )
                for i in range(last + 1)
            ]
        )
        self.middle = middle(channels[-1], policy=policy, rngs=rngs)
        self.head_norm = ChannelNorm(channels[-1])
        self.head_conv = CausalConv(
            channels[-1], 2 * config.latent_channels, policy=policy, rngs=rngs
        )

    @jax.named_scope("encoder")
    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Encodes the first frame, or a chunk of `4 n` frames, to mean and log-variance."""
        x = self.conv1(x, stream)
        for level, downsample in enumerate(self.downsamples):
            with jax.named_scope(f"level{level}"):
                x = downsample(x, stream)
        x = run_middle(self.middle, x, stream)
        return self.head_conv(jax.nn.silu(self.head_norm(x)), stream)


class Decoder(nnx.Module):
    """Maps features of the latent grid to folded pixels."""

    def __init__(self, config: VAEConfig, *, policy: Policy, rngs: nnx.Rngs):
        multipliers = config.multipliers[::-1]
        channels = [config.decoder_dim * m for m in (multipliers[0], *multipliers)]
        doubles_time, doubles_space = config.temporal_downsample[::-1], config.halves_space[::-1]
        last = len(multipliers) - 1
        self.conv1 = CausalConv(config.latent_channels, channels[0], policy=policy, rngs=rngs)
        self.middle = middle(channels[0], policy=policy, rngs=rngs)
        self.upsamples = nnx.List(
            [
                UpLevel(
                    channels[i],
                    channels[i + 1],
                    config.num_res_blocks + 1,
                    double_space=i != last and doubles_space[i],
                    double_time=i != last and doubles_time[i],
                    policy=policy,
                    rngs=rngs,
                )
                for i in range(last + 1)
            ]
        )
        self.head_norm = ChannelNorm(channels[-1])
        self.head_conv = CausalConv(
            channels[-1], 3 * config.patch_size**2, policy=policy, rngs=rngs
        )

    @jax.named_scope("decoder")
    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        """Decodes the first latent frame to one frame of the video, or a later one to four."""
        x = self.conv1(x, stream)
        x = run_middle(self.middle, x, stream)
        for level, upsample in enumerate(self.upsamples):
            with jax.named_scope(f"level{level}"):
                x = upsample(x, stream)
        return self.head_conv(jax.nn.silu(self.head_norm(x)), stream)


class VAE(nnx.Module):
    """Encoder, decoder and the normalization of latents.

    Attributes:
      config: Configuration.
      compute_dtype: Dtype of decoding.
    """

    def __init__(self, config: VAEConfig, *, policy: Policy = FLOAT32, rngs: nnx.Rngs):
        self.config = config
        # The latents of an image enter every denoising step, so encoding is float32 by default.
        self.encoder = Encoder(config, policy=FLOAT32, rngs=rngs)
        # The names of Wan2.2: conv1 belongs to the encoder, conv2 to the decoder.
        self.conv1 = pointwise(
            2 * config.latent_channels, 2 * config.latent_channels, policy=FLOAT32, rngs=rngs
        )
        self.conv2 = pointwise(
            config.latent_channels, config.latent_channels, policy=policy, rngs=rngs
        )
        self.decoder = Decoder(config, policy=policy, rngs=rngs)
        self.linear_code = (
            LinearCode(config, policy=policy, rngs=rngs) if config.linear_code else None
        )
        self.compute_dtype = jnp.dtype(policy.compute)

    def encode(self, video: jax.Array, chunk: int = 1) -> jax.Array:
        """Encodes a video or an image to the normalized mean of its latents.

        Args:
          video: `[B, F, H, W, 3]` in [-1, 1]; F is 4 n + 1, H and W are multiples of 16.
          chunk: See `moments`.

        Returns:
          float32 `[B, n + 1, H / 16, W / 16, latent_channels]`.

        Raises:
          UserError: The shape is not supported.
        """
        mean, _ = self.moments(video, chunk)
        return self._normalize(mean)

    def encode_chunk(
        self, video: jax.Array, past: Past | None = None, dtype: DTypeLike = jnp.float32
    ) -> tuple[jax.Array, Past]:
        """Encodes one chunk of a video: its first frame, or `4 n` later frames.

        Args:
          video: `[B, 1 or 4 n, H, W, 3]` in [-1, 1].
          past: The past that the previous chunk returned; None for the first frame.
          dtype: Dtype of the convolutions. `compute_dtype` is precise enough for trajectory maps.

        Returns:
          float32 latents `[B, 1 or n, H / 16, W / 16, latent_channels]`, and the next past.
        """
        features, past = computing_in(self, dtype)._features(video, past)
        return self._normalize(jnp.split(features, 2, axis=-1)[0]), past

    def moments(self, video: jax.Array, chunk: int = 1) -> tuple[jax.Array, jax.Array]:
        """Encodes a video to mean and log-variance of its latents, before normalization.

        Args:
          video: See `encode`.
          chunk: Latent frames per chunk, a divisor of n. Larger chunks take more memory and, for
            short videos, train faster.

        Returns:
          float32 `[B, n + 1, H / 16, W / 16, latent_channels]` each.

        Raises:
          UserError: The shape is not supported.
        """
        self._check_video(video)
        features = scan_chunks(self._features, video, chunk * self.config.temporal_factor)
        mean, log_variance = jnp.split(features, 2, axis=-1)
        return mean, log_variance

    def decode(self, latents: jax.Array) -> jax.Array:
        """Decodes normalized latents to a video.

        Args:
          latents: `[B, T, h, w, latent_channels]`.

        Returns:
          float32 `[B, 4 (T - 1) + 1, 16 h, 16 w, 3]`, clipped to [-1, 1].

        Raises:
          UserError: The shape is not supported.
        """
        self._check_latents(latents)
        return scan_chunks(self.decode_chunk, latents, 1)

    def decode_chunk(self, latents: jax.Array, past: Past | None = None) -> tuple[jax.Array, Past]:
        """Decodes one chunk of latents: the first latent frame, or n later ones.

        Args:
          latents: `[B, 1 or n, h, w, latent_channels]`.
          past: The past that the previous chunk returned; None for the first frame.

        Returns:
          float32 `[B, 1 or 4 n, 16 h, 16 w, 3]` in [-1, 1], and the next past.
        """
        mean, std = self._latent_statistics()
        z = latents.astype(jnp.float32) * std + mean
        pixels, past = self._pixels(z, past)
        return jnp.clip(pixels, -1.0, 1.0), past

    def reconstruct(self, z: jax.Array, chunk: int = 1) -> jax.Array:
        """Decodes latents that are not normalized, without clipping.

        Args:
          z: `[B, T, h, w, latent_channels]`, for instance sampled from `moments`.
          chunk: See `moments`; a divisor of T - 1.

        Returns:
          float32 `[B, 4 (T - 1) + 1, 16 h, 16 w, 3]`.
        """
        return scan_chunks(self._pixels, z, chunk)

    def _features(self, video: jax.Array, past: Past | None) -> tuple[jax.Array, Past]:
        """Mean and log-variance of a chunk, concatenated along channels, and the next past."""
        run = VAE._features_of_columns
        features, past = self._split_columns(run, video, past, self.config.spatial_factor)
        return join_columns(features), past

    def _pixels(self, z: jax.Array, past: Past | None) -> tuple[jax.Array, Past]:
        """Pixels of a chunk, and the next past."""
        return self._split_columns(VAE._pixels_of_columns, z, past, 1)

    def _split_columns(
        self,
        run: Callable[[VAE, jax.Array, Past | None], tuple[jax.Array, Past]],
        x_BTHWC: jax.Array,
        past: Past | None,
        unit: int,
    ) -> tuple[jax.Array, Past]:
        """Runs a method on every device of "context" with a part of the columns.

        Args:
          run: Method of this class.
          x_BTHWC: Chunk of video or latents.
          past: The past that the previous chunk returned.
          unit: Columns that must stay together. If they do not divide over the devices, each
            device computes all columns.
        """
        size = context_size()
        if size == 1 or x_BTHWC.shape[3] % (size * unit):
            return run(self, x_BTHWC, past)
        # For a batch of one, cutting chunks may lose the spec of the batch; the past still has it.
        batch = jax.typeof(past[0] if past else x_BTHWC).sharding.spec[0]
        columns = PartitionSpec(batch, None, None, "context", None)

        def run_columns(vae: VAE, x_BTHWC: jax.Array, past: Past | None) -> tuple[jax.Array, Past]:
            # The weights are replicated, but each device computes a part of their gradients.
            vae = jax.tree.map(lambda weight: vary_along(weight, columns, PartitionSpec()), vae)
            return run(vae, x_BTHWC, past)

        split = jax.shard_map(
            run_columns,
            in_specs=(PartitionSpec(), columns, columns),
            out_specs=(columns, columns),
            check_vma=can_check_vma(),
        )
        return split(self, jax.sharding.reshard(x_BTHWC, columns), past)

    def _features_of_columns(self, video: jax.Array, past: Past | None) -> tuple[jax.Array, Past]:
        cells = split_cells(video, (1, self.config.patch_size, self.config.patch_size))
        stream = Stream(past)
        features = self.encoder(rearrange(cells, "b f h w c 1 q r -> b f h w (c r q)"), stream)
        features = self.conv1(features).astype(jnp.float32)
        if self.linear_code is not None:
            code = self.linear_code.encode(video, is_first=past is None)
            features += jnp.concatenate([code, jnp.zeros_like(code)], axis=-1)  # of the mean
        return features, tuple(stream.future)

    def _pixels_of_columns(self, z: jax.Array, past: Past | None) -> tuple[jax.Array, Past]:
        stream = Stream(past)
        x = self.decoder(self.conv2(z), stream).astype(jnp.float32)
        q = self.config.patch_size
        cells = rearrange(x, "b f h w (c r q) -> b f h w c 1 q r", q=q, r=q)
        pixels = join_cells(cells)
        if self.linear_code is not None:
            pixels += self.linear_code.decode(z, is_first=past is None)
        return pixels, tuple(stream.future)

    def _normalize(self, mean: jax.Array) -> jax.Array:
        center, std = self._latent_statistics()
        return (mean - center) / std

    def _latent_statistics(self) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the latents, float32 `[1, 1, 1, 1, C]` each."""
        mean = jnp.asarray(self.config.latents_mean, jnp.float32)
        std = jnp.asarray(self.config.latents_std, jnp.float32)
        return broadcast_to_rank(mean, 5), broadcast_to_rank(std, 5)

    def _check_latents(self, latents: jax.Array) -> None:
        if latents.ndim != 5 or latents.shape[-1] != self.config.latent_channels:
            raise UserError(
                f"latents have shape {latents.shape}; expected [B, T, h, w, "
                f"{self.config.latent_channels}], channels last"
            )

    def _check_video(self, video: jax.Array) -> None:
        space, time = self.config.spatial_factor, self.config.temporal_factor
        if video.ndim != 5 or video.shape[-1] != 3:
            raise UserError(f"video has shape {video.shape}; expected [B, F, H, W, 3]")
        if (video.shape[1] - 1) % time:
            raise UserError(
                f"video has {video.shape[1]} frames; expected {time} n + 1, for instance "
                f"{(video.shape[1] - 1) // time * time + 1}"
            )
        if video.shape[2] % space or video.shape[3] % space:
            raise UserError(
                f"video is {video.shape[2]} x {video.shape[3]}; expected multiples of {space}"
            )


def computing_in(vae: VAE, dtype: DTypeLike) -> VAE:
    """Returns a VAE with the same weights whose encoder computes in another dtype."""
    other = nnx.clone(vae)
    for _, part in nnx.iter_modules(other.encoder):
        if isinstance(part, CausalConv | nnx.Conv | nnx.Linear):
            part.dtype = dtype
    return other
