"""Measures the whole pipeline on a video, with models loaded and programs compiled."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import DECODERS
from flashmotion_jax.inference.pipeline import Pipeline
from flashmotion_jax.perf.measure import fill
from flashmotion_jax.perf.sampling import SampleSpec, abstract_component
from flashmotion_jax.perf.sizes import VideoSize


@dataclass(frozen=True)
class PipelineRun:
    """What generating videos one after the other took.

    Attributes:
      seconds: Of each video but the first, from the request to the video in host memory.
      stages: Median seconds of each stage of the pipeline.
      memory: Peak bytes on a device in this process so far; 0 where the device does not count.
    """

    seconds: list[float]
    stages: dict[str, float]
    memory: int

    @property
    def median(self) -> float:
        """Seconds per video."""
        return statistics.median(self.seconds)


def measure_pipeline(spec: SampleSpec, repeat: int) -> PipelineRun:
    """Generates videos from a prompt of full length and an image and maps of noise.

    Args:
      spec: Models and size of the video.
      repeat: Videos to time, after one that compiles the programs.

    Raises:
      jax.errors.JaxRuntimeError: The device has too little memory, or something else failed.
    """
    pipeline, size = _pipeline(spec), spec.size or VideoSize()
    pixels = np.random.default_rng(0).integers(0, 256, (*size.shape, 3), np.uint8)
    trajectory = pixels if spec.adapter else None
    request = pipeline.request(
        pixels[0],
        "noise",
        trajectory,
        height=size.height,
        width=size.width,
        num_frames=size.num_frames,
        decoder=spec.decoder,
    )
    seconds, stages = [], []
    for _ in range(1 + repeat):
        start = time.perf_counter()
        pipeline.run(request)
        seconds.append(time.perf_counter() - start)
        stages.append({one.stage: one.load + one.run for one in pipeline.stage_times})
    medians = {name: statistics.median(run[name] for run in stages[1:]) for name in stages[0]}
    counted = jax.devices()[0].memory_stats() or {}
    return PipelineRun(seconds[1:], medians, counted.get("peak_bytes_in_use", 0))


def _pipeline(spec: SampleSpec) -> Pipeline:
    def load(kind: str) -> Any:
        return fill(abstract_component(spec, kind))

    kinds = {name: name for name in ("dit", "vae", "text_encoder", DECODERS[spec.decoder])}
    if spec.adapter:
        kinds["adapter"] = f"adapters/{spec.adapter}"
    return Pipeline(
        {name: functools.partial(load, kind) for name, kind in kinds.items()},
        tokenizer=_tokenize,
        dit_config=components.read_component(spec.folder, "dit").config,
        vae_config=components.read_component(spec.folder, "vae").config,
        sampling=components.read_sampling(spec.folder),
        takes_known_frames=spec.takes_known_frames,
    )


def _tokenize(prompts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    ones = np.ones((len(prompts), length), np.int32)
    return ones, ones
