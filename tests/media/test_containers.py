from __future__ import annotations

import contextlib
import errno
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import av
import numpy as np
import pytest

from flashmotion_jax.media import videos
from flashmotion_jax.media.frames import iterate_frames
from flashmotion_jax.media.images import read_image
from flashmotion_jax.media.labels import read_labels
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import EDITOR, limited
from helpers.display_matrix import set_display_matrix
from helpers.media_frames import noisy_frames

#: Entries a, b, c, d -> the picture that players show.
ORIENTATIONS = {
    (0, 1, -1, 0): lambda pixels: np.rot90(pixels, -1),
    (0, -1, 1, 0): lambda pixels: np.rot90(pixels, 1),
    (-1, 0, 0, -1): lambda pixels: np.rot90(pixels, 2),
    (-1, 0, 0, 1): lambda pixels: pixels[:, ::-1],
    (1, 0, 0, -1): lambda pixels: pixels[::-1],
    (0, 1, 1, 0): lambda pixels: pixels.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize(("matrix", "shown"), ORIENTATIONS.items())
def test_a_display_matrix_is_applied_by_all_readers(tmp_path, matrix, shown):
    frames = noisy_frames(count=2, height=32, width=48)
    videos.write_video(tmp_path / "a.mp4", frames, lossless=True)
    set_display_matrix(tmp_path / "a.mp4", *matrix)
    expected = np.stack([shown(frame) for frame in frames])
    np.testing.assert_array_equal(videos.read_video(tmp_path / "a.mp4")[0], expected)
    np.testing.assert_array_equal(list(iterate_frames(tmp_path / "a.mp4")), expected)


def test_an_oblique_display_matrix_is_refused(tmp_path):
    videos.write_video(tmp_path / "a.mp4", noisy_frames(height=32, width=48), lossless=True)
    set_display_matrix(tmp_path / "a.mp4", 0.8, 0.6, -0.6, 0.8)
    with pytest.raises(UserError, match="oblique angle"):
        videos.read_video(tmp_path / "a.mp4")


def write_container(path, codec, frames):
    """Writes a video in a container that the package only reads."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb8" if codec == "gif" else "bgr0"
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "ffv1"), ("a.avi", "ffv1"), ("a.gif", "gif")]
)
def test_other_containers_are_read(tmp_path, name, codec):
    red = np.broadcast_to(np.uint8([255, 0, 0]), (3, 32, 48, 3))
    write_container(tmp_path / name, codec, red)
    frames, fps = videos.read_video(tmp_path / name)
    assert frames.shape == (3, 32, 48, 3) and fps == pytest.approx(10, abs=0.1)
    assert np.abs(frames - np.array([255, 0, 0])).max() <= 3  # the palette of a GIF


class Recorded(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requested.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = HTTPServer(("127.0.0.1", 0), Recorded)
    server.requested = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n#EXT-X-ENDLIST\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
DASH = '<?xml version="1.0"?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>'
REFERENCES = {
    "hls.mp4": PLAYLIST,
    "hls.m3u8": PLAYLIST,
    "session.mp4": SDP + "a=rtpmap:96 H264/90000\n",
    "list.mp4": "ffconcat version 1.0\nfile '{url}'\n",
    "dash.mp4": DASH,
    "rtsp.mov": "RTSPtext\nrtsp://127.0.0.1/a\n",
    "movie.asx": '<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
    "raw.y4m": "YUV4MPEG2 W8 H8 F25:1 Ip\nFRAME\n",
}


@pytest.mark.parametrize(("name", "text"), REFERENCES.items())
def test_files_that_name_other_inputs_are_refused_without_a_request(tmp_path, server, name, text):
    url = f"http://127.0.0.1:{server.server_port}/a.ts"
    (tmp_path / name).write_text(text.format(url=url))
    for read in (videos.read_video, lambda path: list(iterate_frames(path))):
        start = time.perf_counter()
        with pytest.raises(UserError, match="not a readable video"):
            read(tmp_path / name)
        assert time.perf_counter() - start < 5
    assert server.requested == []


def test_addresses_are_no_files(server):
    for url in (f"http://127.0.0.1:{server.server_port}/a.mp4", "pipe:0", "tcp://127.0.0.1:9"):
        with pytest.raises(UserError, match="no video"):
            videos.read_video(url)
    assert server.requested == []


def test_a_colon_in_a_file_name_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = noisy_frames(height=32, width=48)
    videos.write_video("take:1.mp4", frames, lossless=True)
    np.testing.assert_array_equal(videos.read_video("take:1.mp4")[0], frames)


@pytest.mark.parametrize("suffix", [".mp4", ".npy", ""])
def test_long_videos_are_refused_for_the_editor(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    videos.write_video(path, noisy_frames(count=3, height=32, width=48), lossless=True)
    with limited(replace(EDITOR, image_pixels=32 * 48, video_pixels=3 * 32 * 48)):
        assert len(videos.read_video(path)[0]) == 3
    for few in (
        replace(EDITOR, video_pixels=3 * 32 * 48 - 1),
        replace(EDITOR, image_pixels=32 * 48 - 1),
    ):
        with limited(few), pytest.raises(UserError, match="expected at most"):
            videos.read_video(path)


@pytest.mark.parametrize("header", [b"(9999, 9, 9, 3)", b"(1, 10, 10, 3  ", b"(1, 10, 10, '')"])
def test_an_array_with_a_damaged_header_is_refused(tmp_path, header):
    np.save(tmp_path / "a.npy", noisy_frames(count=1, height=10, width=10))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"(1, 10, 10, 3),", header))
    with pytest.raises(UserError, match=r"a\.npy"):
        videos.read_video(tmp_path / "a.npy")


def test_damage_that_ffmpeg_calls_an_error_of_the_machine_is_the_files(tmp_path):
    file, cut = tmp_path / "a.mkv", tmp_path / "cut.mkv"
    write_container(file, "ffv1", noisy_frames(count=9, height=32, width=48))
    whole = file.read_bytes()
    found = 0
    for end in range(500, len(whole), len(whole) // 40):
        cut.write_bytes(whole[:end])
        try:
            with av.open(str(cut)) as container:
                list(container.decode(video=0))
        except OSError as error:
            assert error.errno == errno.EIO
            found += 1
            with pytest.raises(UserError, match="not a readable video"):
                list(iterate_frames(cut))
    assert found


def test_a_count_that_no_memory_would_hold_is_damage(tmp_path):
    file = tmp_path / "a.mp4"
    videos.write_video(file, noisy_frames(count=3, height=32, width=48), lossless=True)
    damaged = bytearray(file.read_bytes())
    count = damaged.index(b"stts") + 8
    damaged[count : count + 4] = b"\x7f\xff\xff\xff"
    file.write_bytes(damaged)
    with pytest.raises(UserError, match=r"not a readable video .Cannot allocate memory"):
        list(iterate_frames(file))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("read", [videos.read_video, read_image, read_labels])
def test_a_failing_disk_is_no_fault_of_the_file(tmp_path, read):
    (tmp_path / "a").symlink_to("/proc/self/mem")  # whose first page cannot be read
    with pytest.raises(OSError) as caught:
        read(tmp_path / "a")
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_of_a_container_is_an_error_for_people(tmp_path, seed):
    file = tmp_path / "a.mp4"
    videos.write_video(file, noisy_frames(count=3, height=32, width=48), lossless=True)
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    rng = np.random.default_rng(seed)
    for _ in range(40):
        damaged = whole.copy()
        damaged[rng.integers(0, whole.size, 30)] = rng.integers(0, 256, 30)
        file.write_bytes(damaged.tobytes())
        with contextlib.suppress(UserError):
            list(iterate_frames(file))
