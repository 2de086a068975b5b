"""Video distance: a Fréchet distance that needs no downloaded weights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from flashmotion_jax.evaluation.metrics.base import Distance, FeatureOptions, Features


class VideoDistance(Distance):
    """Fréchet distance of features of the random network, one row per video.

    It ranks distortions of the same videos, and cannot be compared with FVD.
    """

    name = "video_distance"
    heading = "video distance"
    about = "Fréchet distance of the random network's features of videos"
    benchmarks = ("sprites",)

    @classmethod
    def features(cls, options: FeatureOptions) -> Features | None:
        """float32 `[1, 64]`."""
        from flashmotion_jax.evaluation.features.random_network import RandomNetwork

        network = RandomNetwork(batch_size=1)

        def compute(frames: Iterable[np.ndarray]) -> np.ndarray:
            return network.video_features(np.stack(list(frames))[None])

        return compute
