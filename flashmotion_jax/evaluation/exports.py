"""`flashmotion evaluate export`: what other methods take, made from a benchmark.

    tora           <id>/image.png, prompt.txt, trajectory_01.txt, ...   one path an object
    draganything   <id>/<id>.jpg, <id>/demo.json, mask_01.png, ...
    sg-i2v         <id>/img.png, traj.npy
    levitor        <id>/image.png, mask_01.png, ..., tracks.json
    magicmotion    <id>/image.png, prompt.txt, trajectory.mp4; inference.csv for all

Every folder has `about.json`: size, frames, and what the format cannot say.

Source: the input readers of the methods: Tora `sat/sample_video.py` and its `trajs/*.txt`;
DragAnything `demo.py`; SG-I2V `inference.py`; MagicMotion `inference.py`. LeviTor has a page in a
browser alone: its file is one of ours, with what is to be clicked and typed there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from flashmotion_jax.evaluation.asked import first_frame, trajectory_of
from flashmotion_jax.evaluation.benchmarks import Fault, Item
from flashmotion_jax.media.images import cover_crop
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.atomic import replacing, replacing_folder
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.render import render
from flashmotion_jax.trajectory.schema import Trajectory

Method = Literal["tora", "draganything", "sg-i2v", "levitor", "magicmotion"]

#: Tora draws paths on a square of this many pixels, whatever the video's size.
_TORA_CANVAS = 256


class _Inputs(NamedTuple):
    """What every method's files are made of, the image and the motion at the method's length."""

    item: Item
    image: np.ndarray
    trajectory: Trajectory
    boxes_KF4: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """Width and height of the image."""
        return np.array([self.image.shape[1], self.image.shape[0]])

    @property
    def centres(self) -> np.ndarray:
        """In pixels of the image."""
        return (self.boxes_KF4[..., :2] + self.boxes_KF4[..., 2:]) / 2 * self.size


class _Format(NamedTuple):
    """How a method is fed.

    Attributes:
      frames: that it makes.
      size: height and width that its model works at, for the note.
      write: into a folder.
      lost: what the format cannot say.
    """

    frames: int
    size: tuple[int, int]
    write: Callable[[_Inputs, Path], None]
    lost: str


def export_benchmark(
    items: Sequence[Item],
    method: Method,
    out: Path,
    *,
    frames: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[int, list[Fault]]:
    """Writes a folder for each video.

    Args:
      items: of the benchmark.
      method: which.
      out: the folder; a video's folder that is there is made anew.
      frames: of the method; None: those that it makes as published.
      progress: called with how many are done, and of how many.

    Returns:
      How many were written, and the videos that could not be.

    Raises:
      UserError: the method is unknown, or has fewer than two frames.
    """
    if method not in get_args(Method):
        raise UserError(f"method={method!r}; expected one of {', '.join(get_args(Method))}")
    how = FORMATS[method]
    frames = how.frames if frames is None else frames
    if frames < 2:
        raise UserError(f"{frames} frames; expected at least 2")
    faults: list[Fault] = []
    written: list[Item] = []
    for done, item in enumerate(items, start=1):
        try:
            _write(item, method, how, frames, out)
            written.append(item)
        except (OSError, ValueError) as error:
            faults.append(Fault(item.id, str(error)))
        if progress is not None:
            progress(done, len(items))
    if method == "magicmotion" and written:
        _write_list(out, written)
    return len(written), faults


def _write(item: Item, method: Method, how: _Format, frames: int, out: Path) -> None:
    image, trajectory = first_frame(item), trajectory_of(item)
    canvas = trajectory.canvas
    if image.shape[:2] != (canvas.height, canvas.width):
        # Boxes are fractions of the masks' picture, which may be another cut of the video.
        image = cover_crop(image, canvas.height, canvas.width)
    inputs = _Inputs(item, image, trajectory, trajectory.boxes(frames))
    about = {
        "id": item.id,
        "method": method,
        "prompt": item.caption,
        "frames": frames,
        "image": {"height": image.shape[0], "width": image.shape[1]},
        "model_works_at": {"height": how.size[0], "width": how.size[1]},
        "objects": [one.name for one in trajectory.objects],
        "not_in_this_format": how.lost,
        "score_with": f"--method-frames {frames}",
    }
    with replacing_folder(out / item.id) as folder:
        folder.mkdir(parents=True)
        how.write(inputs, folder)
        _write_json(folder / "about.json", about)


def _write_tora(inputs: _Inputs, folder: Path) -> None:
    _write_image(folder / "image.png", inputs.image)
    (folder / "prompt.txt").write_text(inputs.item.caption + "\n", encoding="utf-8")
    points = inputs.centres / inputs.size * _TORA_CANVAS
    for number, way in enumerate(points.round().astype(int).clip(0, _TORA_CANVAS - 1), start=1):
        lines = "".join(f"{x},{y}\n" for x, y in way.tolist())
        (folder / f"trajectory_{number:02d}.txt").write_text(lines, encoding="utf-8")


def _write_draganything(inputs: _Inputs, folder: Path) -> None:
    _write_image(folder / f"{Path(inputs.item.id).name}.jpg", inputs.image)
    demo: dict[str, Any] = {}
    limits = inputs.size - 1
    for k, mask in enumerate(_masks(inputs)):
        # The demo has .jpg, but reads any name; its threshold is a full 255, which PNG keeps.
        name = f"mask_{k + 1:02d}.png"
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
        way = inputs.centres[k].round().astype(int).clip(0, limits)
        name_of = inputs.trajectory.objects[k].name
        demo[str(k)] = {"comment": name_of, "mask_name": name, "trajectory": way.tolist()}
    _write_json(folder / "demo.json", demo)


def _write_sg_i2v(inputs: _Inputs, folder: Path) -> None:
    _write_image(folder / "img.png", inputs.image)
    corners = inputs.boxes_KF4[:, 0].reshape(-1, 2, 2) * inputs.size
    rows = np.concatenate([corners, inputs.centres], axis=1)
    with (folder / "traj.npy").open("wb") as file:
        np.save(file, rows.round().astype(np.int64))


def _write_levitor(inputs: _Inputs, folder: Path) -> None:
    _write_image(folder / "image.png", inputs.image)
    sides = (inputs.boxes_KF4[..., 2:] - inputs.boxes_KF4[..., :2]) * inputs.size
    # What is twice as far looks half as large.
    depth_KF = 1 / np.sqrt(np.prod(sides, axis=-1).clip(min=1))
    depth_KF = depth_KF / depth_KF.max()
    objects = []
    for k, mask in enumerate(_masks(inputs)):
        name = f"mask_{k + 1:02d}.png"
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
        points = inputs.centres[k].round().astype(int).clip(0, inputs.size - 1)
        depth = depth_KF[k].round(4).tolist()
        objects.append({"mask": name, "points": points.tolist(), "depth": depth})
    _write_json(folder / "tracks.json", {"objects": objects})


def _write_magicmotion(inputs: _Inputs, folder: Path) -> None:
    _write_image(folder / "image.png", inputs.image)
    (folder / "prompt.txt").write_text(inputs.item.caption + "\n", encoding="utf-8")
    canvas, frames = inputs.trajectory.canvas, inputs.boxes_KF4.shape[1]
    maps = render(
        inputs.trajectory,
        canvas.height,
        canvas.width,
        "box",
        num_frames=frames,
        compat="magicmotion",
    )
    write_video(folder / "trajectory.mp4", maps, 8, lossless=True)


def _masks(inputs: _Inputs) -> Iterable[np.ndarray]:
    """Each object on frame 0: its mask, or its box where there is none."""
    height, width = inputs.image.shape[:2]
    for one, boxes_F4 in zip(inputs.trajectory.objects, inputs.boxes_KF4, strict=True):
        if one.mask is not None:
            yield one.mask.to_array()
            continue
        mask = np.zeros((height, width), bool)
        sides = np.tile([width, height], 2)
        x0, y0, x1, y1 = (boxes_F4[0].clip(0, 1) * sides).round().astype(int)
        mask[y0:y1, x0:x1] = True
        yield mask


def _write_list(out: Path, items: Sequence[Item]) -> None:
    """What MagicMotion's `inference.py` reads, with paths from the folder it stands in."""
    columns = ("validation_prompt", "validation_images", "validation_trajectory_maps")
    rows: list[list[Any]] = [[*columns, "output_path", "controlnet_weights", "seed"]]
    for item in items:
        paths = (f"{item.id}/image.png", f"{item.id}/trajectory.mp4")
        rows.append([item.caption, *paths, f"generated/{item.id}.mp4", 1.0, 0])
    path = out / "inference.csv"
    with replacing(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def _write_image(path: Path, pixels: np.ndarray) -> None:
    options: Mapping[str, Any] = {"quality": 95} if path.suffix == ".jpg" else {}
    Image.fromarray(pixels).save(path, **options)


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


FORMATS: dict[Method, _Format] = {
    "tora": _Format(49, (480, 720), _write_tora, "the sizes of boxes, and masks"),
    "draganything": _Format(14, (320, 576), _write_draganything, "the prompt, sizes of boxes"),
    "sg-i2v": _Format(14, (576, 1024), _write_sg_i2v, "the prompt, changes of size, masks"),
    "levitor": _Format(16, (288, 512), _write_levitor, "the prompt; depth is guessed from sizes"),
    "magicmotion": _Format(49, (480, 720), _write_magicmotion, "nothing"),
}
