from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.media import videos
from helpers.media_frames import noisy_frames, smooth_frames


def test_mp4_opens_elsewhere_with_exact_size_count_and_rate(tmp_path):
    frames = smooth_frames(height=46, width=90)
    videos.write_video(tmp_path / "a.mp4", frames, fps=24)
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 24
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(frames)
    for expected in frames:
        _, bgr = capture.read()
        assert bgr.shape == expected.shape
    capture.release()


def test_mp4_is_close_to_the_frames(tmp_path):
    frames = smooth_frames()
    videos.write_video(tmp_path / "a.mp4", frames)
    read, fps = videos.read_video(tmp_path / "a.mp4")
    assert fps == 24.0 and read.shape == frames.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - frames).mean() < 2.0


def test_mp4_is_tagged_bt709_and_its_pixels_are(tmp_path):
    frames = np.broadcast_to(np.uint8([200, 30, 60]), (2, 32, 32, 3))
    videos.write_video(tmp_path / "a.mp4", frames)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "yuv420p" and frame.colorspace == 1
    luma = 16 + 219 / 255 * (0.2126 * 200 + 0.7152 * 30 + 0.0722 * 60)
    assert abs(int(frame.to_ndarray()[0, 0]) - luma) <= 1.0


def test_mp4_starts_with_its_index(tmp_path):
    videos.write_video(tmp_path / "a.mp4", smooth_frames())
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("name", ["a.mp4", "a.npy", "a"])
def test_round_trip_is_exact(tmp_path, name):
    frames = noisy_frames()
    videos.write_video(tmp_path / name, frames, lossless=True)
    read, fps = videos.read_video(tmp_path / name)
    np.testing.assert_array_equal(read, frames)
    assert fps == 24.0


def test_broadcast_rate_survives(tmp_path):
    videos.write_video(tmp_path / "a.mp4", smooth_frames(), fps=24000 / 1001)
    assert videos.read_video(tmp_path / "a.mp4")[1] == pytest.approx(24000 / 1001, abs=1e-9)


def test_folder_holds_numbered_pngs_and_is_replaced_whole(tmp_path):
    videos.write_video(tmp_path / "out", noisy_frames(count=4))
    videos.write_video(tmp_path / "out", noisy_frames(count=2))
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "frame_00000.png",
        "frame_00001.png",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folder_with_other_files_is_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt"):
        videos.write_video(tmp_path, noisy_frames())
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_parent_folders_are_made(tmp_path):
    videos.write_video(tmp_path / "x" / "y" / "a.npy", noisy_frames())
    assert (tmp_path / "x" / "y" / "a.npy").is_file()


class InterruptedFrame:
    @staticmethod
    def from_ndarray(pixels, format):
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["a.mp4", "a.npy", "a"])
def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch, name):
    before = noisy_frames()
    videos.write_video(tmp_path / name, before, lossless=True)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(videos.av, "VideoFrame", InterruptedFrame)
    monkeypatch.setattr(videos.Image, "fromarray", interrupt)
    monkeypatch.setattr(videos.np, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        videos.write_video(tmp_path / name, smooth_frames(), lossless=True)
    monkeypatch.undo()
    np.testing.assert_array_equal(videos.read_video(tmp_path / name)[0], before)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "frames", "fps", "message"),
    [
        ("a.gif", smooth_frames(), 24, "expected .mp4, .npy"),
        ("a.mp4", noisy_frames(), 24, "even height and width"),
        ("a.mp4", smooth_frames(), 0, "fps 0"),
        ("a.mp4", smooth_frames(), float("nan"), "fps nan"),
        ("a.mp4", smooth_frames().astype(np.float32), 24, "float32"),
        ("a.mp4", smooth_frames()[0], 24, r"\[48, 80, 3\]"),
        ("a.mp4", smooth_frames()[:0], 24, r"\[0, 48, 80, 3\]"),
    ],
)
def test_bad_output_is_refused_and_nothing_written(tmp_path, name, frames, fps, message):
    with pytest.raises(ValueError, match=message):
        videos.write_video(tmp_path / name, frames, fps=fps)
    assert not list(tmp_path.iterdir())


def test_folder_over_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        videos.write_video(tmp_path / "out", noisy_frames())
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["missing.mp4", "empty", "text.mp4", "cut.mp4", "cut.npy", "f.npy"]
)
def test_unreadable_video_is_a_value_error_that_names_it(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("not a video")
    videos.write_video(tmp_path / "whole.mp4", smooth_frames())
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:200])
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY\x01")
    np.save(tmp_path / "f.npy", np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match=name):
        videos.read_video(tmp_path / name)


def test_folder_of_two_sizes_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "frame_00000.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "frame_00001.png")
    with pytest.raises(ValueError, match=r"\(6, 8\), \(8, 8\)"):
        videos.read_video(tmp_path)


def test_a_damaged_header_of_an_npy_is_not_quoted_as_a_whole(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2, 3)" + b"\xff" * 5000
    size = len(header).to_bytes(2, "little")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + header + bytes(12))
    with pytest.raises(ValueError, match="not a readable array") as raised:
        videos.read_video(tmp_path / "a.npy")
    assert len(str(raised.value)) < 200 + len(str(tmp_path))


def test_npy_of_python_objects_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a readable array"):
        videos.read_video(tmp_path / "a.npy")


def test_the_same_frames_make_the_same_file_while_other_threads_write(tmp_path):
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    moving = np.stack([np.roll(scene, 3 * frame, axis=1) for frame in range(9)])
    frames = (moving + rng.integers(-20, 20, moving.shape)).clip(0, 255).astype(np.uint8)

    def write(number: int) -> bytes:
        path = tmp_path / f"{number}.mp4"
        videos.write_video(path, frames, 8)
        return path.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(write, range(40)))) == 1
