"""Access control, rejected requests, and requests that need no model."""

from __future__ import annotations

import io
import json
import resource
import time
import zipfile

import httpx
import numpy as np
import pytest
from PIL import Image

from flashmotion_jax import SamplingConfig
from flashmotion_jax.editor.generator import Generator, read_settings
from flashmotion_jax.editor.openapi import document
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory import Trajectory, render
from flashmotion_jax.trajectory.formats import FORMATS
from helpers import tiny
from helpers.editor_server import client_of, jpeg, png, serving

TRAJECTORY = {
    "version": 1,
    "canvas": {"width": 96, "height": 64},
    "num_frames": 9,
    "fps": 8,
    "objects": [
        {
            "id": 1,
            "name": "ball",
            "keyframes": [
                {"frame": 0, "box": [0.1, 0.2, 0.4, 0.6], "ease": "smooth"},
                {"frame": 8, "box": [0.5, 0.3, 0.9, 0.7]},
            ],
        },
        {"id": 2, "name": "moon", "keyframes": [{"frame": 0, "box": [0.6, 0.05, 0.8, 0.3]}]},
    ],
}


@pytest.fixture
def client(tmp_path):
    with client_of(tmp_path / "history") as client:
        yield client


def export(client, name, **fields):
    data = {"format": name, "trajectory": json.dumps(TRAJECTORY), "name": "my scene", **fields}
    # A form without a file would not be sent as multipart.
    return client.post("/api/export", data=data, files={"image": ("image.png", png(96, 64))})


def import_(client, *files, **fields):
    answer = client.post(
        "/api/import",
        data={"canvas_width": 96, "canvas_height": 64, **fields},
        files=[("files", file) for file in files],
    )
    return answer.json()


def test_the_page_loads_nothing_from_other_sites(client):
    page = client.get("/")
    assert page.status_code == 200 and "http://" not in page.text and "https://" not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/static/js/main.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"host": "evil.example"}, "answers to localhost"),
        ({"host": "127.0.0.1.evil.example:8017"}, "answers to localhost"),
        ({"origin": "http://evil.example"}, "requests from pages of http://evil.example"),
        ({"origin": "null"}, "requests from pages of null"),
    ],
)
def test_other_hosts_and_pages_of_other_sites_are_rejected(client, headers, message):
    answer = client.get("/api/jobs", headers=headers)
    assert answer.status_code == 403 and message in answer.json()["error"]
    assert client.get("/api/jobs", headers={"origin": "http://127.0.0.1"}).status_code == 200


def test_a_public_address_needs_the_token(tmp_path):
    with client_of(tmp_path, token="secret") as client:
        assert client.get("/api/jobs", headers={"host": "box.example"}).status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        bearer = {"authorization": "Bearer secret"}
        assert client.get("/api/jobs", headers=bearer).status_code == 200
        # The link puts the token into a cookie and takes it out of the address.
        linked = client.get("/?token=secret", follow_redirects=False)
        assert (linked.status_code, linked.headers["location"]) == (303, "/")
        assert "HttpOnly" in linked.headers["set-cookie"]
        assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/js/..%2f..%2f..%2fapp.py",
        "/api/jobs/..",
        "/api/jobs/../result",
        "/api/jobs/%2e%2e%2f%2e%2e/result",
        "/api/jobs/20260101-000000-00000000/job.json",
    ],
)
def test_no_path_leaves_its_folder(client, path):
    assert client.get(path).status_code == 404


def test_no_name_of_a_file_leaves_its_folder(client):
    for name in ("../evil.json", "a/../../evil.json", "/etc/evil.json"):
        answer = import_(client, (name, b"{}"))
        assert "leaves its folder" in answer["error"], name
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../evil.json", "{}")
    assert "leaves its folder" in import_(client, ("a.zip", archive.getvalue()))["error"]
    outside = json.loads(json.dumps(TRAJECTORY))
    outside["objects"][0]["mask"] = "../mask.png"
    answer = import_(client, ("trajectory.json", json.dumps(outside).encode()))
    assert "leaves the trajectory's folder" in answer["error"]


@pytest.mark.parametrize("length_is_known", [True, False])
def test_200_mb_are_rejected_with_a_message_and_not_held_in_memory(tmp_path, length_is_known):
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    chunk, count = part.ljust(2**20, b"a"), 200
    headers = {"content-type": "multipart/form-data; boundary=x"}
    if length_is_known:
        headers["content-length"] = str(len(chunk) * count)
    with serving(tmp_path) as url:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        answer = httpx.post(
            f"{url}/api/image", content=(chunk for _ in range(count)), headers=headers, timeout=120
        )
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert answer.status_code == 413
        assert "is too large: at most 96 MB; use a smaller image" in answer.json()["error"]
        assert grown < 100_000  # KiB; the limit is what may lie in memory and on disk
        assert httpx.get(f"{url}/api/jobs").status_code == 200


def test_images_are_checked(client):
    def check(name, content, **query):
        return client.post("/api/image", files={"image": (name, content)}, params=query)

    assert check("a.png", png(3840, 2160)).json() == {"height": 2160, "width": 3840}
    for content in (b"", b"text", jpeg(64, 64)[:300]):
        answer = check("bad.jpg", content)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("bad.jpg is not a readable image")
    as_png = check("a.jpg", jpeg(20, 10), **{"as": "png"})
    assert Image.open(io.BytesIO(as_png.content)).size == (20, 10)


def test_without_a_model_everything_except_generating_works(client, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path / package)
    model = client.get("/api/model").json()
    assert not model["available"] and "does not include" in model["reason"]
    assert (model["height"], model["width"], model["num_frames"]) == (704, 1280, 121)
    assert client.get("/api/size?height=2160&width=3840").json() == {"height": 704, "width": 1248}
    assert client.get("/api/size?height=0&width=3").status_code == 400
    answer = client.post("/api/jobs", data={"prompt": "a"}, files={"image": ("a.png", png(8, 8))})
    assert answer.status_code == 400 and "does not include" in answer.json()["error"]


def test_the_page_is_told_what_the_model_knows(tmp_path):
    shipped = Generator().describe()
    assert "colored shapes only" in shipped["notice"] and shipped["needs_image"]
    with pytest.raises(UserError, match="from text alone"):
        Generator().request(read_settings({"prompt": "a"}, ("resnet",)), None, None)
    other = Generator(tiny.save_checkpoint(tmp_path / "model", SamplingConfig())).describe()
    assert other["notice"] is None and other["words"] is None and not other["needs_image"]


def test_trajectory_json_round_trip(client):
    answer = export(client, "trajectory")
    assert answer.headers["content-disposition"].endswith('filename="trajectory.json"')
    imported = import_(client, ("trajectory.json", answer.content))
    assert imported["trajectory"] == Trajectory.from_dict(TRAJECTORY).to_dict()


@pytest.mark.parametrize("kind", ["magicmotion_mp4", "magicmotion_png"])
def test_maps_round_trip(client, kind, tmp_path):
    answer = export(client, kind, height="64", width="96", num_frames="9", fps="8", map_kind="box")
    name = answer.headers["content-disposition"].split('"')[1]
    imported = import_(client, (name, answer.content), map_kind="box")
    again = Trajectory.from_dict(imported["trajectory"])
    np.testing.assert_array_equal(
        render(again, 64, 96), render(Trajectory.from_dict(TRAJECTORY), 64, 96)
    )


@pytest.mark.parametrize("kind", ["wan_move", "spline", "ati"])
def test_point_tracks_keep_the_centers(client, kind):
    if kind == "ati":
        pytest.importorskip("torch")
    answer = export(client, kind)
    assert answer.status_code == 200, answer.json()
    name = answer.headers["content-disposition"].split('"')[1]
    imported = import_(client, (name, answer.content), box_width=20, box_height=10)
    again = Trajectory.from_dict(imported["trajectory"])
    ours, theirs = (
        (one[:, [0, -1], :2] + one[:, [0, -1], 2:]) / 2
        for one in (again.boxes(), Trajectory.from_dict(TRAJECTORY).boxes())
    )
    np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_magicdata_round_trip(client):
    answer = export(
        client, "magicdata", height="64", width="96", prompt="a ball rolls", map_kind="box"
    )
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = archive.namelist()
        csv = archive.read("MagicData.csv").decode()
        files = [(name, archive.read(name)) for name in names if not name.endswith("/")]
    assert "videos/my-scene.mp4,a ball rolls,9,64,96" in csv
    for folder in ("masks", "boxs"):
        assert f"{folder}/my-scene/annotated_frame_00008.png" in names
    imported = import_(client, ("scene.zip", answer.content))
    assert imported["title"] == "MagicData folder" and imported["prompt"] == "a ball rolls"
    assert imported["trajectory"] == Trajectory.from_dict(TRAJECTORY).to_dict()
    assert imported["image"]
    # As a folder of a browser, and without the trajectory that only we write.
    sent = [(f"data/{name}", content) for name, content in files if "trajectories" not in name]
    imported = import_(client, *sent, map_kind="box", id="my-scene")
    again = Trajectory.from_dict(imported["trajectory"])
    np.testing.assert_array_equal(
        render(again, 64, 96)[1:], render(Trajectory.from_dict(TRAJECTORY), 64, 96)[1:]
    )
    assert "row 'other'" in import_(client, *sent, id="other")["error"]


def test_the_page_gets_the_table_of_formats(client):
    formats = client.get("/api/formats").json()["formats"]
    assert [one["name"] for one in formats] == list(FORMATS)
    assert [one["name"] for one in formats if not one["writes"]] == ["labels"]
    assert all(one["reads"] and one["suffixes"] for one in formats)
    assert [one["name"] for one in formats if not one["limits"]] == ["magicdata", "trajectory"]


def test_label_images_and_map_arrays_are_read(client, tmp_path):
    labels = np.zeros((64, 96), np.uint8)
    labels[5:20, 10:30] = 1
    labels[30:50, 40:80] = 2
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, "PNG")
    imported = import_(client, ("labels.png", buffer.getvalue()), num_frames=9)
    assert [item["name"] for item in imported["trajectory"]["objects"]] == ["label 1", "label 2"]
    write_video(tmp_path / "maps.npy", render(Trajectory.from_dict(TRAJECTORY), 64, 96))
    imported = import_(client, ("maps.npy", (tmp_path / "maps.npy").read_bytes()))
    assert len(imported["trajectory"]["objects"]) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"x", "no known format"),
        ("a.json", b"{", "a.json is not JSON"),
        ("a.json", b"{}", "version: missing"),
        ("a.json", b"[]", "no track in them"),
        ("a.npy", b"x", "a.npy is not a readable array"),
        ("a.mp4", b"x", "a.mp4 is not a readable video"),
        ("a.zip", b"x", "a.zip is not a readable zip"),
        ("a.csv", b"x,y\n", "a.csv has the columns"),
        ("a.png", b"x", "a.png is not a readable image"),
    ],
)
def test_files_that_cannot_be_imported_are_named(client, name, content, message):
    answer = import_(client, (name, content))
    assert message in answer["error"]
    assert "flashmotion-" not in answer["error"]  # the folder it was received in


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mp4", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
        ("a.mkv", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n"),
    ],
)
def test_uploads_that_name_other_inputs_are_rejected_at_once(client, name, text):
    start = time.perf_counter()
    assert "not a readable video" in import_(client, (name, text.encode()))["error"]
    assert time.perf_counter() - start < 5


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [5_001, 13_000, 16_384])
def test_large_images_and_masks_are_rejected_and_take_no_memory(client, side):
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    mask = {"size": [side, side], "counts": [0, side**2]}
    objects = [{**TRAJECTORY["objects"][0], "id": id, "mask": mask} for id in range(1, 21)]
    data = {**TRAJECTORY, "canvas": {"width": side, "height": side}, "objects": objects}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for route in ("/api/image", "/api/select"):
        answer = client.post(route, files={"image": ("a.png", buffer.getvalue())})
        assert "scale it down" in answer.json()["error"]
    assert "scale it down" in import_(client, ("a.png", buffer.getvalue()))["error"]
    error = import_(client, ("trajectory.json", json.dumps(data).encode()))["error"]
    assert f"{side} x {side} pixels" in error and "expected at most 25 million" in error
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_long_videos_are_rejected_before_they_are_decoded(client, tmp_path):
    frames = np.broadcast_to(np.zeros(3, np.uint8), (150, 704, 1280, 3))
    write_video(tmp_path / "a.mp4", frames)
    error = import_(client, ("a.mp4", (tmp_path / "a.mp4").read_bytes()))["error"]
    assert "150 frames of 704 x 1280" in error and "expected at most 134 million pixels" in error


def test_numbers_and_videos_that_cannot_be_read_are_named(client):
    answer = export(client, "magicdata", height="64", width="96", fps="x")
    assert answer.status_code == 400 and "fps='x'; expected a number" in answer.json()["error"]
    content = export(client, "magicdata", height="64", width="96").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [(name, archive.read(name)) for name in archive.namelist() if name[-1] != "/"]
    sent = [file for file in files if "first_frames" not in file[0]]
    imported = import_(client, *sent, ("videos/my-scene.mp4", b"text"))
    assert "videos/my-scene.mp4 is not a readable video" in imported["error"]


def test_invalid_exports_are_rejected(client):
    assert "format='x'" in export(client, "x").json()["error"]
    assert "no job" in export(client, "magicdata", job="x").json()["error"]
    empty = json.dumps({**TRAJECTORY, "objects": []})
    answer = export(client, "wan_move", trajectory=empty)
    assert "there is no object to export" in answer.json()["error"]
    answer = export(client, "magicmotion_mp4", height="16384", width="16384")
    assert "maps: 16384 x 16384 pixels" in answer.json()["error"]
    answer = export(client, "magicmotion_mp4", height="704", width="1280", num_frames="153")
    assert "expected at most 134 million pixels in all" in answer.json()["error"]


def test_a_click_and_a_box_select(client):
    pixels = np.full((60, 80, 3), 90, np.uint8)
    pixels[20:40, 30:50] = 200, 40, 40
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")

    def select(**fields):
        files = {"image": ("a.png", buffer.getvalue())}
        return client.post("/api/select", data=fields, files=files).json()

    expected = np.zeros((60, 80), bool)
    expected[20:40, 30:50] = True
    for fields in ({"x": 0.5, "y": 0.5}, {"x0": 0.2, "y0": 0.15, "x1": 0.8, "y1": 0.85}):
        found = select(**fields)
        inside = np.arange(len(found["counts"])) % 2 == 1
        mask = np.repeat(inside, found["counts"]).reshape(found["size"], order="F")
        assert (mask != expected).mean() < 0.01
    assert "expected a point" in select(x=2, y=0)["error"]
    assert "at least 3 pixels" in select(x0=0.1, y0=0.1, x1=0.11, y1=0.9)["error"]


def test_every_route_is_documented(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert paths == document()["paths"]
    documented = {(path, method.upper()) for path, entry in paths.items() for method in entry}
    served = {
        (route.path, method)
        for route in client.app.routes
        if route.path.startswith("/api/")
        for method in route.methods - {"HEAD"}
    }
    assert documented == served
