from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from flashmotion_jax.media import videos


def smooth_frames(count=5, height=48, width=80):
    t, y, x = np.mgrid[:count, :height, :width]
    red, green, blue = 3 * y + 5 * t, 2 * x + 40, 120 + y - x
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)


def noisy_frames(count=4, height=33, width=47):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


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
def test_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch, name):
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


def test_npy_of_python_objects_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a readable video"):
        videos.read_video(tmp_path / "a.npy")


def test_read_image_turns_by_exif(tmp_path):
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 clockwise to show"
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(videos.read_image(tmp_path / "a.png"), np.rot90(pixels, -1))


def test_read_image_puts_alpha_over_black(tmp_path):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0] = [200, 100, 50, 255]
    rgba[1] = [200, 100, 50, 0]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = videos.read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [200, 100, 50] and image[1, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("dtype", "full"), [(np.uint8, 255), (np.uint16, 65535)])
def test_read_image_widens_greyscale(tmp_path, dtype, full):
    grey = (np.array([[0.0, 0.5], [0.75, 1.0]]) * full).astype(dtype)
    Image.fromarray(grey).save(tmp_path / "a.png")
    image = videos.read_image(tmp_path / "a.png")
    assert image.shape == (2, 2, 3) and image.dtype == np.uint8
    assert image[..., 1].tolist() == [[0, 127], [191, 255]]


@pytest.mark.parametrize("name", ["missing.png", "text.png", "cut.png"])
def test_unreadable_image_is_a_value_error_that_names_it(tmp_path, name):
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(noisy_frames()[0]).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    with pytest.raises(ValueError, match=name):
        videos.read_image(tmp_path / name)


# (height, width) -> what upstream's own function answers.
UPSTREAM_SIZES = {
    (704, 1280): (704, 1280),
    (1280, 704): (1280, 704),
    (1080, 1920): (704, 1248),
    (1920, 1080): (1248, 704),
    (1024, 1024): (928, 960),
    (480, 640): (800, 1088),
    (2848, 4272): (768, 1152),
    (100, 1000): (288, 2976),
    (333, 517): (768, 1152),
}


@pytest.mark.parametrize(("source", "expected"), UPSTREAM_SIZES.items())
def test_best_size_is_upstreams(source, expected):
    assert videos.best_size(*source, 704 * 1280, (32, 32)) == expected


@pytest.mark.parametrize("multiples", [(8, 8), (8, 16), (16, 8)])
@pytest.mark.parametrize("source", [(300, 200), (200, 300), (64, 64)])
def test_best_size_obeys_area_and_multiples(source, multiples):
    height, width = videos.best_size(*source, 64 * 64, multiples)
    assert height % multiples[0] == width % multiples[1] == 0 and height * width <= 64 * 64
    assert (height > width) == (source[0] > source[1])


@pytest.mark.parametrize(
    ("source", "max_area", "multiples", "expected"),
    [
        ((200, 300), 64 * 64, (8, 16), (48, 80)),
        ((480, 640), 64 * 64, (16, 8), (48, 72)),
        ((1080, 1920), 704 * 1280, (16, 64), (704, 1280)),
        ((1920, 1080), 704 * 1280, (16, 64), (1264, 704)),
    ],
)
def test_best_size_of_unequal_multiples_is_upstreams(source, max_area, multiples, expected):
    assert videos.best_size(*source, max_area, multiples) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        (0, 5, 704 * 1280, (32, 32)),
        (10, 10, 100, (32, 32)),
        (1, 100_000, 704 * 1280, (32, 32)),
        (10, 10, 4096, (8, 0)),
    ],
)
def test_best_size_says_when_there_is_none(arguments):
    with pytest.raises(ValueError, match=r"expected|crop it"):
        videos.best_size(*arguments)


def test_cover_geometry_centres_the_longer_side():
    assert videos.cover_geometry((100, 200), (50, 60)) == (50, 100, 0, 20)
    assert videos.cover_geometry((200, 100), (60, 50)) == (100, 50, 20, 0)
    assert videos.cover_geometry((427, 640), (704, 1280)) == (854, 1280, 75, 0)


@pytest.mark.parametrize("source_hw", [(427, 640), (333, 517), (1079, 1921), (7, 5)])
def test_cover_geometry_always_covers(source_hw):
    for target_hw in [(704, 1280), (1280, 704), (32, 32), (928, 960)]:
        resized_height, resized_width, top, left = videos.cover_geometry(source_hw, target_hw)
        assert 0 <= top <= resized_height - target_hw[0]
        assert 0 <= left <= resized_width - target_hw[1]


def test_cover_crop_of_a_fitting_size_changes_nothing():
    frames = noisy_frames()
    np.testing.assert_array_equal(videos.cover_crop(frames, 33, 47), frames)


def test_cover_crop_without_resizing_is_a_slice():
    image = noisy_frames(height=20, width=30)[0]
    np.testing.assert_array_equal(videos.cover_crop(image, 20, 16), image[:, 7:23])


def test_nearest_cover_crop_repeats_pixels_as_opencv_does():
    frames = noisy_frames(height=10, width=16)
    expected = [
        cv2.resize(frame, (48, 30), interpolation=cv2.INTER_NEAREST)[:, 4:44] for frame in frames
    ]
    np.testing.assert_array_equal(videos.cover_crop(frames, 30, 40, nearest=True), expected)


def test_lanczos_cover_crop_keeps_a_smooth_picture_in_place():
    frame = smooth_frames(count=1, height=96, width=160)[0]
    expected = cv2.resize(frame, (80, 48), interpolation=cv2.INTER_AREA)[:, 8:72]
    assert np.abs(videos.cover_crop(frame, 48, 64).astype(int) - expected).mean() < 1.0


@pytest.mark.parametrize("frames", [np.zeros((4, 4, 3)), np.zeros((2, 4, 4, 1), np.uint8)])
def test_cover_crop_refuses_other_arrays(frames):
    with pytest.raises(ValueError, match="expected uint8"):
        videos.cover_crop(frames, 8, 8)


def test_floats_span_minus_one_to_one_and_come_back():
    pixels = np.arange(256, dtype=np.uint8)
    floats = videos.to_float(pixels)
    assert floats.dtype == np.float32 and floats[0] == -1.0 and floats[255] == 1.0
    np.testing.assert_array_equal(videos.to_uint8(floats), pixels)


def test_to_uint8_rounds_and_clips():
    assert videos.to_uint8(np.float32([-2.0, -0.997, 0.0, 2.0])).tolist() == [0, 0, 128, 255]
