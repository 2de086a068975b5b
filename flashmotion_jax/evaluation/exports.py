"""`flashmotion evaluate export`: the inputs of other methods, made from a benchmark.

    tora           <id>/image.png, prompt.txt, trajectory_01.txt, ...   one path an object
    draganything   <id>/<id>.jpg, <id>/demo.json, mask_01.png, ...
    sg-i2v         <id>/img.png, traj.npy
    levitor        <id>/image.png, mask_01.png, ..., tracks.json
    magicmotion    <id>/image.png, prompt.txt, trajectory.mp4; inference.csv for all

Every folder has an `about.json`: size, frames, and what the format cannot express.

Source: the input readers of the methods: Tora `sat/sample_video.py` and its `trajs/*.txt`;
DragAnything `demo.py`; SG-I2V `inference.py`; MagicMotion `inference.py`. LeviTor has only a page
in a browser, so its file is a format of ours, with what to click and type there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from flashmotion_jax.evaluation.benchmarks.base import Item, Problem
from flashmotion_jax.evaluation.conditions import first_frame, trajectory_of
from flashmotion_jax.media.geometry import fit_frames
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.atomic import replacing, replacing_folder
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.lock import sole_writer
from flashmotion_jax.runtime.progress import Progress
from flashmotion_jax.trajectory.render import render
from flashmotion_jax.trajectory.schema import Trajectory

Method = Literal["tora", "draganything", "sg-i2v", "levitor", "magicmotion"]

#: Side in pixels of the square on which Tora draws paths, whatever the size of the video.
_TORA_CANVAS = 256


@dataclass(frozen=True)
class _Inputs:
    """What the files of every method are made of: the image, and boxes of the method's length."""

    item: Item
    image: np.ndarray
    trajectory: Trajectory
    boxes_KF4: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """Width and height of the image."""
        return np.array([self.image.shape[1], self.image.shape[0]])

    @property
    def centers(self) -> np.ndarray:
        """Centers of the boxes, `[K, F, 2]`, in pixels of the image."""
        return (self.boxes_KF4[..., :2] + self.boxes_KF4[..., 2:]) / 2 * self.size


@dataclass(frozen=True)
class _Format:
    """The inputs of a method.

    Attributes:
      frames: Number of frames that it generates.
      size: Height and width that its model works at, for about.json.
      write: Writes the inputs of a video into a folder.
      lost: What the format cannot express.
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
    num_frames: int | None = None,
    progress: Progress | None = None,
) -> tuple[int, list[Problem]]:
    """Writes a folder for each video.

    Args:
      items: The videos of the benchmark.
      method: Name of the method.
      out: The folder; existing folders of videos are replaced.
      num_frames: Number of frames of the method; None for the published number.
      progress: Called with "export", the number of finished videos and of all.

    Returns:
      The number of exported videos, and those that could not be exported.

    Raises:
      UserError: The method is unknown, or has fewer than two frames.
    """
    if method not in get_args(Method):
        raise UserError(f"method={method!r}; expected one of {', '.join(get_args(Method))}")
    how = FORMATS[method]
    frames = how.frames if num_frames is None else num_frames
    if frames < 2:
        raise UserError(f"num_frames={frames}; expected at least 2")
    problems: list[Problem] = []
    written: list[Item] = []
    with sole_writer(out):
        for done, item in enumerate(items, start=1):
            try:
                _write(item, method, how, frames, out)
                written.append(item)
            except UserError as error:
                problems.append(Problem(item.id, str(error)))
            if progress is not None:
                progress("export", done, len(items))
        if method == "magicmotion" and written:
            _write_list(out, written)
    return len(written), problems


def _write(item: Item, method: Method, how: _Format, frames: int, out: Path) -> None:
    image, trajectory = first_frame(item), trajectory_of(item)
    canvas = trajectory.canvas
    if image.shape[:2] != (canvas.height, canvas.width):
        # Boxes are fractions of the masks' canvas, which may be another crop of the video.
        image = fit_frames(image, canvas.height, canvas.width)
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
    points = inputs.centers / inputs.size * _TORA_CANVAS
    for number, path in enumerate(points.round().astype(int).clip(0, _TORA_CANVAS - 1), start=1):
        lines = "".join(f"{x},{y}\n" for x, y in path.tolist())
        (folder / f"trajectory_{number:02d}.txt").write_text(lines, encoding="utf-8")


def _write_draganything(inputs: _Inputs, folder: Path) -> None:
    _write_image(folder / f"{Path(inputs.item.id).name}.jpg", inputs.image)
    demo: dict[str, Any] = {}
    limits = inputs.size - 1
    for k, mask in enumerate(_masks(inputs)):
        # The demo uses .jpg, but reads any name. Its threshold is exactly 255, which PNG keeps.
        name = f"mask_{k + 1:02d}.png"
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
        path = inputs.centers[k].round().astype(int).clip(0, limits)
        name_of = inputs.trajectory.objects[k].name
        demo[str(k)] = {"comment": name_of, "mask_name": name, "trajectory": path.tolist()}
    _write_json(folder / "demo.json", demo)


def _write_sg_i2v(inputs: _Inputs, folder: Path) -> None:
    _write_image(folder / "img.png", inputs.image)
    corners = inputs.boxes_KF4[:, 0].reshape(-1, 2, 2) * inputs.size
    rows = np.concatenate([corners, inputs.centers], axis=1)
    with (folder / "traj.npy").open("wb") as file:
        np.save(file, rows.round().astype(np.int64))


def _write_levitor(inputs: _Inputs, folder: Path) -> None:
    _write_image(folder / "image.png", inputs.image)
    sides = (inputs.boxes_KF4[..., 2:] - inputs.boxes_KF4[..., :2]) * inputs.size
    # An object at twice the distance looks half as large.
    depth_KF = 1 / np.sqrt(np.prod(sides, axis=-1).clip(min=1))
    depth_KF = depth_KF / depth_KF.max()
    objects = []
    for k, mask in enumerate(_masks(inputs)):
        name = f"mask_{k + 1:02d}.png"
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name)
        points = inputs.centers[k].round().astype(int).clip(0, inputs.size - 1)
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
    """Each object on frame 0: its mask, or its box if it has none."""
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
    """The list that MagicMotion's `inference.py` reads, with paths relative to its folder."""
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
