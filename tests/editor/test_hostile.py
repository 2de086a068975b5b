"""Whatever is sent, or lies in the history, is answered: no 5xx, and no path of the server."""

from __future__ import annotations

import asyncio
import io
import json
import stat
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.requests import ClientDisconnect

from flashmotion_jax.editor import app
from flashmotion_jax.editor.generator import Generator
from flashmotion_jax.editor.guard import Guard
from flashmotion_jax.editor.jobs import MAX_ACTIVE, History
from helpers.editor_server import client_of, png
from helpers.editor_slow import Slow

JOB = "20260101-000000-00000000"


@pytest.fixture
def slow():
    generator = Slow()
    yield generator
    generator.step.release(1000)


def stored_job(home, **changes):
    """Writes a job that ended, with other values in its `job.json`."""
    history = History(home)
    job = history.new("a", "b", {"adapter_scale": 1.0}, {})
    history.end(job, "done")
    history.close()
    file = home / job.id / "job.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return file


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"adapter_scale": float("nan")}},
        {"settings": [1]},
        {"settings": None},
        {"video": 3},
        {"video": {"fps": float("inf")}},
        {"created": "yesterday"},
        {"created": None},
        {"id": "../../elsewhere"},
        {"id": ["a"]},
        {"server": "../../etc/passwd"},
        {"server": None, "state": "running"},
        {"state": "flying"},
        {"state": ["done"]},
        {"session": 3},
        {"image": "../../../etc/passwd"},
        {"progress": {"denoise": "x"}},
        {"progress": [1]},
        {"seconds": {"denoise": None}},
        {"seconds": {"denoise": 1e308 * 10}},
        {"error": {"a": 1}},
        {"extra": 1},
    ],
    ids=lambda changes: json.dumps(changes),
)
def test_the_history_answers_whatever_a_job_file_holds(tmp_path, changes):
    stored_job(tmp_path, **changes)
    good = stored_job(tmp_path).parent.name
    for _ in range(2):  # also after a restart
        with client_of(tmp_path) as client:
            jobs = client.get("/api/jobs")
            assert jobs.status_code == 200
            assert [job["id"] for job in jobs.json()["jobs"]] == [good]
            assert client.get(f"/api/jobs/{good}").status_code == 200


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe\x00", b"null", b"{}", b'{"settings":{}}'],
    ids=lambda content: content[:20].hex(),
)
def test_the_history_answers_whatever_bytes_a_job_file_has(tmp_path, content):
    stored_job(tmp_path).write_bytes(content)
    (tmp_path / JOB / "job.json").mkdir(parents=True)
    with client_of(tmp_path) as client:
        assert client.get("/api/jobs").json() == {"jobs": []}


def test_a_job_whose_folder_was_removed_can_be_removed(tmp_path):
    folder = stored_job(tmp_path).parent
    with client_of(tmp_path) as client:
        (folder / "job.json").unlink()
        folder.rmdir()
        assert client.get(f"/api/jobs/{folder.name}/result").status_code == 404
        assert client.delete(f"/api/jobs/{folder.name}").status_code == 204


def test_history_and_results_are_private(tmp_path, slow):
    slow.step.release(100)
    home = tmp_path / "new" / "history"
    with client_of(home, generator=slow) as client:
        sent = client.post("/api/jobs", data={"adapter": "none"}, files={"project": b"{}"})
        job = sent.json()["id"]
        while client.get(f"/api/jobs/{job}").json()["state"] != "done":
            pass
    for path in [home, *home.rglob("*")]:
        if path.parent.name == ".servers":  # empty
            continue
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_the_queue_is_bounded(tmp_path, slow):
    with client_of(tmp_path, generator=slow) as client:
        form = {"data": {"adapter": "none"}, "files": {"project": b"x"}}
        answers = [client.post("/api/jobs", **form) for _ in range(MAX_ACTIVE + 3)]
        assert [answer.status_code for answer in answers] == [201] * MAX_ACTIVE + [429] * 3
        assert "jobs are waiting: cancel one" in answers[-1].json()["error"]
        first = answers[1].json()["id"]
        assert client.post(f"/api/jobs/{first}/again").status_code == 429
        assert client.post(f"/api/jobs/{first}/cancel").status_code == 200
        assert client.post(f"/api/jobs/{first}/again").status_code == 201
        assert len(list(tmp_path.glob("*/job.json"))) == MAX_ACTIVE + 1
        slow.step.release(1000)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "[::1"},
        {"host": "localhost:port"},
        {"host": "localhost:99999999"},
        {"host": "[]"},
        {"origin": "http://[::1"},
        {"origin": "http://[v1.x"},
    ],
    ids=str,
)
@pytest.mark.parametrize("token", [None, "secret"])
def test_malformed_headers_are_400(tmp_path, headers, token):
    with client_of(tmp_path, token=token) as client:
        answer = client.get("/api/jobs", headers=headers)
        assert answer.status_code == 400 and "malformed" in answer.json()["error"]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a", "a/b"], "a file cannot be called 'b' beside the others"),
        (["a/b", "a"], "a file cannot be called 'a' beside the others"),
        (["x" * 300 + ".json"], "a file cannot be called 'xxx"),
        (["../a.json"], "leaves its folder"),
        (["a\0.json"], "leaves its folder"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_names_of_files_that_cannot_be_are_400(tmp_path, names, reason, zipped):
    files = [("files", (name, b"{}")) for name in names]
    if zipped and "\0" not in names[0]:  # at which zipfile cuts names
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                file.writestr(name, b"{}")
        files = [("files", ("all.zip", archive.getvalue()))]
    with client_of(tmp_path) as client:
        answer = client.post("/api/import", files=files)
    error = answer.json()["error"]
    assert answer.status_code == 400 and "/tmp" not in error and len(error) < 500
    if not names[0].startswith("a\0"):  # the form's parser already cuts or refuses it
        assert reason in error


@pytest.mark.parametrize("charset", ["utf-8", "raw_unicode_escape", "utf-7", "nonsense", "utf-16"])
def test_text_that_is_none_is_no_5xx_and_never_stored(tmp_path, slow, charset):
    body = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\\ud800\r\n--b--\r\n'
    kind = {"content-type": f"multipart/form-data; charset={charset}; boundary=b"}
    with client_of(tmp_path, generator=slow) as client:
        assert client.post("/api/jobs", content=body, headers=kind).status_code in (201, 400)
        assert client.get("/api/jobs").status_code == 200
        slow.step.release(100)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_forms_without_a_boundary_are_400(tmp_path, kind):
    with client_of(tmp_path) as client:
        answer = client.post("/api/import", content=b"--x\r\n\r\n", headers={"content-type": kind})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"adapter_scale": "nan"},
        {"guidance_scale": "inf"},
        {"adapter_scale": "1e308"},
        {"seed": "9" * 4000},
        {"height": "9" * 30, "width": "9" * 30},
        {"num_frames": "-5"},
        {"num_frames": "1000000001"},
        {"num_inference_steps": "99999999999"},
        {"map_kind": "x" * 10_000},
        {"adapter": "x" * 10_000},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_settings_that_are_none_are_refused_shortly(tmp_path, slow, fields):
    with client_of(tmp_path, generator=Generator(None)) as client:
        answer = client.post("/api/jobs", data=fields, files={"project": b"x"})
        assert answer.status_code == 400 and len(answer.json()["error"]) < 500
        assert client.get("/api/jobs").json() == {"jobs": []}


@pytest.mark.parametrize(
    "query", ["height=0&width=1", "height=1e9&width=3", f"height={'9' * 400}&width=1", "height=1"]
)
def test_sizes_that_are_none_are_refused(tmp_path, query):
    with client_of(tmp_path) as client:
        answer = client.get(f"/api/size?{query}")
        assert answer.status_code == 400 and len(answer.json()["error"]) < 200


@pytest.mark.parametrize("fps", ["nan", "inf", "-1", "0", "1e300"])
def test_rates_that_are_none_are_refused(tmp_path, fps):
    trajectory = {
        "version": 1,
        "canvas": {"width": 64, "height": 64},
        "num_frames": 5,
        "fps": 8,
        "objects": [{"id": 1, "keyframes": [{"frame": 0, "box": [0, 0, 0.5, 0.5]}]}],
    }
    form = {"format": "map_video", "fps": fps, "trajectory": json.dumps(trajectory)}
    with client_of(tmp_path) as client:
        answer = client.post("/api/export", data=form, files={"image": png(8, 8)})
    assert answer.status_code == 400, answer.json()


def test_what_archives_hold_is_bounded(tmp_path):
    many, tracks, points = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(many, "w") as file:
        for k in range(4001):
            file.writestr(f"{k}.json", b"")
    with zipfile.ZipFile(tracks, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", bytes(2**26 + 1))
    with zipfile.ZipFile(points, "w", zipfile.ZIP_DEFLATED) as file, file.open("a.npy", "w") as npy:
        np.save(npy, np.zeros((121, 3000, 2), np.float32))
    with client_of(tmp_path) as client:
        for name, content, reason in [
            ("a.zip", many, "a.zip holds more than 4000 files"),
            ("a.pth", tracks, "a.pth unpacks to 64 MB, expected at most 64 MB"),
            ("a.zip", points, "3000 objects on 121 frames, expected at most 262144 boxes"),
        ]:
            answer = client.post("/api/import", files={"files": (name, content.getvalue())})
            assert answer.status_code == 400 and reason in answer.json()["error"]


def test_a_project_is_not_promised_to_be_json(tmp_path, slow):
    with client_of(tmp_path, generator=slow) as client:
        sent = client.post("/api/jobs", data={"adapter": "none"}, files={"project": b"\x00f"})
        answer = client.get(f"/api/jobs/{sent.json()['id']}/project")
        slow.step.release(100)
    assert answer.content == b"\x00f"
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(("kind", "status"), [("png", 200), ("gif", 400), ("", 400)])
def test_images_are_converted_to_png_only(tmp_path, kind, status):
    with client_of(tmp_path) as client:
        answer = client.post(f"/api/image?as={kind}", files={"image": ("a.png", png(8, 8))})
    assert answer.status_code == status


def test_a_client_that_leaves_is_no_error():
    async def leaves(scope, receive, send):
        raise ClientDisconnect

    async def unused(*_):
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "scheme": "http"}
    headers = [(b"host", b"localhost")]
    request = Guard(leaves, None)(scope | {"headers": headers}, unused, unused)
    with ThreadPoolExecutor(1) as pool:  # the browser of other tests runs a loop in this thread
        pool.submit(asyncio.run, request).result()


def test_few_files_are_read_at_the_same_time(tmp_path, monkeypatch):
    lock, running, most = threading.Lock(), 0, 0

    def slow_import(folder, options):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return {}

    monkeypatch.setattr(app, "import_files", slow_import)
    files = {"files": ("a.json", b"{}")}
    with client_of(tmp_path) as client, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: client.post("/api/import", files=files), range(20)))
    assert {answer.status_code for answer in answers} == {200} and most == app._AT_A_TIME
