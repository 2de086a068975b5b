"""MoveBench: videos with point tracks, in the layout of Wan-Move.

    ROOT/en/single_track.txt, multi_track.txt         a line for each video: name, caption
    ROOT/en/first_frame/<id>.jpg
    ROOT/en/track/single/<id>_tracks.npy              float [1, F, N, 2], pixels of the first frame
    ROOT/en/track/single/<id>_visibility.npy          bool [1, F, N]
    ROOT/en/video/<id>.mp4                            ground truth, for FID and FVD
    ROOT/en/first_frame_mask/[single/]<id>.png        masks of frame 0, if someone has added them

A video may be in both lists with different tracks, so ids are `single/<id>` and `multi/<id>`, and
generated videos lie in folders of these names. ROOT may also be the folder of a language.

Source: Wan-Move `generate.py` for lists and files. Its code does not say where videos and masks
lie, so several places are tried.
"""

from __future__ import annotations

from pathlib import Path

from flashmotion_jax.evaluation.benchmarks.base import Item, Layout, Problem, object_labels
from flashmotion_jax.media.frames import find_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats import read_wan_move

KINDS = ("single", "multi")
_IMAGES = (".jpg", ".png", ".jpeg", ".webp")
_VIDEOS = ("video", "videos", "gt")
_MASKS = ("first_frame_mask", "first_frame_masks", "mask")


class MoveBench(Layout):
    """All frames of each video; the videos with a single track come first."""

    segmenter = "none"

    def read(self, root: Path) -> list[Item | Problem]:
        """Lists the videos; see `Layout.read`."""
        folder = next((one for one in (root, root / "en") if _has_list(one)), None)
        if folder is None:
            raise UserError(
                f"no single_track.txt or multi_track.txt in {root} or {root / 'en'}: expected the "
                "folder of MoveBench, or of one of its languages"
            )
        found: list[Item | Problem] = []
        for kind in KINDS:
            path = folder / f"{kind}_track.txt"
            if not path.is_file():
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                if not line.strip() or line.startswith("#"):
                    continue
                name, comma, caption = line.partition(",")
                if not comma:
                    raise UserError(f"{path}: {line!r}; expected a video, a comma and a caption")
                found.append(_item(folder, kind, Path(name.strip()).stem, caption.strip()))
        return found


def _has_list(folder: Path) -> bool:
    return any((folder / f"{kind}_track.txt").is_file() for kind in KINDS)


def _item(folder: Path, kind: str, name: str, caption: str) -> Item | Problem:
    id = f"{kind}/{name}"
    tracks = folder / "track" / kind / f"{name}_tracks.npy"
    visibility = tracks.with_name(f"{name}_visibility.npy")
    image = _image(folder / "first_frame", name)
    if image is None:
        return Problem(id, f"no first_frame/{name}.jpg")
    try:
        length = len(read_wan_move(tracks, visibility).points_FN2)
        mask = _mask(folder, kind, name)
        labels = () if mask is None else object_labels(mask)
    except UserError as error:
        return Problem(id, str(error))
    video = next((v for one in _VIDEOS if (v := find_video(folder / one, name)).exists()), None)
    return Item(
        id,
        caption,
        masks=() if mask is None else (mask,),
        labels=labels,
        video=video,
        image=image,
        tracks=(tracks, visibility),
        length=length,
        kind=kind,
    )


def _image(folder: Path, name: str) -> Path | None:
    return next((path for s in _IMAGES if (path := folder / f"{name}{s}").is_file()), None)


def _mask(folder: Path, kind: str, name: str) -> Path | None:
    places = (one for masks in _MASKS for one in (folder / masks / kind, folder / masks))
    return next((path for place in places if (path := _image(place, name))), None)
