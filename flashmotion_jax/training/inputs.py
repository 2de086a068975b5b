"""What a run reads: batches, constants, and what its sample videos are made of.

Stages read a latent cache; an autoencoder, which makes the latents, reads pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from flashmotion_jax.config import AutoencoderConfig, DiTConfig, TrainConfig
from flashmotion_jax.data.batches import Batch, Batches, latent_batches
from flashmotion_jax.data.examples import DrawnSprites, open_examples
from flashmotion_jax.data.latent_cache import open_cache
from flashmotion_jax.data.magicdata import MagicData
from flashmotion_jax.data.pixel_batches import PixelBatch, pixel_batches
from flashmotion_jax.media.images import to_uint8
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import BATCH
from flashmotion_jax.training import autoencoder
from flashmotion_jax.training.samples import LatentSampler
from flashmotion_jax.training.stage import Result, Stage
from flashmotion_jax.training.turn import Models

Sampler = Callable[[Models], Iterator[np.ndarray]]
"""The models as they are, to videos uint8 `[F, H, W, 3]`."""


class Shapes(Protocol):
    """Of what a run reads: enough to compile it."""

    def abstract_batch(self) -> Any:
        """A batch with shapes, dtypes and places in place of arrays."""
        ...

    def constants(self) -> dict[str, jax.Array]:
        """What losses need beside models and batch, by role."""
        ...


class Inputs(Shapes, Protocol):
    """What a run reads."""

    def batches(self, mesh: Mesh) -> Batches[Any]:
        """The batches, from the beginning."""
        ...

    def sampler(self, result: Result) -> Sampler:
        """Makes the run's sample videos."""
        ...


def open_inputs(run: TrainConfig, stage: Stage) -> Inputs:
    """What a stage reads.

    Raises:
      UserError: the data is missing or damaged.
    """
    if isinstance(run.stage, AutoencoderConfig):
        return PixelInputs(run, run.stage)
    return LatentInputs(run, dit_config(stage))


def dit_config(stage: Stage) -> DiTConfig:
    """Sizes of the stage's generators, which are the same for all."""
    sources = [*stage.frozen.values(), *(player.source for player in stage.players.values())]
    return next(source for source in sources if source and source.kind == "dit").read().config


class LatentInputs:
    """A latent cache, with the texts that stand for no prompt and for what guidance avoids."""

    def __init__(self, run: TrainConfig, dit: DiTConfig):
        self._run, self._dit = run, dit
        self._cache = open_cache(run.cache)

    def batches(self, mesh: Mesh) -> Batches[Batch[jax.Array]]:
        """See `Inputs`."""
        run = self._run
        return latent_batches(
            self._cache,
            map_kind=run.map_kind,
            text_len=self._dit.text_len,
            batch_size=run.batch_size,
            seed=run.seed,
            mesh=mesh,
            num_threads=run.num_threads,
        )

    def abstract_batch(self) -> Batch[Any]:
        """See `Inputs`."""
        return abstract_latents(self._run, self._dit, self._cache.latent_shape)

    def constants(self) -> dict[str, jax.Array]:
        """See `Inputs`."""
        names = ("empty_text", "negative_text")
        return {name: jnp.asarray(getattr(self._cache, name)) for name in names}

    def sampler(self, result: Result) -> Sampler:
        """See `Inputs`."""
        return LatentSampler(self._run, result, self._cache, self._dit.text_len)


class PixelInputs:
    """Videos and their maps; sample videos are reconstructions."""

    def __init__(self, run: TrainConfig, stage: AutoencoderConfig):
        self._run, self._stage = run, stage
        self._source = open_videos(stage)

    def batches(self, mesh: Mesh) -> Batches[PixelBatch]:
        """See `Inputs`."""
        run = self._run
        return pixel_batches(
            self._source,
            batch_size=run.batch_size,
            seed=run.seed,
            mesh=mesh,
            num_threads=run.num_threads,
        )

    def abstract_batch(self) -> PixelBatch[Any]:
        """See `Inputs`."""
        return abstract_pixels(self._run, self._stage)

    def constants(self) -> dict[str, jax.Array]:
        """See `Inputs`."""
        return {}

    def sampler(self, result: Result) -> Sampler:
        """The first videos, each to the left of what the autoencoder makes of it."""
        count = self._run.num_samples
        if count > len(self._source):
            raise UserError(
                f"num_samples={count}; expected at most {len(self._source)}, the videos there are"
            )
        videos = [self._source[index].video for index in range(count)]

        def sample(models: Models) -> Iterator[np.ndarray]:
            vae = models.get(f"{result.player}_ema", models[result.player])
            for video in videos:
                made = to_uint8(np.asarray(autoencoder.reconstruct(vae, jnp.asarray(video)[None])))
                yield np.concatenate([video, made[0]], axis=2)

        return sample


def open_videos(stage: AutoencoderConfig) -> MagicData | DrawnSprites:
    """What an autoencoder is trained on.

    Raises:
      UserError: see `open_examples`.
    """
    return open_examples(
        stage.data,
        data_root=stage.data_root,
        csv=stage.csv,
        num_clips=stage.num_clips,
        num_frames=stage.num_frames,
        height=stage.height,
        width=stage.width,
        resize=stage.resize,
    )


def abstract_latents(run: TrainConfig, dit: DiTConfig, shape: tuple[int, ...]) -> Batch[Any]:
    """A batch of latents `(T, h, w, C)` with shapes, dtypes and places in place of arrays."""
    latents = _abstract(run.batch_size, shape, jnp.float32)
    text = _abstract(run.batch_size, (dit.text_len, dit.text_dim), jnp.float32)
    return Batch(latents, latents, text)


def abstract_pixels(run: TrainConfig, stage: AutoencoderConfig) -> PixelBatch[Any]:
    """A batch of videos likewise."""
    shape = (stage.num_frames, stage.height, stage.width, 3)
    return PixelBatch(*[_abstract(run.batch_size, shape, jnp.uint8)] * 3)


def _abstract(batch_size: int, shape: tuple[int, ...], dtype: Any) -> Any:
    sharding = NamedSharding(jax.sharding.get_mesh(), BATCH)
    return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=sharding)
