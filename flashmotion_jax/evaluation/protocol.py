"""Every choice that a figure depends on, printed with the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flashmotion_jax.evaluation.benchmarks import Bench
from flashmotion_jax.runtime.errors import UserError

Average = Literal["video", "pooled"]
Segments = Literal["masks", "colors", "sam2", "none"]
Overlaps = Literal["keep", "smallest"]


@dataclass(frozen=True)
class Protocol:
    """What the papers leave open, or state.

    Attributes:
      bench: the benchmark, which says how many frames are compared.
      segmenter: "masks" that another program made, the exact "colors" of Sprites, "sam2", or
        "none": no figure that needs masks.
      method_frames: N of a method that makes fewer frames than are compared: its videos are held
        against N uniform frames of the truth. None: all frames.
      count_frame_0: frame 0 is given to the method, and raises an IoU.
      average: of videos, each the mean over its visible objects and frames, or of all these pooled.
      overlaps: of found masks: "smallest" gives a pixel to the smallest object alone, as
        MagicData's pictures of masks are painted; "keep" leaves it to all.
      fid: preset of FID's features; None: not measured.
      fvd: preset of FVD's features; likewise.
      sam2: of the segmenter "sam2", the model.
    """

    bench: Bench
    segmenter: Segments = "masks"
    method_frames: int | None = None
    count_frame_0: bool = False
    average: Average = "video"
    overlaps: Overlaps = "smallest"
    fid: str | None = None
    fvd: str | None = None
    sam2: str | None = None

    def __post_init__(self):
        if self.method_frames is not None and self.method_frames < 2:
            raise UserError(f"method_frames={self.method_frames}; expected at least 2, or None")
        if self.segmenter == "colors" and self.bench != "sprites":
            raise UserError(
                f"segmenter='colors' for bench={self.bench!r}: only the colors of sprites are "
                "known; give masks"
            )
