"""The choices that the numbers of an evaluation depend on, printed with every result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flashmotion_jax.config import Resize
from flashmotion_jax.evaluation.metrics.base import Average
from flashmotion_jax.runtime.errors import UserError

SegmenterName = Literal["masks", "colors", "sam2", "none"]
Overlaps = Literal["keep", "smallest"]


@dataclass(frozen=True)
class Protocol:
    """What the papers state, or leave open.

    Attributes:
      bench: The benchmark, which decides how many frames are compared.
      segmenter: What finds the objects of generated videos: "masks" of another program, the exact
        "colors" of Sprites, "sam2", or "none", which leaves out all metrics that need masks.
      method_frames: Number of frames of a method that makes fewer than are compared: they are
        compared with as many uniformly spaced frames of the benchmark. None for all frames.
      count_frame_0: Whether frame 0 counts. It is given to the method and raises IoU.
      average: "video" averages over videos, each the mean over its visible objects and frames;
        "pooled" averages over all objects and frames.
      overlaps: "smallest" gives a pixel of overlapping masks to the smallest object, as MagicData's
        masks are painted; "keep" leaves it to all of them.
      fid: Preset of the features of FID; None if it is not measured.
      fvd: Preset of the features of FVD; None if it is not measured.
      sam2: The SAM 2 model, if it is the segmenter.
      resize: How the benchmark's pictures reached the size of the generated videos: "crop" or
        "stretch". What a crop cut off is not compared.
    """

    bench: str
    segmenter: SegmenterName = "masks"
    method_frames: int | None = None
    count_frame_0: bool = False
    average: Average = "video"
    overlaps: Overlaps = "smallest"
    fid: str | None = None
    fvd: str | None = None
    sam2: str | None = None
    resize: Resize = "stretch"

    def __post_init__(self):
        if self.method_frames is not None and self.method_frames < 2:
            raise UserError(f"method_frames={self.method_frames}; expected at least 2, or None")
        if self.segmenter == "colors" and self.bench != "sprites":
            raise UserError(
                f"segmenter='colors' for bench={self.bench!r}: only the colors of sprites are "
                "known; give masks"
            )

    def described(self) -> list[tuple[str, str]]:
        """The choices in words, as names and values for people."""
        given = "all" if self.method_frames is None else str(self.method_frames)
        masks = {
            "masks": "masks of another program",
            "colors": "the colors of Sprites",
            "sam2": f"SAM 2, {self.sam2}",
            "none": "nothing; metrics that need masks are left out",
        }
        averages = {
            "video": "over videos, each the mean over its visible objects and frames",
            "pooled": "over all objects and frames of all videos together",
        }
        fits = {"crop": "cropped like the videos", "stretch": "stretched to the videos' size"}
        overlaps = {"smallest": "the smallest object", "keep": "all of them"}
        return [
            ("benchmark", self.bench),
            ("objects are found by", masks[self.segmenter]),
            ("frames of the method", given),
            ("frame 0, which the method is given", "counts" if self.count_frame_0 else "left out"),
            ("averages", averages[self.average]),
            ("pixels of overlapping masks belong to", overlaps[self.overlaps]),
            ("features of FID", self.fid or "not measured"),
            ("features of FVD", self.fvd or "not measured"),
            ("pictures of the benchmark are", fits[self.resize]),
        ]

    @property
    def first_frame(self) -> int:
        """The first frame that counts."""
        return 0 if self.count_frame_0 else 1
