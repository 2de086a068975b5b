"""The table of formats: what is written is recognized, read and rendered as maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.editor.importing import import_files
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import (
    Canvas,
    Keyframe,
    TrackedObject,
    Trajectory,
    load_maps,
    render,
    tracks_from_boxes,
)
from flashmotion_jax.trajectory.formats import (
    FORMATS,
    ExportRequest,
    ImportOptions,
    find_format,
    read_trajectory,
    write_spline,
    write_trajectory,
)

SIZE = {"height": 64, "width": 96, "num_frames": 9}
POINT_TRACKS = ("wan_move", "ati", "spline")


def trajectory() -> Trajectory:
    ball = (Keyframe(0, (0.1, 0.2, 0.4, 0.6)), Keyframe(8, (0.5, 0.3, 0.9, 0.7)))
    moon = (Keyframe(0, (0.6, 0.05, 0.8, 0.3)),)
    return Trajectory(Canvas(96, 64), 9, 24.0, (TrackedObject(1, ball), TrackedObject(2, moon)))


def request(**changes) -> ExportRequest:
    defaults = {"trajectory": trajectory(), "name": "a b", "fps": 24.0, "map_kind": "box"}
    return ExportRequest(**{**defaults, **SIZE, **changes})


def unpacked(file: Path) -> Path:
    """The folder of a zip, or the file itself."""
    if file.suffix != ".zip":
        return file
    from zipfile import ZipFile

    with ZipFile(file) as archive:
        archive.extractall(file.parent / "unpacked")
    return file.parent / "unpacked"


@pytest.mark.parametrize("name", [one.name for one in FORMATS.values() if one.write])
def test_every_written_format_is_recognized_and_read(tmp_path: Path, name: str):
    if name == "ati":
        pytest.importorskip("torch")
    folder = tmp_path / "out"
    folder.mkdir()
    path = unpacked(write_trajectory(name, request(), folder))
    assert find_format(path).name == name
    imported = read_trajectory(path, ImportOptions(Canvas(96, 64), box_size=(20, 10)))
    boxes, expected = imported.trajectory.boxes(9), trajectory().boxes()
    if name in POINT_TRACKS:
        boxes, expected = ((one[..., :2] + one[..., 2:]) / 2 for one in (boxes, expected))
    np.testing.assert_allclose(boxes, expected, atol=0.02)
    maps = load_maps(path, **SIZE)
    if name in POINT_TRACKS:
        assert maps.shape == (9, 64, 96, 3) and maps.any(axis=(1, 2, 3)).all()
    else:
        np.testing.assert_array_equal(maps, render(trajectory(), 64, 96))
    assert [file.name for file in tmp_path.iterdir()] == ["out"]  # reading writes nothing


def test_point_tracks_are_in_pixels_of_the_canvas(tmp_path: Path):
    write_spline(tracks_from_boxes(trajectory()), tmp_path / "t.json")
    small = load_maps(tmp_path / "t.json", **SIZE, canvas=Canvas(96, 64))
    np.testing.assert_array_equal(load_maps(tmp_path / "t.json", **SIZE), small)
    far = load_maps(tmp_path / "t.json", **SIZE, canvas=Canvas(192, 128))
    rows, columns = np.nonzero(far[0].any(axis=-1))
    assert rows.max() <= 40 and columns.max() <= 75


def test_label_images_give_objects_at_rest(tmp_path: Path):
    labels = np.zeros((64, 96), np.uint8)
    labels[5:20, 10:30] = 1
    Image.fromarray(labels).save(tmp_path / "labels.png")
    assert find_format(tmp_path / "labels.png").name == "labels"
    maps = load_maps(tmp_path / "labels.png", **SIZE, map_kind="mask")
    np.testing.assert_array_equal(maps[8].any(axis=-1), labels > 0)


def test_the_format_of_a_folder_depends_on_its_files(tmp_path: Path):
    Image.new("RGB", (96, 64), (128, 32, 32)).save(tmp_path / "frame_00000.png")
    assert find_format(tmp_path).name == "magicmotion_png"
    trajectory().save(tmp_path / "trajectory.json")
    assert find_format(tmp_path).name == "trajectory"
    (tmp_path / ".hidden.csv").write_text("")
    assert find_format(tmp_path).name == "trajectory"


@pytest.mark.parametrize("name", ["missing", "missing.txt", "a.txt", "empty"])
def test_unknown_files_are_an_error(tmp_path: Path, name: str):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=rf"{name}.*expected"):
        find_format(tmp_path / name)


def test_exports_that_cannot_be_written_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="format='labels'; expected magicdata, trajectory"):
        write_trajectory("labels", request(), tmp_path)
    empty = Trajectory(Canvas(96, 64), 9, 24.0, ())
    with pytest.raises(UserError, match="no object to export"):
        write_trajectory("spline", request(trajectory=empty), tmp_path)
    with pytest.raises(UserError, match="maps: 16384 x 16384 pixels"):
        write_trajectory("magicmotion_mp4", request(height=16384, width=16384), tmp_path)


def test_what_a_label_image_leaves_out_is_told(tmp_path: Path):
    labels = np.zeros((40, 60), np.uint8)
    labels[5:20, 5:20], labels[30:, :] = 1, 255
    Image.fromarray(labels).save(tmp_path / "labels.png")
    notice = "label 255 marks pixels of no object and is left out"
    assert read_trajectory(tmp_path / "labels.png").notices == (notice,)
    assert import_files(tmp_path, ImportOptions())["notices"] == [notice]
    with pytest.warns(UserWarning, match=notice):
        load_maps(tmp_path / "labels.png", num_frames=5, height=32, width=48)


@pytest.mark.parametrize("text", ["{", "[[1", '[{"x": 1}]'])
def test_errors_name_the_file(tmp_path, text):
    file = tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"broken\.json"):
        read_trajectory(file)
