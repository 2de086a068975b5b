"""MagicBench, the benchmark of MagicMotion: videos of at least 49 frames."""

from __future__ import annotations

from flashmotion_jax.evaluation.benchmarks.magicdata import MagicDataLayout


class MagicBench(MagicDataLayout):
    """The first 49 frames of each video."""

    num_frames = 49
    generated_frames = 121
