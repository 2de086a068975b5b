"""FVD: the Fréchet distance of I3D logits of videos."""

from __future__ import annotations

from flashmotion_jax.evaluation.metrics.fid import FID


class FVD(FID):
    """Fréchet video distance, with one row of I3D logits for each video."""

    name = "fvd"
    heading = "FVD"
    about = "Fréchet distance of I3D logits, one row per video"
