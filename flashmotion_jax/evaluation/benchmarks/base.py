"""What a benchmark is: its videos, the masks of their objects, and how its folder is read.

Only the masks of each first frame are decoded here. A video that cannot be scored becomes a
`Problem` with its reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from flashmotion_jax.media.labels import is_lossy, read_labels
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.palette import palette_color


@dataclass(frozen=True)
class Item:
    """A video of a benchmark.

    Attributes:
      id: Name of the generated video, `<id>.mp4` or a folder `<id>`.
      caption: Empty if the benchmark has none.
      masks: Label images of the compared frames. An object has the same label in all of them, and
        0 is the background. MoveBench has at most that of frame 0.
      labels: Labels of the objects on frame 0. Objects that enter later do not count.
      video: Ground truth, a file or a folder of images; None if it is missing.
      image: First frame, if it is a file of its own.
      trajectory: A trajectory.json with the requested boxes, if there is one.
      tracks: Point tracks and their visibility, if the benchmark has them.
      length: Number of compared frames; None means one for each of `masks`.
      later_masks: Label images of the frames after the compared ones.
      kind: "single" or "multi" for MoveBench, otherwise empty.
    """

    id: str
    caption: str
    masks: tuple[Path, ...]
    labels: tuple[int, ...]
    video: Path | None = None
    image: Path | None = None
    trajectory: Path | None = None
    tracks: tuple[Path, Path] | None = None
    length: int | None = None
    kind: str = ""
    later_masks: tuple[Path, ...] = ()

    @property
    def group(self) -> str:
        """The paper's group by number of objects, "1" to "5" or "6+"; for MoveBench its kind."""
        return self.kind or (str(len(self.labels)) if len(self.labels) < 6 else "6+")

    @property
    def num_frames(self) -> int:
        """Number of frames that are compared."""
        return len(self.masks) if self.length is None else self.length


@dataclass(frozen=True)
class Problem:
    """A video that cannot be scored, and the reason."""

    id: str
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """The usable videos of a benchmark, in its order, and the unusable ones."""

    items: tuple[Item, ...]
    problems: tuple[Problem, ...]


class Layout(ABC):
    """How the folder of one benchmark is read.

    Attributes:
      num_frames: Number of frames that the paper compares; None for all frames of a video.
      generated_frames: Number of frames that the paper generates, of which the first are compared;
        None for as many as are compared.
      segmenter: What finds the objects of generated videos if neither masks nor SAM 2 are given;
        None if one of these is required.
    """

    num_frames: ClassVar[int | None] = None
    generated_frames: ClassVar[int | None] = None
    segmenter: ClassVar[Literal["colors", "none"] | None] = None

    @abstractmethod
    def read(self, root: Path) -> list[Item | Problem]:
        """Lists the videos in the order of the benchmark.

        Args:
          root: Folder of the benchmark.

        Raises:
          UserError: The folder has another layout.
        """

    def benchmark(self, root: Path) -> Benchmark:
        """Reads the folder, and separates usable videos from problems."""
        found = self.read(root)
        items = tuple(one for one in found if isinstance(one, Item))
        return Benchmark(items, tuple(one for one in found if isinstance(one, Problem)))

    def count(self, available: int) -> int | None:
        """Frames to compare of a video that has `available`; None if these are too few."""
        wanted = self.num_frames or available
        return wanted if available >= wanted else None

    def item(
        self, root: Path, id: str, caption: str, masks: list[Path], video: Path
    ) -> Item | Problem:
        """Makes the item of a video whose objects have a label image on each frame."""
        if not masks:
            return Problem(id, "no masks")
        count = self.count(len(masks))
        if count is None:
            return Problem(id, f"{len(masks)} masks; at least {self.num_frames} are required")
        try:
            labels = object_labels(masks[0])
        except UserError as error:
            return Problem(id, str(error))
        if not labels:
            return Problem(id, "no object on frame 0")
        image, trajectory = (
            root / "first_frames" / f"{id}.png",
            root / "trajectories" / f"{id}.json",
        )
        return Item(
            id,
            caption,
            tuple(masks[:count]),
            labels,
            video=video if video.exists() else None,
            image=image if image.is_file() else None,
            trajectory=trajectory if trajectory.is_file() else None,
            later_masks=tuple(masks[count:]),
        )


def object_labels(path: Path) -> tuple[int, ...]:
    """Labels of the objects in a label image, without the background's 0.

    Raises:
      UserError: The image cannot be read, or its compression changes pixels.
    """
    if is_lossy(path):
        raise UserError(f"{path} is compressed with losses, which mixes labels: save masks as PNG")
    return tuple(np.setdiff1d(read_labels(path)[0], [0]).tolist())


def object_masks(path: Path, labels: tuple[int, ...]) -> np.ndarray:
    """Masks of the objects in a label image.

    Args:
      path: The image.
      labels: K labels.

    Returns:
      bool `[K, H, W]`.

    Raises:
      UserError: The image cannot be read.
    """
    return read_labels(path)[0] == np.array(labels, np.int32)[:, None, None]


def label_colors(labels: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """RGB colors of labels: a packed color stands for itself, a number gets one of the palette."""
    # Labels above 255 are packed colors; smaller ones are indices, as DAVIS has them.
    return [
        (label >> 16, label >> 8 & 255, label & 255) if label > 255 else palette_color(k)
        for k, label in enumerate(labels, start=1)
    ]
