"""FlashBench, the benchmark of FlashMotion: videos of at least 121 frames."""

from __future__ import annotations

from flashmotion_jax.evaluation.benchmarks.magicdata import MagicDataLayout


class FlashBench(MagicDataLayout):
    """The first 121 frames of each video."""

    num_frames = 121
