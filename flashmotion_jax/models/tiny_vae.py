"""A tiny video autoencoder with the latents of Wan2.2's: 137 to 232 times less work.

Every frame is a 2-D image. A block sees the frame before it as further channels, and 1 x 1
convolutions merge frames into channels, or turn channels into frames.

Source: TAEHV, https://github.com/madebyollin/taehv, `taehv.py`.
"""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from flashmotion_jax.config import TinyVAEConfig
from flashmotion_jax.models import layers
from flashmotion_jax.models.convolution import double_and_convolve
from flashmotion_jax.models.layers import FLOAT32, Policy
from flashmotion_jax.models.linear_code import LinearCode
from flashmotion_jax.models.space_to_depth import join_cells, split_cells
from flashmotion_jax.models.streaming import Past, Stream, scan_chunks
from flashmotion_jax.runtime.errors import UserError


def _conv(
    in_channels: int,
    out_channels: int,
    size: int = 3,
    *,
    bias: bool = True,
    strides: int = 1,
    groups: int = 1,
    zero: bool = False,
    policy: Policy,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A convolution whose padding is the same on both sides, also with strides."""
    return layers.conv2d(
        in_channels,
        out_channels,
        size,
        strides=strides,
        padding=size // 2,
        use_bias=bias,
        groups=groups,
        zero=zero,
        policy=policy,
        rngs=rngs,
    )


class MemoryBlock(nnx.Module):
    """Residual block of three convolutions over a frame and the one before it."""

    def __init__(self, channels: int, *, policy: Policy, rngs: nnx.Rngs):
        self.conv1 = _conv(2 * channels, channels, policy=policy, rngs=rngs)
        self.conv2 = _conv(channels, channels, policy=policy, rngs=rngs)
        self.conv3 = _conv(channels, channels, zero=True, policy=policy, rngs=rngs)

    def __call__(self, x_BTHWC: jax.Array, stream: Stream) -> jax.Array:
        """Runs a chunk; its shape stays."""

        def convolve(x_NHWC: jax.Array) -> jax.Array:
            hidden = jax.nn.relu(self.conv1(x_NHWC))
            return self.conv3(jax.nn.relu(self.conv2(hidden)))

        return jax.nn.relu(x_BTHWC + layers.per_frame(convolve, _with_previous(x_BTHWC, stream)))


class WideMemoryBlock(nnx.Module):
    """Residual block of a 7 x 7 depthwise convolution and an MLP over the channels."""

    def __init__(self, channels: int, *, policy: Policy, rngs: nnx.Rngs):
        both = 2 * channels
        self.depthwise = _conv(both, both, 7, groups=both, bias=False, policy=policy, rngs=rngs)
        self.up = _conv(both, 2 * both, 1, policy=policy, rngs=rngs)
        self.down = _conv(2 * both, channels, 1, bias=False, zero=True, policy=policy, rngs=rngs)

    def __call__(self, x_BTHWC: jax.Array, stream: Stream) -> jax.Array:
        """Runs a chunk; its shape stays."""

        def convolve(x_NHWC: jax.Array) -> jax.Array:
            return self.down(jax.nn.relu(self.up(self.depthwise(x_NHWC))))

        return x_BTHWC + layers.per_frame(convolve, _with_previous(x_BTHWC, stream))


def _with_previous(x_BTHWC: jax.Array, stream: Stream) -> jax.Array:
    """Appends the channels of the previous frame to each frame; zeros before the first."""
    return jnp.concatenate([x_BTHWC, stream.extend(x_BTHWC, 1)[:, :-1]], axis=-1)


class TinyEncoder(nnx.Module):
    """Maps patches of pixels to latents."""

    def __init__(self, config: TinyVAEConfig, *, policy: Policy, rngs: nnx.Rngs):
        dim = config.encoder_dim
        self.conv_in = _conv(3 * config.patch_size**2, dim, policy=policy, rngs=rngs)
        self.levels = nnx.List(
            [
                TinyDownLevel(config, level, policy=policy, rngs=rngs)
                for level in range(len(config.temporal_downsample))
            ]
        )
        channels = config.latent_channels
        self.conv_out = _conv(dim, channels, zero=config.linear_code, policy=policy, rngs=rngs)

    def __call__(self, x_BTHWC: jax.Array, stream: Stream) -> jax.Array:
        """Encodes a chunk of `4 n` frames to n latent frames."""
        x = jax.nn.relu(layers.per_frame(self.conv_in, x_BTHWC))
        for level in self.levels:
            x = level(x, stream)
        return layers.per_frame(self.conv_out, x)


class TinyDownLevel(nnx.Module):
    """Merges frames, halves height and width, and runs the blocks."""

    def __init__(self, config: TinyVAEConfig, level: int, *, policy: Policy, rngs: nnx.Rngs):
        channels, self.num_frames = config.encoder_dim, 1 + config.temporal_downsample[level]
        strides, merged = 1 + config.spatial_downsample[level], self.num_frames * channels
        self.merge = _conv(merged, channels, 1, bias=False, policy=policy, rngs=rngs)
        self.down = _conv(channels, channels, bias=False, strides=strides, policy=policy, rngs=rngs)
        self.blocks = nnx.List(
            [MemoryBlock(channels, policy=policy, rngs=rngs) for _ in range(config.num_blocks)]
        )

    def __call__(self, x_BTHWC: jax.Array, stream: Stream) -> jax.Array:
        """Runs a chunk."""
        x = rearrange(x_BTHWC, "b (t f) h w c -> b t f h w c", f=self.num_frames)
        x = rearrange(rearrange(x, "b t f h w c -> b t h w f c"), "b t h w f c -> b t h w (f c)")
        x = layers.per_frame(lambda image: self.down(self.merge(image)), x)
        for block in self.blocks:
            x = block(x, stream)
        return x


class TinyDecoder(nnx.Module):
    """Maps latents to patches of pixels."""

    def __init__(self, config: TinyVAEConfig, *, policy: Policy, rngs: nnx.Rngs):
        self.is_super = config.decoder == "super"
        dims, pixels = config.decoder_dims, 3 * config.patch_size**2
        if self.is_super:
            self.conv_in = _conv(
                config.latent_channels, dims[0], 1, bias=False, policy=policy, rngs=rngs
            )
        else:
            self.conv_in = _conv(config.latent_channels, dims[0], policy=policy, rngs=rngs)
        up_level = WideUpLevel if self.is_super else TinyUpLevel
        self.levels = nnx.List(
            [
                up_level(config, level, policy=policy, rngs=rngs)
                for level in reversed(range(len(config.temporal_downsample)))
            ]
        )
        zero = config.linear_code
        self.conv_out = _conv(dims[-1], pixels, zero=zero, policy=policy, rngs=rngs)

    def __call__(self, x_BTHWC: jax.Array, stream: Stream) -> jax.Array:
        """Decodes a chunk of n latent frames to `4 n` frames."""
        if self.is_super:
            x = layers.per_frame(self.conv_in, x_BTHWC)
        else:
            # Soft clamping keeps latents that the encoder never gives from exploding.
            x = 3.0 * jnp.tanh(x_BTHWC / 3.0)
            x = jax.nn.relu(layers.per_frame(self.conv_in, x))
        for level in self.levels:
            x = level(x, stream)
        if not self.is_super:
            x = jax.nn.relu(x)
        return layers.per_frame(self.conv_out, x)


class TinyUpLevel(nnx.Module):
    """Runs the blocks, turns channels into frames, and doubles height and width.

    It undoes the `TinyDownLevel` of the same number.
    """

    def __init__(self, config: TinyVAEConfig, level: int, *, policy: Policy, rngs: nnx.Rngs):
        in_channels, out_channels = _channels(config, level)
        self.num_frames = 1 + config.temporal_downsample[level]
        self.doubles_space = config.spatial_downsample[level]
        self.blocks = nnx.List(
            [MemoryBlock(in_channels, policy=policy, rngs=rngs) for _ in range(config.num_blocks)]
        )
        grown = self.num_frames * in_channels
        self.grow = _conv(in_channels, grown, 1, bias=False, policy=policy, rngs=rngs)
        self.up = _conv(in_channels, out_channels, bias=False, policy=policy, rngs=rngs)
        self.dtype = policy.compute

    def __call__(self, x_BTHWC: jax.Array, stream: Stream) -> jax.Array:
        """Runs a chunk."""
        for block in self.blocks:
            x_BTHWC = block(x_BTHWC, stream)
        # Before the doubling, a 1 x 1 convolution has a quarter of the pixels and the same result.
        x_BTHWC = _to_frames(layers.per_frame(self.grow, x_BTHWC), self.num_frames)
        if not self.doubles_space:
            return layers.per_frame(self.up, x_BTHWC)
        return layers.per_frame(
            lambda image: double_and_convolve(image, self.up.kernel[...], self.dtype), x_BTHWC
        )


class WideUpLevel(nnx.Module):
    """The level of the "super" decoder, which turns channels into pixels and into frames."""

    def __init__(self, config: TinyVAEConfig, level: int, *, policy: Policy, rngs: nnx.Rngs):
        in_channels, out_channels = _channels(config, level)
        self.num_frames = 1 + config.temporal_downsample[level]
        self.scale = 1 + config.spatial_downsample[level]
        self.blocks = nnx.List(
            [
                WideMemoryBlock(in_channels, policy=policy, rngs=rngs)
                for _ in range(config.num_blocks)
            ]
        )
        self.up = _conv(in_channels, self.scale**2 * out_channels, policy=policy, rngs=rngs)
        grown = self.num_frames * out_channels
        self.grow = _conv(out_channels, grown, 1, bias=False, policy=policy, rngs=rngs)

    def __call__(self, x_BTHWC: jax.Array, stream: Stream) -> jax.Array:
        """Runs a chunk."""
        for block in self.blocks:
            x_BTHWC = block(x_BTHWC, stream)
        x = _unfold(jax.nn.relu(layers.per_frame(self.up, x_BTHWC)), self.scale)
        return _to_frames(layers.per_frame(self.grow, x), self.num_frames)


def _channels(config: TinyVAEConfig, level: int) -> tuple[int, int]:
    """Channels before and after the decoder's level that undoes a level of the encoder."""
    return list(pairwise(config.decoder_dims))[::-1][level]


def _to_frames(x_BTHWC: jax.Array, num_frames: int) -> jax.Array:
    """Turns groups of channels into frames: `[B, T, H, W, f * C] -> [B, T * f, H, W, C]`."""
    x = rearrange(x_BTHWC, "b t h w (f c) -> b t h w f c", f=num_frames)
    return rearrange(rearrange(x, "b t h w f c -> b t f h w c"), "b t f h w c -> b (t f) h w c")


def _fold(video_BTHWC: jax.Array, size: int) -> jax.Array:
    """Pixels of `size` x `size` patches as channels, in the order of torch's `pixel_unshuffle`."""
    cells = split_cells(video_BTHWC, (1, size, size))
    return rearrange(cells, "b t h w c 1 q r -> b t h w (c q r)")


def _unfold(x_BTHWC: jax.Array, size: int) -> jax.Array:
    """The inverse of `_fold`."""
    return join_cells(rearrange(x_BTHWC, "b t h w (c q r) -> b t h w c 1 q r", q=size, r=size))


class TinyVAE(nnx.Module):
    """Encoder and decoder of normalized latents, which are the DiT's.

    Attributes:
      config: Configuration.
    """

    def __init__(self, config: TinyVAEConfig, *, policy: Policy = FLOAT32, rngs: nnx.Rngs):
        self.config = config
        self.encoder = TinyEncoder(config, policy=policy, rngs=rngs)
        self.decoder = TinyDecoder(config, policy=policy, rngs=rngs)
        self.linear_code = (
            LinearCode(config, policy=policy, rngs=rngs) if config.linear_code else None
        )

    def encode(self, video: jax.Array, chunk: int = 1) -> jax.Array:
        """Encodes a video or an image to normalized latents.

        Latent frame t sees four frames from 4 t on, and what the blocks remember of those before.

        Args:
          video: `[B, F, H, W, 3]` in [-1, 1]; F is 4 n + 1, H and W are multiples of 16.
          chunk: See `VAE.moments`.

        Returns:
          float32 `[B, n + 1, H / 16, W / 16, latent_channels]`.

        Raises:
          UserError: The shape is not supported.
        """
        space, time = self.config.spatial_factor, self.config.temporal_factor
        num_frames, height, width = video.shape[1:4]
        if (num_frames - 1) % time or height % space or width % space or video.shape[-1] != 3:
            raise UserError(
                f"video has shape {video.shape}; expected [B, {time} n + 1, H, W, 3] with H and W "
                f"multiples of {space}"
            )
        last = jnp.repeat(video[:, -1:], time - 1, axis=1)
        padded = jnp.concatenate([video, last], axis=1)
        latents = scan_chunks(self._latents, padded, chunk * time, first=time)
        if self.linear_code is None:
            return latents
        code = [self.linear_code.encode(video[:, :1], is_first=True)]
        if num_frames > 1:
            code.append(self.linear_code.encode(video[:, 1:], is_first=False))
        return latents + jnp.concatenate(code, axis=1)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Decodes normalized latents to a video.

        Args:
          latents: `[B, T, h, w, latent_channels]`.

        Returns:
          float32 `[B, 4 (T - 1) + 1, 16 h, 16 w, 3]`, clipped to [-1, 1].

        Raises:
          UserError: The shape is not supported.
        """
        if latents.ndim != 5 or latents.shape[-1] != self.config.latent_channels:
            raise UserError(
                f"latents have shape {latents.shape}; expected [B, T, h, w, "
                f"{self.config.latent_channels}], channels last"
            )
        return scan_chunks(self.decode_chunk, latents, 1)

    def decode_chunk(self, latents: jax.Array, past: Past | None = None) -> tuple[jax.Array, Past]:
        """Decodes one chunk of latents: the first latent frame, or n later ones.

        Args:
          latents: `[B, 1 or n, h, w, latent_channels]`.
          past: The past that the previous chunk returned; None for the first frame.

        Returns:
          float32 `[B, 1 or 4 n, 16 h, 16 w, 3]` in [-1, 1], and the next past.
        """
        pixels, past = self._pixels(latents, past)
        return jnp.clip(pixels, -1.0, 1.0), past

    def reconstruct(self, latents: jax.Array, chunk: int = 1) -> jax.Array:
        """Decodes normalized latents without clipping, whose gradient would be zero.

        Args:
          latents: `[B, T, h, w, latent_channels]`.
          chunk: See `VAE.moments`.

        Returns:
          float32 `[B, 4 (T - 1) + 1, 16 h, 16 w, 3]`.
        """
        return scan_chunks(self._pixels, latents, chunk)

    def _latents(self, video: jax.Array, past: Past | None) -> tuple[jax.Array, Past]:
        """Latents of a chunk, and the next past."""
        stream = Stream(past)
        patches = _fold((video + 1) / 2, self.config.patch_size)
        return self.encoder(patches, stream).astype(jnp.float32), tuple(stream.future)

    def _pixels(self, latents: jax.Array, past: Past | None) -> tuple[jax.Array, Past]:
        """Pixels of a chunk, and the next past."""
        stream = Stream(past)
        x = self.decoder(latents.astype(jnp.float32), stream).astype(jnp.float32)
        pixels = _unfold(x, self.config.patch_size)
        if stream.is_first:  # of its four frames, the last is the first of the video
            pixels = pixels[:, self.config.temporal_factor - 1 :]
        if self.linear_code is not None:
            pixels += self.linear_code.decode(latents, is_first=stream.is_first)
        return 2 * pixels - 1, tuple(stream.future)
