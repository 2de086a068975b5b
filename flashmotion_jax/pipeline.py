"""The whole inference flow: image, prompt and trajectory in, video out.

    image --VAE--> latent frame 0 -----------------------+
    prompt --UMT5--> text ------------------------------ DiT + adapter, a few steps --VAE--> video
    boxes, masks --render--> maps --VAE--> latents ------+

Each stage loads its model, runs one jitted program and, unless models are kept, lets the model go,
so that peak memory is the largest stage and not the sum.

Source: FlashMotion section 3; Wan2.2 `wan/textimage2video.py` for the image in latent frame 0.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax import sharding
from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.data import video as video_io
from flashmotion_jax.diffusion import samplers
from flashmotion_jax.models import checkpoint
from flashmotion_jax.models.adapters import Adapter
from flashmotion_jax.models.dit import DiT
from flashmotion_jax.models.vae import VAE
from flashmotion_jax.prompts import PromptEncoder
from flashmotion_jax.trajectory import MapSource, load_maps

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, the steps done and their number."""

Image = np.ndarray | str | Path


@dataclasses.dataclass(frozen=True)
class StageTime:
    """Seconds a stage took: to load its model, and to run (the first time, to compile as well)."""

    stage: str
    load: float
    run: float


@dataclasses.dataclass(frozen=True)
class Request:
    """A batch of videos with every choice made and checked, before any weight is loaded.

    Attributes:
      prompts: B texts.
      images: uint8 `[B, 1, H, W, 3]`, or None for text-to-video.
      maps: uint8 `[B, F, H, W, 3]` trajectory maps, or None without an adapter.
      seeds: one a video; a video does not depend on what else is in its batch.
      num_frames: F, 4 n + 1.
      size: height and width in pixels.
      adapter_scale: weight of the adapter's residuals.
      sampling: the sampler and its numbers.
    """

    prompts: tuple[str, ...]
    images: np.ndarray | None
    maps: np.ndarray | None
    seeds: tuple[int, ...]
    num_frames: int
    size: tuple[int, int]
    adapter_scale: float
    sampling: SamplingConfig
