"""Sizes of a run's models where there are no weights yet: those that are published."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    ADAPTERS,
    AutoencoderConfig,
    DiTConfig,
    Grid,
    SamplingConfig,
    SlowAdapterConfig,
    TextEncoderConfig,
    TrainConfig,
    VAEConfig,
    adapter_name,
    to_dict,
    with_overrides,
)
from flashmotion_jax.data.latent_cache import open_cache
from flashmotion_jax.training.inputs import abstract_latents, abstract_pixels, dit_config
from flashmotion_jax.training.stage import Stage

#: Fields of a stage that name a checkpoint.
ROLES = ("autoencoder", "slow_generator", "fast_generator", "slow_adapter", "start_from")


class VideoSize(NamedTuple):
    """Of the videos that a plan is for; 121 frames of 704 x 1280 are the paper's."""

    num_frames: int = 121
    height: int = 704
    width: int = 1280

    def override(self, **given: int | None) -> VideoSize:
        """The same size with each field replaced that is given and is not None."""
        return self._replace(**{name: value for name, value in given.items() if value is not None})


@contextmanager
def published(changed: Mapping[str, Any] | None = None) -> Generator[Path]:
    """A checkpoint folder with the sizes of Wan2.2-TI2V-5B and no weights, for as long as needed.

    Args:
      changed: kind of a component to sizes other than the published ones.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        components.write_sampling(folder, SamplingConfig())
        sizes: dict[str, Any] = {
            "dit": DiTConfig(),
            "vae": VAEConfig(),
            "text_encoder": TextEncoderConfig(),
            **{f"adapters/{name}": kind.config() for name, kind in ADAPTERS.items()},
            **(changed or {}),
        }
        for kind, config in sizes.items():
            component = components.Component(
                kind=kind,
                dtype="bfloat16",
                config=config,
                dit_config=sizes["dit"] if kind.startswith("adapters/") else None,
                num_bytes=0,
                key=kind,
            )
            (folder / kind).mkdir(parents=True)
            (folder / kind / "config.json").write_text(json.dumps(to_dict(component)))
        yield folder


@contextmanager
def with_sizes(
    run: TrainConfig, changed: Mapping[str, Any] | None = None
) -> Generator[tuple[TrainConfig, list[str]]]:
    """The run with published sizes for those of its checkpoints that are not there.

    Args:
      run: to plan.
      changed: see `published`.

    Yields:
      The run to build, and the checkpoints that were replaced.
    """
    named = {role: getattr(run.stage, role, "") for role in ROLES}
    missing = {
        role: path for role, path in named.items() if path and not Path(path, "model.json").exists()
    }
    if isinstance(run.stage, SlowAdapterConfig):
        kind = f"adapters/{adapter_name(run.stage.adapter)}"
        changed = {**(changed or {}), kind: run.stage.adapter}
    with published(changed) as folder:
        assignments = [f"stage.{role}={folder}" for role in missing]
        yield with_overrides(run, assignments), sorted(set(missing.values()))


class PlannedInputs(NamedTuple):
    """What a run reads, by its shapes alone; see `training.inputs`.

    Attributes:
      batch: with shapes, dtypes and places in place of arrays.
      texts: shapes of the texts that stand for no prompt and for what guidance avoids.
    """

    batch: Any
    texts: dict[str, tuple[int, int]]

    def abstract_batch(self) -> Any:
        """See `training.inputs.Shapes`."""
        return self.batch

    def constants(self) -> dict[str, jax.Array]:
        """See `training.inputs.Shapes`."""
        return {name: jnp.zeros(shape) for name, shape in self.texts.items()}


def planned_inputs(run: TrainConfig, stage: Stage, size: VideoSize | None) -> PlannedInputs:
    """The shapes that a run reads, on the mesh that is set.

    Args:
      run: to plan.
      stage: built from it.
      size: of its videos; by default that of its cache or, if there is none yet, the paper's.

    Raises:
      UserError: the models do not take videos of that size, or the cache is damaged.
    """
    if isinstance(run.stage, AutoencoderConfig):
        return PlannedInputs(abstract_pixels(run, run.stage), {})
    dit = dit_config(stage)
    texts = dict.fromkeys(("empty_text", "negative_text"), (dit.text_len, dit.text_dim))
    if size is None and Path(run.cache, "cache.json").exists():
        shape = open_cache(run.cache).latent_shape
    else:
        vae = components.read_component(run.stage.slow_generator, "vae").config
        size = size or VideoSize()
        Grid.of(dit, vae).check(*size)
        shape = vae.latent_shape(*size)
    return PlannedInputs(abstract_latents(run, dit, shape), texts)
