"""DAVIS 2017 as published: the sequences of its validation set.

    ROOT/ImageSets/2017/val.txt
    ROOT/Annotations/480p/<id>/, ROOT/JPEGImages/480p/<id>/
    ROOT/captions.json

The captions, {id: caption}, are optional: DAVIS has none of its own.
"""

from __future__ import annotations

from pathlib import Path

from flashmotion_jax.evaluation.benchmarks.base import Item, Layout, Problem
from flashmotion_jax.media.frames import image_files
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import read_json_object

#: Frames that the paper compares.
_NUM_FRAMES = 49


class Davis(Layout):
    """The first 49 frames of each sequence; shorter ones count with 4 n + 1 frames."""

    num_frames = _NUM_FRAMES
    generated_frames = 121

    def read(self, root: Path) -> list[Item | Problem]:
        """Lists the videos; see `Layout.read`."""
        listing = root / "ImageSets" / "2017" / "val.txt"
        if not listing.is_file():
            raise UserError(
                f"no {listing}: expected the folder DAVIS, with Annotations/ and ImageSets/"
            )
        masks, videos = root / "Annotations" / "480p", root / "JPEGImages" / "480p"
        captions = _read_captions(root / "captions.json")
        return [
            self.item(root, id, captions.get(id, ""), image_files(masks / id), videos / id)
            for id in listing.read_text(encoding="utf-8").split()
        ]

    def count(self, available: int) -> int | None:
        """Number of frames to compare; see `Layout.count`."""
        # The causal VAE takes 4 n + 1 frames, so a shorter sequence is cut to such a number.
        return (min(_NUM_FRAMES, available) - 1) // 4 * 4 + 1


def _read_captions(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    captions = read_json_object(path, 'expected {"camel": "a camel walks", ...}')
    return {id: str(caption) for id, caption in captions.items()}
