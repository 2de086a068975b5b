"""What is measured, by name: how it is headed, in which unit it is shown, which way is better."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """A measured quantity.

    Attributes:
      heading: of a table's column, with the unit it is shown in.
      scale: from the stored value to that unit.
      better: "higher", "lower", or "" where neither is by itself.
      about: what it is.
      digits: behind the point.
    """

    heading: str
    scale: float
    better: str
    about: str
    digits: int = 2


FIGURES: dict[str, Figure] = {
    "mask_iou": Figure(
        "mask IoU (%)", 100, "higher", "of the masks found and the benchmark's, per object"
    ),
    "box_iou": Figure("box IoU (%)", 100, "higher", "of the boxes around these masks"),
    "centroid_error": Figure(
        "centroid (%)", 100, "lower", "between the masks' centres, of the frame's diagonal"
    ),
    "requested_box_iou": Figure(
        "requested box IoU (%)",
        100,
        "higher",
        "of the box around the mask found and the box asked for, inside the frame",
    ),
    "requested_centroid_error": Figure(
        "requested centre (%)",
        100,
        "lower",
        "between the centres of these two boxes, of the frame's diagonal",
    ),
    "endpoint_error": Figure(
        "end-point error (px)", 1, "lower", "between tracks, in the benchmark's pixels"
    ),
    "flicker": Figure(
        "flicker (levels)",
        1,
        "lower",
        "how far a pixel leaves both the frame before and the one after to the same side",
        3,
    ),
    "background_change": Figure(
        "background change (levels)",
        1,
        "lower",
        "from one frame to the next where no object is; the camera's motion is in it",
        3,
    ),
    "true_flicker": Figure("flicker of the truth", 1, "", "the same of the benchmark's video", 3),
    "true_background_change": Figure(
        "background change of the truth", 1, "", "the same of the benchmark's video", 3
    ),
    "fid": Figure(
        "FID", 1, "lower", "Frechet distance of Inception's features, all frames of all videos"
    ),
    "fvd": Figure("FVD", 1, "lower", "Frechet distance of I3D's logits, a row a video"),
}

#: Those that belong to a set of videos and not to one.
DISTANCES = ("fid", "fvd")
