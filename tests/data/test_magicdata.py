from __future__ import annotations

import shutil
import sys
import unicodedata

import av
import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.data.magicdata import MagicData
from flashmotion_jax.media.geometry import fit_frames
from flashmotion_jax.media.videos import read_video, write_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats.magicdata_csv import RowError
from helpers import magicdata_tree as tree
from helpers.display_matrix import set_display_matrix

SMALL = {"num_frames": tree.FRAMES, "height": 32, "width": 64}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tree.make_tree(tmp_path_factory.mktemp("data"), 2)


@pytest.fixture
def one(tmp_path):
    return tree.make_tree(tmp_path, 1)


def test_example_has_the_first_frames_and_their_maps(root):
    data = MagicData(root, **SMALL | {"num_frames": 5})
    example = data[1]
    assert len(data) == 2 and not data.rejected
    assert (example.id, example.caption) == ("v1", "a dog runs to v1")
    frames = read_video(root / "videos" / "v1.mp4")[0][:5]
    stretched = [Image.fromarray(f).resize((64, 32), Image.Resampling.LANCZOS) for f in frames]
    np.testing.assert_array_equal(example.video, np.stack(stretched))
    for maps in (example.masks, example.boxes):
        assert maps.shape == (5, 32, 64, 3) and maps.dtype == np.uint8
        assert {tuple(color) for color in maps.reshape(-1, 3)} == {(0, 0, 0), (128, 33, 32)}


def test_points_are_the_centers_of_the_boxes(root):
    example = MagicData(root, **SMALL, point_sigma=0.1)[0]
    np.testing.assert_array_equal(example.points[0], example.masks[0])
    for box, point in zip(example.boxes[1:], example.points[1:], strict=True):
        y, x = np.nonzero(box.any(axis=-1))
        peak = np.unravel_index(point.max(axis=-1).argmax(), point.shape[:2])
        center = (y.min() + y.max() + 1) / 2, (x.min() + x.max() + 1) / 2
        assert np.abs(np.array(peak) + 0.5 - center).max() <= 1
    assert MagicData(root, **SMALL)[0].points is None


def test_frame_0_of_both_maps_shows_masks(root):
    example = MagicData(root, **SMALL)[0]
    np.testing.assert_array_equal(example.boxes[0], example.masks[0])
    assert (example.boxes[1] != example.masks[1]).any()
    assert example.boxes[1].any(axis=-1).sum() > example.masks[1].any(axis=-1).sum()


def test_nothing_is_resampled_at_the_original_size(root):
    example = MagicData(root, num_frames=9, height=48, width=80)[0]
    np.testing.assert_array_equal(example.masks, tree.map_frames(0, "masks"))
    np.testing.assert_array_equal(example.boxes[1:], tree.map_frames(0, "boxs")[1:])
    np.testing.assert_array_equal(example.video, read_video(root / "videos" / "v0.mp4")[0])


def test_crop_treats_video_and_maps_alike(root):
    example = MagicData(root, **SMALL, resize="crop")[0]
    frames = read_video(root / "videos" / "v0.mp4")[0]
    np.testing.assert_array_equal(example.video, fit_frames(frames, 32, 64))
    masks = fit_frames(tree.map_frames(0, "masks"), 32, 64, nearest=True)
    np.testing.assert_array_equal(example.masks, masks)


def test_bad_rows_are_rejected_with_the_reason(one):
    tree.add_bad_rows(one, good=1)
    data = MagicData(one, **SMALL)
    rejected = {error.id: error for error in data.rejected}
    for index, row in enumerate(data.rows):
        if row.id == "v0":
            assert data[index].video.any()
            continue
        with pytest.raises(RowError) as caught:
            data[index]
        assert caught.value.id == row.id and caught.value.row == row.number
        rejected[row.id] = caught.value
    assert set(rejected) == set(tree.PROBLEMS)
    assert {row.id for row in data.rows} == {"v0", *tree.DECODED}
    for id, reason in tree.PROBLEMS.items():
        assert reason in rejected[id].reason and f"line {rejected[id].row + 2}" in str(rejected[id])


def test_rows_are_turned_as_players_turn_them(one):
    file = one / "videos" / "v0.mp4"
    write_video(file, tree.video_frames(0), lossless=True)
    set_display_matrix(file, 0, 1, -1, 0)
    with pytest.raises(RowError, match="aspect ratios differ"):
        MagicData(one, **SMALL)[0]
    for kind in ("masks", "boxs"):
        tree.write_maps(one / kind / "v0", np.rot90(tree.map_frames(0, kind), -1, axes=(1, 2)))
    example = MagicData(one, num_frames=9, height=80, width=48)[0]
    upright = np.rot90(tree.video_frames(0), -1, axes=(1, 2))
    np.testing.assert_array_equal(example.video, upright)


def marked_damaged(file):
    """Whether FFmpeg, left to conceal damage, fails or says that it did so."""
    try:
        with av.open(str(file)) as container:
            return any(frame.is_corrupt for frame in container.decode(video=0))
    except av.FFmpegError:
        return True


def test_damage_found_by_ffmpeg_is_an_error_not_a_concealed_frame(one):
    file = one / "videos" / "v0.mp4"
    write_video(file, tree.video_frames(0), lossless=True)
    whole = file.read_bytes()
    marked = 0
    for start in range(1000, len(whole), 1500):
        file.write_bytes(whole[:start] + bytes(10) + whole[start + 10 :])
        if marked_damaged(file):
            marked += 1
            with pytest.raises(RowError, match="v0"):
                MagicData(one, **SMALL)[0]
    assert marked > 5


@pytest.mark.parametrize("columns", [("video", "caption"), ("Video_Path", " prompt "), None])
def test_aliases_unknown_columns_and_byte_order_mark(one, columns):
    columns = ("x", *(columns or ("path", "text")), "y")
    text = f"{','.join(columns)}\n1,v0.mp4,a dog,2\n"
    (one / "MagicData.csv").write_text(text, encoding="utf-8-sig")
    (row,) = MagicData(one, **SMALL).rows
    assert (row.id, row.caption, row.num_frames) == ("v0", "a dog", None)


@pytest.mark.parametrize("caption", ["", "nan", "NaN", "  "])
def test_missing_caption_is_the_empty_prompt(one, caption):
    tree.write_csv(one, [tree.row("v0", caption, frames="nan")])
    assert MagicData(one, **SMALL)[0].caption == ""


def test_rows_cannot_refer_outside_the_data_root(one):
    (one.parent / "outside.mp4").write_bytes(b"")
    names = ["..", "../..", "/", "a/...mp4", "", "../outside.mp4", "a/..\\..\\outside.mp4"]
    tree.write_csv(one, [[name, "a dog", 9] for name in [*names, "C:\\data\\v0.mp4"]])
    data = MagicData(one, **SMALL)
    assert [row.id for row in data.rows] == ["v0"]
    reasons = [error.reason for error in data.rejected]
    assert reasons[:5] == ["the path does not end in the name of a video"] * 5
    assert reasons[5].startswith("no videos/outside.mp4 (or .mkv")


def test_second_row_of_a_video_is_rejected(one):
    tree.write_csv(one, [["a/v0.mp4", "a dog", 9], ["b/v0.mp4", "a cat", 9]])
    data = MagicData(one, **SMALL)
    assert [row.caption for row in data.rows] == ["a dog"]
    assert data.rejected[0].reason.startswith("line 2 has the same video; only the last part")


def test_folder_of_frames_is_read_in_numerical_order(one):
    (one / "videos" / "v0.mp4").unlink()
    folder = one / "videos" / "v0"
    folder.mkdir()
    frames = tree.video_frames(3, 12)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{i}.png")
    tree.write_csv(one, [["somewhere/v0/", "a dog", 12]])
    example = MagicData(one, num_frames=9, height=48, width=80)[0]
    np.testing.assert_array_equal(example.video, frames[:9])
    (folder / "2.png").write_bytes(b"no image")
    with pytest.raises(RowError, match=r"2\.png"):
        MagicData(one, **SMALL)[0]


def test_boxes_folder_and_another_csv(one):
    (one / "boxs").rename(one / "boxes")
    other = (one / "MagicData.csv").rename(one.parent / "mine.csv")
    data = MagicData(one, other, **SMALL)
    assert data.csv == other
    assert data[0].boxes[1].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"columns \(none\); expected one of path, video"),
        ("text,fps\na,1\n", "columns text, fps; expected one of path, video"),
        ("path,fps\nv0.mp4,1\n", "expected one of text, caption, prompt"),
        ("path,text\n", "none of the 0 rows"),
        ("path,text\nv9.mp4,a\n", r"none of the 1 rows.*line 2 \(v9\): no videos/v9.mp4"),
    ],
)
def test_unusable_csv_raises_with_the_reason(one, text, message):
    (one / "MagicData.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        MagicData(one, **SMALL)


def test_other_invalid_input_raises(one):
    with pytest.raises(ValueError, match=r"no .*nothing.csv; there is MagicData.csv: expected"):
        MagicData(one, "nothing.csv", **SMALL)
    with pytest.raises(ValueError, match="resize='pad'; expected crop or stretch"):
        MagicData(one, **SMALL, resize="pad")
    (one / "MagicData.csv").write_bytes(b"path,text\nv0.mp4,\xff\xfe\n")
    with pytest.raises(ValueError, match="not a CSV in UTF-8"):
        MagicData(one, **SMALL)


@pytest.mark.parametrize("name", ["v0.MP4", "v0.mov", "v0.MOV", "v0.mkv", "v0.avi", "v0.webm"])
def test_videos_of_other_names_are_found(one, name):
    whole = MagicData(one, **SMALL)[0].video
    # FFmpeg goes by the content.
    (one / "videos" / "v0.mp4").rename(one / "videos" / name)
    tree.write_csv(one, [[f"D:\\videos\\{name}", "a dog", 9]])
    np.testing.assert_array_equal(MagicData(one, **SMALL)[0].video, whole)


@pytest.mark.parametrize("pattern", ["{:05d}.png", "{}.png", "mask-{:03d}.PNG", "v0_{:06d}.tif"])
@pytest.mark.parametrize("first", [0, 1])
def test_maps_of_other_names_are_read_in_numerical_order(one, pattern, first):
    whole = MagicData(one, num_frames=9, height=48, width=80)[0]
    for kind in ("masks", "boxs"):
        folder = one / kind / "v0"
        frames = [Image.open(file).copy() for file in sorted(folder.iterdir())]
        shutil.rmtree(folder)
        folder.mkdir()
        for i, frame in enumerate(frames):
            frame.save(folder / pattern.format(i + first))
        (folder / "notes.txt").write_text("no map")
    example = MagicData(one, num_frames=9, height=48, width=80)[0]
    np.testing.assert_array_equal(example.masks, whole.masks)
    np.testing.assert_array_equal(example.boxes, whole.boxes)


def test_jpeg_maps_get_their_colors_back(tmp_path):
    root, size = tmp_path, (96, 160)
    write_video(root / "videos" / "v0.mp4", tree.video_frames(0, size=size))
    tree.write_csv(root, [tree.row("v0")])
    drawn = {kind: tree.map_frames(0, kind, size=size) for kind in ("masks", "boxs")}
    for kind, frames in drawn.items():
        (root / kind / "v0").mkdir(parents=True)
        for i, frame in enumerate(frames):
            file = root / kind / "v0" / f"annotated_frame_{i:05d}.jpg"
            Image.fromarray(frame).save(file, quality=90)
    example = MagicData(root, num_frames=9, height=96, width=160)[0]
    for found, expected in (
        (example.masks, drawn["masks"]),
        (example.boxes[1:], drawn["boxs"][1:]),
    ):
        assert set(map(tuple, found.reshape(-1, 3))) == {(0, 0, 0), (128, 32, 32)}
        assert (found != expected).any(axis=-1).mean() < 0.002


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
def test_accents_are_found_in_either_form(tmp_path, on_disk):
    name = unicodedata.normalize(on_disk, "café été")
    tree.add_video(tmp_path, name, 0)
    for form in ("NFC", "NFD"):
        tree.write_csv(tmp_path, [tree.row(unicodedata.normalize(form, name))])
        assert MagicData(tmp_path, **SMALL)[0].id == unicodedata.normalize("NFC", name)


def test_two_maps_of_a_frame_are_rejected(one):
    Image.new("RGB", tree.SIZE).save(one / "masks" / "v0" / "00003.png")
    with pytest.raises(UserError, match=r"has two images of a frame, 00003\.png and annotated"):
        MagicData(one, **SMALL)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_a_failing_disk_rejects_no_row(one):
    data = MagicData(one, **SMALL)
    (one / "videos" / "v0.mp4").unlink()
    (one / "videos" / "v0.mp4").symlink_to("/proc/self/mem")  # whose first page cannot be read
    with pytest.raises(OSError, match="Input/output error"):
        data[0]
