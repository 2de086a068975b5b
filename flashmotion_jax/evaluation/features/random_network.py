"""A network with random filters, whose features give a Fréchet distance without downloaded weights.

It is not trained: its filters are random numbers of a fixed seed. Its distances rank distortions of
the same videos (blur, noise, frozen motion: tested). They can be compared only with each other, for
videos of the same size and number, never with FVD or FID. They know nothing of content.

Three layers of 3 x 3 x 3 filters see the video at three sizes. Nearly all filters sum to zero, so
that they respond to edges and changes, not to brightness. The absolute responses are the input of
the next layer, and the logarithms of their mean and standard deviation are features. Blur, noise or
a lack of motion shifts a logarithm by the same amount whatever a video's contrast, and sparse edges
differ from dense noise in the ratio of the two.

Source: scattering networks (Bruna and Mallat, 2013), with random filters for wavelets.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.runtime.jit import program

#: Filters, stride in time and stride in space of each layer: 2 x 32 = 64 features.
_LAYERS = ((8, 1, 1), (12, 1, 2), (12, 2, 2))

#: Filters of the first layer that also respond to brightness and color.
_UNBALANCED = 2

#: One of 255 levels on the scale -1..1; responses far below it are rounding.
_ROUNDING = 2 / 255


class RandomNetwork:
    """A convolutional network with random filters that are the same everywhere.

    Args:
      seed: Seed of the filters. Another seed is another network with other distances.
      batch_size: Videos, or frames, that are computed together; it does not change results.
    """

    def __init__(self, seed: int = 0, batch_size: int = 16):
        self._kernels = [jnp.asarray(kernel) for kernel in _draw_kernels(seed)]
        self._batch_size = batch_size

    def video_features(self, videos: np.ndarray) -> np.ndarray:
        """Features of videos, of appearance and motion.

        Args:
          videos: uint8 `[N, F, H, W, 3]`.

        Returns:
          float32 `[N, 64]`.

        Raises:
          ValueError: The videos have another shape or dtype.
        """
        if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3 or not videos.size:
            raise ValueError(
                f"videos of {videos.dtype} {videos.shape}: expected uint8 [N, F, H, W, 3]"
            )
        features = []
        for start in range(0, len(videos), self._batch_size):
            batch = videos[start : start + self._batch_size]
            # The last batch is padded, so that all run the same compiled program.
            missing = [(0, self._batch_size - len(batch)), *[(0, 0)] * 4]
            computed = _features(self._kernels, jnp.asarray(np.pad(batch, missing)))
            features.append(np.asarray(computed)[: len(batch)])
        return np.concatenate(features)

    def image_features(self, frames: np.ndarray) -> np.ndarray:
        """Features of single frames, each as a still video.

        Args:
          frames: uint8 `[M, H, W, 3]`.

        Returns:
          float32 `[M, 64]`.

        Raises:
          ValueError: The frames have another shape or dtype.
        """
        if frames.ndim != 4:
            raise ValueError(f"frames of shape {frames.shape}: expected uint8 [M, H, W, 3]")
        return self.video_features(frames[:, None])


@program
def _features(kernels: list[jax.Array], videos_NFHW3: jax.Array) -> jax.Array:
    x = videos_NFHW3.astype(jnp.float32) / 127.5 - 1
    features = []
    for kernel, (_, time_stride, space_stride) in zip(kernels, _LAYERS, strict=True):
        x = jnp.abs(_convolve(x, kernel, time_stride, space_stride))
        for pooled in (jnp.mean(x, axis=(1, 2, 3)), jnp.std(x, axis=(1, 2, 3))):
            features.append(jnp.log(pooled + _ROUNDING))
    return jnp.concatenate(features, axis=-1)


def _convolve(
    x_NFHWC: jax.Array, kernel: jax.Array, time_stride: int, space_stride: int
) -> jax.Array:
    # Borders are repeated: a single frame becomes a still video, and zeros would be edges.
    padded = jnp.pad(x_NFHWC, [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0)], mode="edge")
    frames = x_NFHWC.shape[1]
    # The three taps in time as channels: 3D convolutions are much slower on a CPU.
    taps = [padded[:, i : i + frames : time_stride] for i in range(3)]
    x = jnp.concatenate(taps, axis=-1)
    y = jax.lax.conv_general_dilated(
        x.reshape(-1, *x.shape[2:]),
        kernel,
        (space_stride, space_stride),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _draw_kernels(seed: int) -> list[np.ndarray]:
    """A float32 kernel `[3, 3, 3 * in, out]` for each layer, third axis by time."""
    rng = np.random.default_rng(seed)
    kernels: list[np.ndarray] = []
    channels = 3
    for filters, _, _ in _LAYERS:
        kernel = rng.standard_normal((3, 3, 3, channels, filters))
        balanced = kernel[..., 0 if kernels else _UNBALANCED :]
        balanced -= balanced.mean(axis=(0, 1, 2), keepdims=True)
        kernel /= np.sqrt(np.square(kernel).sum(axis=(0, 1, 2, 3)))
        kernels.append(kernel.reshape(3, 3, 3 * channels, filters).astype(np.float32))
        channels = filters
    return kernels
