"""Random trajectories, exported and imported in every format, come back within a pixel."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flashmotion_jax.config import MapKind
from flashmotion_jax.trajectory import (
    EASINGS,
    Canvas,
    Keyframe,
    Mask,
    TrackedObject,
    Trajectory,
    render,
    tracks_from_boxes,
)
from flashmotion_jax.trajectory.drawing import stroke_radius
from flashmotion_jax.trajectory.formats import (
    FORMATS,
    ExportRequest,
    ImportOptions,
    find_format,
    read_trajectory,
    write_trajectory,
)

BOX_SIZE = (20.0, 10.0)
WRITTEN = [one.name for one in FORMATS.values() if one.write]


@st.composite
def objects(draw: st.DrawFn, id: int, canvas: Canvas, num_frames: int) -> TrackedObject:
    """An object that starts inside the image and may leave it."""
    size = np.array([canvas.width, canvas.height])
    later = draw(st.lists(st.integers(1, max(num_frames - 1, 1)), max_size=3, unique=True))
    keyframes = []
    for frame in [0, *sorted(frame for frame in later if frame < num_frames)]:
        reach = (0.1, 0.9) if frame == 0 else (-0.4, 1.4)
        center = np.array([draw(st.floats(*reach)) for _ in range(2)]) * size
        extent = np.array([draw(st.floats(12, 0.6 * side)) for side in size.tolist()])
        edges = np.concatenate([center - extent / 2, center + extent / 2])
        if frame == 0:
            edges = np.rint(edges)
        box = tuple((edges / np.tile(size, 2)).tolist())
        keyframes.append(Keyframe(frame, box, draw(st.sampled_from(sorted(EASINGS)))))
    mask = None
    if draw(st.booleans()):
        x0, y0, x1, y1 = (keyframes[0].box * np.tile(size, 2)).round().astype(int).tolist()
        pixels = np.zeros(size[::-1], bool)
        pixels[max(y0, 0) : y1, max(x0, 0) : x1] = True
        if draw(st.booleans()):  # a hole
            pixels[max(y0 + 4, 0) : y1 - 4, max(x0 + 4, 0) : x1 - 4] = False
        mask = Mask.from_array(pixels)
    color = draw(st.none() | st.sampled_from(["#800000", "#00ff40", "#405060", "#ff00ff"]))
    return TrackedObject(
        id, tuple(keyframes), f"object {id}", color and color[:-1] + f"{id % 10}", mask
    )


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    canvas = Canvas(2 * draw(st.integers(30, 120)), 2 * draw(st.integers(30, 120)))
    num_frames = draw(st.integers(1, 20))
    ids = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True))
    items, colors = [], set()
    for id in ids:
        item = draw(objects(id, canvas, num_frames))
        if item.rgb not in colors:
            items.append(item)
            colors.add(item.rgb)
    drawn = draw(st.none() | st.sets(st.integers(0, num_frames - 1)).map(sorted))
    sparse = None if drawn is None else tuple(drawn)
    return Trajectory(canvas, num_frames, 24.0, tuple(items), sparse)


def came_back(original: Trajectory, name: str, map_kind: MapKind, folder: Path) -> Trajectory:
    """Exports and imports a trajectory."""
    canvas = original.canvas
    request = ExportRequest(
        original, "a", canvas.height, canvas.width, original.num_frames, original.fps, map_kind
    )
    (folder / "out").mkdir()
    path = write_trajectory(name, request, folder / "out")
    if path.suffix == ".zip":
        with ZipFile(path) as archive:
            archive.extractall(folder / "unpacked")
        path = folder / "unpacked"
    if name == "magicdata":  # which holds a trajectory.json, too
        assert read_trajectory(path).trajectory == original
        shutil.rmtree(path / "trajectories")
    assert find_format(path).name == name
    return read_trajectory(
        path, ImportOptions(canvas, box_size=BOX_SIZE, map_kind=map_kind)
    ).trajectory


def shown_edges(original: Trajectory, map_kind: MapKind) -> np.ndarray:
    """Which edges (x0, y0, x1, y1) of an object are seen in maps, bool [K, F, 4].

    Most of a stroke must be visible, or, of an area, the pixels along the edge and beyond it.
    """
    height, width = original.canvas.height, original.canvas.width
    radius = stroke_radius(height, width)
    maps = render(original, height, width, map_kind)
    boxes = original.boxes() * [width, height, width, height]
    shown = np.zeros(boxes.shape, bool)
    for k, item in enumerate(original.objects):
        own_FHW = (maps == np.array(item.rgb)).all(axis=-1)
        other_FHW = maps.any(axis=-1) & ~own_FHW
        if not own_FHW[0].any():
            continue
        for f in np.flatnonzero(original.drawn()):
            is_area = f == 0 or map_kind != "box"
            rounded = np.rint(boxes[k, f]).astype(int)
            for edge in range(4):
                own, other, box = own_FHW[f], other_FHW[f], rounded
                if edge % 2:
                    own, other, box = own.T, other.T, rounded[[1, 0, 3, 2]]
                at, start, end = box[edge // 2 * 2], max(box[1], 0), min(box[3], own.shape[0])
                if edge > 1 and is_area:
                    at -= 1
                reach = 2 if is_area else radius
                if not reach < at < own.shape[1] - 1 - reach or end - start < 4:
                    continue
                if is_area:
                    beyond = other[start:end, at - 2 : at + 3]
                    shown[k, f, edge] = own[start:end, at].mean() > 0.95 and not beyond.any()
                else:
                    stroke = own[start:end, at - radius : at + radius + 1]
                    shown[k, f, edge] = stroke.mean() > 0.95
    return shown


def check_maps(original: Trajectory, imported: Trajectory, map_kind: MapKind) -> None:
    assert (imported.canvas, imported.num_frames) == (original.canvas, original.num_frames)
    shown = shown_edges(original, map_kind)
    size = [original.canvas.width, original.canvas.height] * 2
    found = {item.rgb: k for k, item in enumerate(imported.objects)}
    for k, item in enumerate(original.objects):
        if not shown[k, 0].any():  # covered or too narrow on frame 0
            continue
        apart = np.abs(imported.boxes()[found[item.rgb]] - original.boxes()[k]) * size
        assert apart[shown[k]].max(initial=0) <= 1 + 1e-6
        assert imported.objects[found[item.rgb]].id == item.id or item.color


def check_tracks(original: Trajectory, imported: Trajectory, is_stretched: bool) -> None:
    expected, found = tracks_from_boxes(original), tracks_from_boxes(imported)
    times = np.arange(imported.num_frames)  # splines may end early
    if is_stretched:
        times = np.linspace(0, original.num_frames - 1, imported.num_frames)
    before, after = np.floor(times).astype(int), np.ceil(times).astype(int)
    part = (times - before)[:, None, None]
    points = (1 - part) * expected.points_FN2[before] + part * expected.points_FN2[after]
    # A spline ends where its point becomes invisible.
    visible = np.logical_and.accumulate(expected.visible_FN, axis=0)
    seen = visible[before] & visible[after]
    assert np.abs(found.points_FN2 - points)[seen].max(initial=0) <= 1


def check_round_trip(original: Trajectory, name: str, map_kind: MapKind) -> None:
    with TemporaryDirectory() as folder:
        imported = came_back(original, name, map_kind, Path(folder))
    if name == "trajectory":
        assert imported == original
    elif FORMATS[name].writes_maps:
        check_maps(original, imported, map_kind)
    else:
        check_tracks(original, imported, name == "ati")


CASES = [
    (name, kind)
    for name in WRITTEN
    for kind in (("box", "filled_box", "mask") if FORMATS[name].writes_maps else ("box",))
]
CHECKS = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "phases": [Phase.generate],
}


@pytest.mark.parametrize(("name", "map_kind"), CASES)
def test_random_trajectories_come_back(name: str, map_kind: MapKind):
    if name == "ati":
        pytest.importorskip("torch")
    check = given(trajectories())(lambda one: check_round_trip(one, name, map_kind))
    settings(max_examples=30, derandomize=True, **CHECKS)(check)()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "map_kind"), CASES)
def test_many_random_trajectories_come_back(name: str, map_kind: MapKind):
    if name == "ati":
        pytest.importorskip("torch")
    check = given(trajectories())(lambda one: check_round_trip(one, name, map_kind))
    settings(max_examples=300, **CHECKS)(check)()
