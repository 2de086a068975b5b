"""MoveBench: clips with point tracks, in the layout of Wan-Move.

    ROOT/en/single_track.txt, multi_track.txt         a video and a caption a line, by a comma
    ROOT/en/first_frame/<id>.jpg
    ROOT/en/track/single/<id>_tracks.npy              float [1, F, N, 2], pixels of the first frame
    ROOT/en/track/single/<id>_visibility.npy          bool [1, F, N]
    ROOT/en/video/<id>.mp4                            the truth, for FID and FVD
    ROOT/en/first_frame_mask/[single/]<id>.png        objects on frame 0, where they were added

A clip may be in both lists, with other tracks: its ids are `single/<id>` and `multi/<id>`, and so
are the folders of generated videos. ROOT may be the folder of a language.

Source: Wan-Move `generate.py` for lists and files; where videos and masks lie is not in its code,
so that several places are tried.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flashmotion_jax.evaluation.benchmarks import Fault, Item
from flashmotion_jax.media.frames import find_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats import read_wan_move
from flashmotion_jax.trajectory.labels import read_labels

KINDS = ("single", "multi")
_IMAGES = (".jpg", ".png", ".jpeg", ".webp")
_VIDEOS = ("video", "videos", "gt")
_MASKS = ("first_frame_mask", "first_frame_masks", "mask")


def read_movebench(root: Path) -> list[Item | Fault]:
    """The clips of MoveBench, single ones first.

    Raises:
      UserError: the folder is not in the layout, or a line of a list has no caption.
    """
    folder = next((one for one in (root, root / "en") if _lists(one)), None)
    if folder is None:
        raise UserError(
            f"no single_track.txt or multi_track.txt in {root} or {root / 'en'}: expected the "
            "folder of MoveBench, or of one of its languages"
        )
    found: list[Item | Fault] = []
    for kind in KINDS:
        path = folder / f"{kind}_track.txt"
        if not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            name, comma, caption = line.partition(",")
            if not comma:
                raise UserError(f"{path}: {line!r}; expected a video and a caption by a comma")
            found.append(_clip(folder, kind, Path(name.strip()).stem, caption.strip()))
    return found


def _lists(folder: Path) -> list[Path]:
    return [path for kind in KINDS if (path := folder / f"{kind}_track.txt").is_file()]


def _clip(folder: Path, kind: str, name: str, caption: str) -> Item | Fault:
    id = f"{kind}/{name}"
    tracks = folder / "track" / kind / f"{name}_tracks.npy"
    visibility = tracks.with_name(f"{name}_visibility.npy")
    image = _first(folder / "first_frame", name)
    if image is None:
        return Fault(id, f"no first_frame/{name}.jpg")
    try:
        length = len(read_wan_move(tracks, visibility).points_FN2)
        mask = _mask(folder, kind, name)
        labels = () if mask is None else np.setdiff1d(read_labels(mask)[0], [0]).tolist()
    except ValueError as error:
        return Fault(id, str(error))
    video = next((v for one in _VIDEOS if (v := find_video(folder / one, name)).exists()), None)
    return Item(
        id,
        caption,
        masks=() if mask is None else (mask,),
        labels=tuple(labels),
        video=video,
        image=image,
        tracks=(tracks, visibility),
        length=length,
        kind=kind,
    )


def _first(folder: Path, name: str) -> Path | None:
    return next((path for s in _IMAGES if (path := folder / f"{name}{s}").is_file()), None)


def _mask(folder: Path, kind: str, name: str) -> Path | None:
    places = (one for masks in _MASKS for one in (folder / masks / kind, folder / masks))
    return next((path for place in places if (path := _first(place, name))), None)
