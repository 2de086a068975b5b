"""What a metric is, and what it is given.

A metric is one class in one file of this folder and one row of the table in `__init__`. Scoring,
results, tables, plots and comparisons take everything about it from the class.
"""

from __future__ import annotations

import functools
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

Average = Literal["video", "pooled"]

Features = Callable[[Iterable[np.ndarray]], np.ndarray]
"""Frames uint8 `[H, W, 3]` of one video -> its features, float32 `[N, D]`."""


@dataclass(frozen=True)
class Frame:
    """A frame of a generated video and what it is compared with; None where there is nothing.

    All of it shows the same part of the picture: see `Protocol.resize`.

    Attributes:
      pixels: uint8 `[H, W, 3]`.
      true_pixels: uint8, the same frame of the benchmark's video.
      masks: bool `[K, h, w]`, the objects that the segmenter found.
      true_masks: bool, those of the benchmark, of the size of `masks`.
      requested_boxes: float64 `[K, 4]`, (x0, y0, x1, y1) as fractions of the frame, cut at its
        edges; NaN for a box outside.
      requested_points: float64 `[K, 2]`, (x, y) of the centers of the whole boxes, as fractions of
        the frame; NaN for an object without one, or one that is hidden.
      points: float64 `[N, 2]`, tracks of the generated video in the benchmark's pixels.
      true_points: float64 `[N, 2]`, those of the benchmark; NaN where a point is hidden.
      background: bool `[H, W]`, pixels that the generated video should reproduce exactly.
    """

    pixels: np.ndarray
    true_pixels: np.ndarray | None = None
    masks: np.ndarray | None = None
    true_masks: np.ndarray | None = None
    requested_boxes: np.ndarray | None = None
    requested_points: np.ndarray | None = None
    points: np.ndarray | None = None
    true_points: np.ndarray | None = None
    background: np.ndarray | None = None

    @property
    def reference(self) -> np.ndarray | None:
        """`true_pixels` if it has the size of `pixels`, so that pixels can be compared."""
        same = self.true_pixels is not None and self.true_pixels.shape == self.pixels.shape
        return self.true_pixels if same else None

    @property
    def objects(self) -> np.ndarray | None:
        """Where any object is or should be, bool `[h, w]`; None if nothing was segmented."""
        return None if self.masks is None else _union(self.masks, self.true_masks)

    @property
    def true_objects(self) -> np.ndarray | None:
        """Where any object of the benchmark is, bool `[h, w]`; None if it is unknown."""
        return _union(self.true_masks)


class Metric:
    """A measured quantity.

    Attributes:
      name: Key in results.
      heading: Heading of a table column, with the displayed unit.
      about: What it is, as part of a sentence below a table.
      scale: Factor from the stored value to the displayed unit.
      better: "higher" or "lower"; empty if neither is better by itself.
      digits: Displayed digits after the decimal point.
      of_truth: Whether it is a property of the benchmark's own video, shown for comparison.
      benchmarks: The benchmarks that it is measured on; None for all.
    """

    name: ClassVar[str]
    heading: ClassVar[str]
    about: ClassVar[str]
    scale: ClassVar[float] = 1
    better: ClassVar[Literal["higher", "lower", ""]] = ""
    digits: ClassVar[int] = 2
    of_truth: ClassVar[bool] = False
    benchmarks: ClassVar[tuple[str, ...] | None] = None


class VideoMetric(Metric):
    """A metric of each video, measured frame by frame by one instance per video.

    Attributes:
      needs: Attributes of `Frame` without which a frame cannot be measured.
      average: How videos are averaged if not as the protocol says.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    average: ClassVar[Average | None] = None

    def __init__(self):
        self._columns: list[np.ndarray | None] = []

    def measure(self, *args: Any, **kwargs: Any) -> np.ndarray | float:
        """Measures a frame; a subclass takes the attributes that it needs, in their order.

        Returns:
          float64, for instance `[K]` for the objects; NaN where there is nothing to measure.
        """
        raise NotImplementedError

    def add(self, frame: Frame) -> None:
        """Takes the next frame of the video."""
        needed = [getattr(frame, name) for name in self.needs]
        missing = any(one is None for one in needed)
        self._columns.append(None if missing else np.asarray(self.measure(*needed), np.float64))

    def values(self) -> np.ndarray | None:
        """Measurements of all frames, float64 `[..., F]`; None if no frame could be measured.

        A frame that could not be measured is NaN: MoveBench has masks of frame 0 alone.
        """
        measured = next((column for column in self._columns if column is not None), None)
        if measured is None:
            return None
        nothing = np.full(measured.shape, np.nan)
        return np.stack([nothing if c is None else c for c in self._columns], axis=-1)

    @classmethod
    def total(cls, values: np.ndarray, first: int) -> tuple[float, float]:
        """Reduces a video to a numerator and a denominator, whose ratio is its value.

        Args:
          values: What `values` returned.
          first: First frame that counts: 1 leaves out the given frame.

        Returns:
          Here the sum over visible objects and frames, and their number, NaN for none.
        """
        counted = values[..., first:]
        return float(np.nansum(counted)), float(np.isfinite(counted).sum() or np.nan)

    @classmethod
    def statistic(cls, average: Average) -> Callable[[np.ndarray], float]:
        """Makes one number of the totals `[N, 2]` of N videos.

        Args:
          average: Of the protocol; a metric with an average of its own ignores it.
        """
        return _ratio_of_sums if (cls.average or average) == "pooled" else _mean_of_ratios


@dataclass(frozen=True)
class FeatureOptions:
    """What features for a Fréchet distance are computed with.

    Attributes:
      presets: "fid" and "fvd" -> name of a preset, or None if it is not measured.
      weights: File or folder of network weights.
      batch_size: Frames that go through Inception together.
    """

    presets: Mapping[str, str | None] = field(default_factory=dict)
    weights: str | Path | None = None
    batch_size: int = 16


class Distance(Metric):
    """A Fréchet distance between generated and real videos: a number of a set of videos."""

    better = "lower"

    @classmethod
    @abstractmethod
    def features(cls, options: FeatureOptions) -> Features | None:
        """Makes the function that computes the features of a video; None if it is not measured.

        Raises:
          UserError: The weights are missing or of another network.
        """


def check_masks(masks_KFHW: np.ndarray, true_KFHW: np.ndarray) -> None:
    """Checks that two arrays are masks of one shape.

    Raises:
      ValueError: They are not bool, or not of one shape `[K, F, H, W]`.
    """
    for masks in (masks_KFHW, true_KFHW):
        if masks.dtype != bool or masks.ndim != 4 or masks.shape != true_KFHW.shape:
            raise ValueError(
                f"masks of {masks_KFHW.dtype} {masks_KFHW.shape} and {true_KFHW.dtype} "
                f"{true_KFHW.shape}: expected bool of one shape [K, F, H, W]"
            )


def check_video(video_FHW3: np.ndarray, smallest: tuple[int, int, int]) -> None:
    """Checks the shape of a video.

    Raises:
      ValueError: It is not `[F, H, W, 3]`, or smaller than `smallest`, (F, H, W).
    """
    shape = video_FHW3.shape
    if len(shape) != 4 or shape[-1] != 3 or any(np.less(shape[:3], smallest)):
        raise ValueError(
            f"a video of shape {shape}: expected [F, H, W, 3] with F, H, W of at least {smallest}"
        )


def _mean_of_ratios(totals_N2: np.ndarray) -> float:
    return float((totals_N2[:, 0] / totals_N2[:, 1]).mean())


def _ratio_of_sums(totals_N2: np.ndarray) -> float:
    numerator, denominator = totals_N2.sum(axis=0)
    return float(numerator / denominator) if denominator else np.nan


def _union(*masks: np.ndarray | None) -> np.ndarray | None:
    known = [masks_KHW for masks_KHW in masks if masks_KHW is not None]
    return functools.reduce(np.logical_or, itertools.chain(*known)) if known else None
