"""What a run reads: batches, constants, and the inputs of its sample videos.

Most stages read a latent cache; an autoencoder, which makes the latents, reads pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from flashmotion_jax.config import (
    DiTConfig,
    KnownFrames,
    PixelStageConfig,
    SamplingConfig,
    TrainConfig,
)
from flashmotion_jax.data.batches import Batch, Batches, latent_batches
from flashmotion_jax.data.examples import DrawnSprites, open_examples
from flashmotion_jax.data.latent_cache import open_cache
from flashmotion_jax.data.magicdata import MagicData
from flashmotion_jax.data.pixel_batches import PixelBatch, pixel_batches
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.sharding import BATCH
from flashmotion_jax.training.samples import LatentSampler, ReconstructionSampler
from flashmotion_jax.training.stage import ExportSpec, Stage
from flashmotion_jax.training.train_step import Models

Sampler = Callable[[Models], Iterator[np.ndarray]]
"""Makes videos, uint8 `[F, H, W, 3]`, with the models in their current state."""


class AbstractInputs(Protocol):
    """Shapes of what a run reads: enough to compile it."""

    def abstract_batch(self) -> Any:
        """Returns a batch with shapes, dtypes and shardings in place of arrays."""
        ...

    def constants(self) -> dict[str, jax.Array]:
        """Returns what loss functions need besides models and batch, by role."""
        ...


class Inputs(AbstractInputs, Protocol):
    """What a run reads."""

    def batches(self, mesh: Mesh) -> Batches[Any]:
        """Returns the batches, starting at step 0."""
        ...

    def sampling(self, sampling: SamplingConfig) -> SamplingConfig:
        """Returns how a model that was trained on these inputs is sampled."""
        ...

    def sampler(self, export: ExportSpec) -> Sampler:
        """Returns what makes the run's sample videos."""
        ...


def open_inputs(run: TrainConfig, stage: Stage) -> Inputs:
    """Opens what a stage reads.

    Raises:
      UserError: The data is missing or damaged.
    """
    if stage.data == "pixels":
        return PixelInputs(run)
    return LatentInputs(run, dit_config(stage), stage.known_frames)


def dit_config(stage: Stage) -> DiTConfig:
    """Configuration of the stage's generators, which all have the same."""
    components = [*stage.frozen.values(), *(init.source for init in stage.trained.values())]
    return next(c for c in components if c and c.kind == "dit").read().config


class LatentInputs:
    """A latent cache, and the embeddings of the empty and the negative prompt.

    Args:
      run: Which cache and maps.
      dit: Configuration of the generators.
      known_frames: Of an adapter that knows the trajectory on some frames only.
    """

    def __init__(self, run: TrainConfig, dit: DiTConfig, known_frames: KnownFrames | None = None):
        self._run, self._dit, self._known_frames = run, dit, known_frames
        self._cache = open_cache(run.cache)

    def batches(self, mesh: Mesh) -> Batches[Batch[jax.Array]]:
        """See `Inputs`."""
        run = self._run
        return latent_batches(
            self._cache,
            map_kind=run.map_kind,
            text_len=self._dit.text_len,
            batch_size=run.batch_size,
            known_frames=self._known_frames,
            seed=run.seed,
            mesh=mesh,
            num_threads=run.num_threads,
            num_workers=run.num_workers,
        )

    def abstract_batch(self) -> Batch[Any]:
        """See `Inputs`."""
        shape = self._cache.latent_shape
        return abstract_latents(self._run, self._dit, shape, self._known_frames is not None)

    def constants(self) -> dict[str, jax.Array]:
        """See `Inputs`."""
        names = ("empty_text", "negative_text")
        return {name: jnp.asarray(getattr(self._cache, name)) for name in names}

    def sampling(self, sampling: SamplingConfig) -> SamplingConfig:
        """See `Inputs`. Images are to reach the model as the videos of the cache did.

        Points are a kind of maps of their own; other adapters keep the one of their generator.
        """
        settings = self._cache.settings
        if self._run.map_kind == "points" and settings.point_sigma is not None:
            sampling = dataclasses.replace(
                sampling, map_kind="points", point_sigma=settings.point_sigma
            )
        if settings.resize == "crop":
            return dataclasses.replace(sampling, resize="crop")
        # Stretched videos have one size, whatever their aspect ratio was.
        size = {"height": settings.height, "width": settings.width}
        return dataclasses.replace(sampling, resize="stretch", size_from="model", **size)

    def sampler(self, export: ExportSpec) -> Sampler:
        """See `Inputs`."""
        known = self._known_frames
        return LatentSampler(self._run, export, self._cache, self._dit.text_len, known)


class PixelInputs:
    """Videos and their trajectory maps."""

    def __init__(self, run: TrainConfig):
        self._run = run
        self._videos = open_videos(_pixel_stage(run))

    def batches(self, mesh: Mesh) -> Batches[PixelBatch]:
        """See `Inputs`."""
        run = self._run
        return pixel_batches(
            self._videos,
            batch_size=run.batch_size,
            seed=run.seed,
            mesh=mesh,
            num_threads=run.num_threads,
            num_workers=run.num_workers,
        )

    def abstract_batch(self) -> PixelBatch[Any]:
        """See `Inputs`."""
        return abstract_pixels(self._run)

    def constants(self) -> dict[str, jax.Array]:
        """See `Inputs`."""
        return {}

    def sampling(self, sampling: SamplingConfig) -> SamplingConfig:
        """See `Inputs`."""
        return sampling

    def sampler(self, export: ExportSpec) -> Sampler:
        """See `Inputs`.

        Raises:
          UserError: There are fewer videos than samples.
        """
        count = self._run.num_samples
        if count > len(self._videos):
            raise UserError(
                f"num_samples={count}; expected at most {len(self._videos)}, the number of videos"
            )
        return ReconstructionSampler(export, [self._videos[i].video for i in range(count)])


def open_videos(stage: PixelStageConfig) -> MagicData | DrawnSprites:
    """Opens the videos that an autoencoder is trained on.

    Raises:
      UserError: See `open_examples`.
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


def abstract_latents(
    run: TrainConfig, dit: DiTConfig, shape: tuple[int, ...], has_mask: bool = False
) -> Batch[Any]:
    """Abstract batch of latents `(T, h, w, C)` on the current mesh.

    Args:
      run: Of the batch's size.
      dit: Of the text's size.
      shape: Of the latents of a video.
      has_mask: Whether the trajectory has a channel more, for the mask of known frames.
    """
    latents = _abstract(run.batch_size, shape, jnp.float32)
    trajectory = _abstract(run.batch_size, (*shape[:-1], shape[-1] + has_mask), jnp.float32)
    text = _abstract(run.batch_size, (dit.text_len, dit.text_dim), jnp.float32)
    return Batch(latents, trajectory, text)


def abstract_pixels(run: TrainConfig) -> PixelBatch[Any]:
    """Abstract batch of videos and maps on the current mesh."""
    stage = _pixel_stage(run)
    shape = (stage.num_frames, stage.height, stage.width, 3)
    return PixelBatch(*[_abstract(run.batch_size, shape, jnp.uint8)] * 3)


def _pixel_stage(run: TrainConfig) -> PixelStageConfig:
    if not isinstance(run.stage, PixelStageConfig):
        raise TypeError(f"{type(run.stage).__name__} reads no pixels; expected PixelStageConfig")
    return run.stage


def _abstract(batch_size: int, shape: tuple[int, ...], dtype: Any) -> Any:
    sharding = NamedSharding(jax.sharding.get_mesh(), BATCH)
    return jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=sharding)
