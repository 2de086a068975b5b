"""Sample videos of a run: the same first frames, texts, trajectories and noise each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import KnownFrames, TrainConfig
from flashmotion_jax.data.batches import Batch, first_records
from flashmotion_jax.data.latent_cache import LatentCache
from flashmotion_jax.diffusion.generate import Conditions, generate_latents, make_schedule
from flashmotion_jax.media.images import to_float, to_uint8
from flashmotion_jax.models.tiny_vae import TinyVAE
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.training.stage import ExportSpec
from flashmotion_jax.training.train_step import Models


class LatentSampler:
    """Generates videos from the first records of a latent cache.

    Args:
      run: Number of videos and kind of their trajectory maps.
      export: Sampling settings, and the models that make the videos.
      cache: Source of the records.
      text_len: Tokens per text.
      known_frames: Of an adapter that knows the trajectory on some frames only.

    Raises:
      UserError: The cache holds fewer records, or the checkpoint has no VAE.
    """

    def __init__(
        self,
        run: TrainConfig,
        export: ExportSpec,
        cache: LatentCache,
        text_len: int,
        known_frames: KnownFrames | None = None,
    ):
        self._export = export
        self._dtype = run.dtype
        self._negative_text = cache.negative_text
        self._records = first_records(cache, run.num_samples, run.map_kind, text_len, known_frames)
        components.read_component(export.base, "vae")

    def __call__(self, models: Models) -> Iterator[np.ndarray]:
        """Samples and decodes.

        Args:
          models: By role; a moving average replaces the model that it belongs to.

        Yields:
          uint8 `[F, H, W, 3]` of each record, to the right of its trajectory with an adapter.
        """
        records: Batch[np.ndarray] = self._records
        export = self._export
        # One key per record, and not per step: samples of different steps can be compared.
        keys = jnp.stack([jax.random.key(index) for index in range(len(records.latents))])
        latents = generate_latents(
            _latest(models, export.generator),
            _latest(models, export.adapter),
            self._conditions(),
            make_schedule(export.sampling),
            keys,
            shape=records.latents.shape[1:],
        )
        vae = components.load_component(export.base, "vae", self._dtype)
        for video, trajectory in zip(latents, records.trajectory, strict=True):
            frames = _decode(vae, video)
            if export.adapter:
                # Without the mask of known frames, if there is one.
                maps = jnp.asarray(trajectory[..., : video.shape[-1]])
                frames = np.concatenate([_decode(vae, maps), frames], axis=2)
            yield frames

    def _conditions(self) -> Conditions:
        records, sampling = self._records, self._export.sampling
        text = jnp.asarray(records.text)
        negative = jnp.broadcast_to(self._negative_text, text.shape)
        return Conditions(
            text=text,
            negative_text=negative if sampling.is_guided else None,
            image_latents=jnp.asarray(records.latents[:, :1]),
            trajectory_latents=jnp.asarray(records.trajectory) if self._export.adapter else None,
            guidance_scale=jnp.float32(sampling.guidance_scale),
        )


class ReconstructionSampler:
    """Encodes and decodes videos with the trained autoencoder.

    A frozen "vae" encodes them, where there is one: its latents are those that a tiny autoencoder
    will decode.

    Args:
      export: Names the autoencoder.
      videos: uint8 `[F, H, W, 3]` each.
    """

    def __init__(self, export: ExportSpec, videos: Sequence[np.ndarray]):
        self._export, self._videos = export, videos

    def __call__(self, models: Models) -> Iterator[np.ndarray]:
        """Yields each video to the left of its reconstruction, uint8 `[F, H, 2 W, 3]`."""
        vae = _latest(models, self._export.model)
        for video in self._videos:
            pixels = jnp.asarray(video)[None]
            reconstruction = to_uint8(np.asarray(reconstruct(vae, pixels, models.get("vae", vae))))
            yield np.concatenate([video, reconstruction[0]], axis=2)


@program
def reconstruct(
    vae: VAE | TinyVAE, video: jax.Array, encoder: VAE | TinyVAE | None = None
) -> jax.Array:
    """Encodes and decodes a video.

    Args:
      vae: Autoencoder.
      video: uint8 `[B, F, H, W, 3]`.
      encoder: Another autoencoder of the same latents, which encodes the video.

    Returns:
      float32 in [-1, 1].
    """
    return vae.decode((encoder or vae).encode(to_float(video)))


def _latest(models: Models, role: str | None) -> Any:
    return models.get(f"{role}_ema", models.get(role)) if role else None


def _decode(vae: VAE, latents_ThwC: jax.Array) -> np.ndarray:
    return to_uint8(np.asarray(_decode_batch(vae, latents_ThwC[None])[0]))


@program
def _decode_batch(vae: VAE, latents: jax.Array) -> jax.Array:
    return vae.decode(latents)
