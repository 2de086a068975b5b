"""Sizes of videos, and of models without weights: by default those of Wan2.2-TI2V-5B."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import (
    ADAPTERS,
    LORAS,
    DiTConfig,
    FastAdapterConfig,
    Grid,
    PixelStageConfig,
    SamplingConfig,
    SlowAdapterConfig,
    TextEncoderConfig,
    TinyVAEConfig,
    TrainConfig,
    VAEConfig,
    adapter_name,
    to_dict,
    with_overrides,
)
from flashmotion_jax.data.latent_cache import open_cache
from flashmotion_jax.runtime.limits import check_video_size
from flashmotion_jax.training.inputs import abstract_latents, abstract_pixels, dit_config
from flashmotion_jax.training.stage import Stage

#: Fields of a stage that name a checkpoint.
ROLES = ("autoencoder", "slow_generator", "fast_generator", "slow_adapter", "start_from")


@dataclass(frozen=True)
class VideoSize:
    """Frames and pixels of a video; by default those of the paper."""

    num_frames: int = 121
    height: int = 704
    width: int = 1280

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(num_frames, height, width)`."""
        return self.num_frames, self.height, self.width

    def override(self, **given: int | None) -> VideoSize:
        """The same size with each field replaced that is given and is not None.

        Raises:
          UserError: The video would be larger than the active limits allow.
        """
        size = replace(self, **{name: value for name, value in given.items() if value is not None})
        check_video_size(*size.shape, "the video")
        return size


@contextmanager
def published_checkpoint(changed: Mapping[str, Any] | None = None) -> Generator[Path]:
    """A temporary checkpoint folder with the sizes of Wan2.2-TI2V-5B and without weights.

    Args:
      changed: Configurations that differ from the published ones, by kind of component.

    Yields:
      The folder.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        components.write_sampling(folder, SamplingConfig())
        sizes: dict[str, Any] = {
            "dit": DiTConfig(),
            "vae": VAEConfig(),
            "tiny_vae": TinyVAEConfig(),
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
def with_published_sizes(
    run: TrainConfig, changed: Mapping[str, Any] | None = None
) -> Generator[tuple[TrainConfig, list[str]]]:
    """A training run whose missing checkpoints are replaced by `published_checkpoint`.

    Args:
      run: Training run.
      changed: See `published_checkpoint`.

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
    changed = {**(changed or {}), **_planned_lora(run)}
    with published_checkpoint(changed) as folder:
        assignments = [f"stage.{role}={folder}" for role in missing]
        yield with_overrides(run, assignments), sorted(set(missing.values()))


def _planned_lora(run: TrainConfig) -> dict[str, Any]:
    """The LoRA that a run trains further, as an earlier one exports it."""
    stage = run.stage
    if not isinstance(stage, SlowAdapterConfig | FastAdapterConfig) or not stage.lora.rank:
        return {}
    if isinstance(stage, SlowAdapterConfig):
        name, values = adapter_name(stage.adapter), to_dict(stage.adapter)
    else:
        name, values = stage.adapter, {}
    make_config: Any = LORAS[f"{name}_lora"].config
    # The digest of a component without weights is its kind.
    config = make_config(**values, rank=stage.lora.rank, factor=stage.lora.factor, base="dit")
    return {f"adapters/{name}_lora": config}


@dataclass(frozen=True)
class PlannedInputs:
    """What a run reads, as shapes only; see `training.inputs`.

    Attributes:
      batch: Batch with `jax.ShapeDtypeStruct`s in place of arrays.
      texts: Shapes of the encoded empty prompt and of the encoded negative prompt.
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
    """The shapes that a run reads, on the current mesh.

    Args:
      run: Training run.
      stage: Stage built from it.
      size: Size of its videos; by default that of its cache or, without a cache, the paper's.

    Raises:
      UserError: The models do not take videos of that size, or the cache is damaged.
    """
    if isinstance(run.stage, PixelStageConfig):
        return PlannedInputs(abstract_pixels(run), {})
    dit = dit_config(stage)
    texts = dict.fromkeys(("empty_text", "negative_text"), (dit.text_len, dit.text_dim))
    if size is None and Path(run.cache, "cache.json").exists():
        shape = open_cache(run.cache).latent_shape
    else:
        vae = components.read_component(run.stage.slow_generator, "vae").config
        size = size or VideoSize()
        Grid.of(dit, vae).check(*size.shape)
        shape = vae.latent_shape(*size.shape)
    has_mask = stage.known_frames is not None
    return PlannedInputs(abstract_latents(run, dit, shape, has_mask), texts)
