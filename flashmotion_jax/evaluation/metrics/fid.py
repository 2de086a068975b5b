"""FID: the Fréchet distance of Inception features of frames."""

from __future__ import annotations

from flashmotion_jax.evaluation.metrics.base import Distance, FeatureOptions, Features


class FID(Distance):
    """Fréchet Inception distance; the frames of all videos are pooled."""

    name = "fid"
    heading = "FID"
    about = "Fréchet distance of Inception features, all frames of all videos"

    @classmethod
    def features(cls, options: FeatureOptions) -> Features | None:
        """float32 `[F, 2048]` by the preset of this metric; None without a preset."""
        preset = options.presets.get(cls.name)
        if preset is None or options.weights is None:
            return None
        # jax is imported only if a network computes.
        from flashmotion_jax.evaluation.features.extractor import Extractor

        return Extractor(preset, options.weights, options.batch_size)
