"""Batches of pixels for training an autoencoder, straight from a MagicData folder."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple

import numpy as np

from flashmotion_jax.data.batches import Array, Batches
from flashmotion_jax.data.latent_cache import sha256
from flashmotion_jax.data.magicdata import Example, MagicData


class PixelBatch(NamedTuple, Generic[Array]):
    """B videos with their maps, uint8 `[B, F, H, W, 3]` each.

    Attributes:
      video: what is seen.
      masks: maps of the objects' masks.
      boxes: maps of their boxes.
    """

    video: Array
    masks: Array
    boxes: Array


def pixel_batches(source: MagicData, **options: Any) -> Batches[PixelBatch]:
    """Batches of a MagicData folder.

    Args:
      source: what to read.
      **options: see `data.batches.Batches`.
    """
    return Batches(source, pixel_example, fingerprint=sha256(source.csv), **options)


def pixel_example(example: Example) -> PixelBatch[np.ndarray]:
    """A video as a batch without its first dimension."""
    return PixelBatch(example.video, example.masks, example.boxes)
