"""A whole video by the pipeline, models loaded and compiled: what a user waits for."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from flashmotion_jax.checkpoints import components
from flashmotion_jax.inference.pipeline import Pipeline
from flashmotion_jax.perf.measure import fill
from flashmotion_jax.perf.sampling import SampleSizes, abstract_component
from flashmotion_jax.perf.sizes import VideoSize


class WholeRun(NamedTuple):
    """What videos took, one after the other.

    Attributes:
      seconds: of each but the first, from the request in memory to the video in memory.
      stages: of these, the median of each stage.
      memory: most bytes that this process held on a device until now; 0 where none are counted.
    """

    seconds: list[float]
    stages: dict[str, float]
    memory: int

    @property
    def median(self) -> float:
        """Seconds of a video."""
        return statistics.median(self.seconds)


def measure_pipeline(sizes: SampleSizes, repeat: int) -> WholeRun:
    """Makes videos from a prompt of full length, a picture and maps of noise.

    Args:
      sizes: of models and video.
      repeat: videos that count, after one that does not.

    Raises:
      jax.errors.JaxRuntimeError: the device has no memory for it, or something else failed.
    """
    pipeline, size = _pipeline(sizes), sizes.size or VideoSize()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    trajectory = pixels if sizes.adapter else None
    request = pipeline.request(
        pixels[0],
        "noise",
        trajectory,
        height=size.height,
        width=size.width,
        num_frames=size.num_frames,
    )
    seconds, stages = [], []
    for _ in range(1 + repeat):
        start = time.perf_counter()
        pipeline.run(request)
        seconds.append(time.perf_counter() - start)
        stages.append({one.stage: one.load + one.run for one in pipeline.stage_times})
    medians = {name: statistics.median(run[name] for run in stages[1:]) for name in stages[0]}
    counted = jax.devices()[0].memory_stats() or {}
    return WholeRun(seconds[1:], medians, counted.get("peak_bytes_in_use", 0))


def _pipeline(sizes: SampleSizes) -> Pipeline:
    def load(kind: str) -> Any:
        return fill(abstract_component(sizes, kind))

    kinds = {name: name for name in ("dit", "vae", "text_encoder")}
    if sizes.adapter:
        kinds["adapter"] = f"adapters/{sizes.adapter}"
    return Pipeline(
        {name: functools.partial(load, kind) for name, kind in kinds.items()},
        tokenizer=_tokenize,
        dit_config=components.read_component(sizes.folder, "dit").config,
        vae_config=components.read_component(sizes.folder, "vae").config,
        sampling=components.read_sampling(sizes.folder),
    )


def _tokenize(prompts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    ones = np.ones((len(prompts), length), np.int32)
    return ones, ones
