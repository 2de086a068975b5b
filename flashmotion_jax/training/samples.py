"""Sample videos of a run: the same first frames, texts, trajectories and noise each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import TrainConfig
from flashmotion_jax.data.batches import Batch, first_records
from flashmotion_jax.data.latent_cache import LatentCache
from flashmotion_jax.diffusion.generate import Conditions, generate_latents, make_schedule
from flashmotion_jax.media.images import to_uint8
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.runtime.jit import program
from flashmotion_jax.training.stage import Result
from flashmotion_jax.training.turn import Models


class LatentSampler:
    """Makes videos of the first records of the cache with the models as they are.

    Args:
      run: how many, and of which trajectories.
      result: sampler, and which models make the videos.
      cache: gives what the videos are made from.
      text_len: tokens of the texts.

    Raises:
      UserError: the cache holds fewer records, or the checkpoint has no VAE.
    """

    def __init__(self, run: TrainConfig, result: Result, cache: LatentCache, text_len: int):
        self._result = result
        self._dtype = run.dtype
        self._negative_text = cache.negative_text
        self._records = first_records(cache, run.num_samples, run.map_kind, text_len)
        components.read_component(result.base, "vae")

    def __call__(self, models: Models) -> Iterator[np.ndarray]:
        """Samples and decodes.

        Args:
          models: by role; a moving average is taken where there is one.

        Yields:
          uint8 `[F, H, W, 3]` of each record, its trajectory to the left if there is an adapter.
        """
        records: Batch[np.ndarray] = self._records
        result = self._result

        def model(role: str | None) -> Any:
            return models.get(f"{role}_ema", models.get(role)) if role else None

        keys = jnp.stack([jax.random.key(index) for index in range(len(records.latents))])
        latents = generate_latents(
            model(result.generator),
            model(result.adapter),
            self._conditions(),
            make_schedule(result.sampling),
            keys,
            shape=records.latents.shape[1:],
        )
        vae = components.load_component(result.base, "vae", self._dtype)
        for video, trajectory in zip(latents, records.trajectory, strict=True):
            frames = _decode(vae, video)
            if result.adapter:
                frames = np.concatenate([_decode(vae, jnp.asarray(trajectory)), frames], axis=2)
            yield frames

    def _conditions(self) -> Conditions:
        records, sampling = self._records, self._result.sampling
        text = jnp.asarray(records.text)
        negative = jnp.broadcast_to(self._negative_text, text.shape)
        return Conditions(
            text=text,
            negative_text=negative if sampling.is_guided else None,
            image_latents=jnp.asarray(records.latents[:, :1]),
            trajectory_latents=jnp.asarray(records.trajectory) if self._result.adapter else None,
            guidance_scale=jnp.float32(sampling.guidance_scale),
        )


def _decode(vae: VAE, latents_ThwC: jax.Array) -> np.ndarray:
    return to_uint8(np.asarray(_decode_one(vae, latents_ThwC[None])[0]))


@program
def _decode_one(vae: VAE, latents: jax.Array) -> jax.Array:
    return vae.decode(latents)
