"""The queue and the history: submit, status, cancel, result, restarts of the server."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from flashmotion_jax import read_video
from flashmotion_jax.cli.main import main
from flashmotion_jax.data.sprites import Sprites
from flashmotion_jax.editor.generator import Generator
from flashmotion_jax.editor.jobs import History
from flashmotion_jax.editor.measure import report
from helpers.editor_server import client_of, png
from helpers.editor_slow import Slow

TRAJECTORY = {
    "version": 1,
    "canvas": {"width": 64, "height": 64},
    "num_frames": 9,
    "fps": 8,
    "objects": [
        {
            "id": 1,
            "name": "ball",
            "keyframes": [
                {"frame": 0, "box": [0.1, 0.2, 0.4, 0.6]},
                {"frame": 8, "box": [0.5, 0.3, 0.9, 0.7]},
            ],
        }
    ],
}


@pytest.fixture
def slow():
    generator = Slow()
    yield generator
    generator.step.release(1000)


@pytest.fixture
def client(tmp_path, slow):
    with client_of(tmp_path / "history", generator=slow) as client:
        yield client
        slow.step.release(1000)


def submit(client, **fields):
    files = {"image": ("image.png", png(64, 64)), "trajectory": json.dumps(TRAJECTORY).encode()}
    answer = client.post("/api/jobs", data={"session": "a", **fields}, files=files)
    assert answer.status_code == 201, answer.json()
    return answer.json()["id"]


def wait(client, job, *states):
    for _ in range(3000):
        status = client.get(f"/api/jobs/{job}").json()
        if status["state"] in states:
            return status
        time.sleep(0.02)
    raise AssertionError(f"{status['state']} after a minute, expected {states}")


def test_submit_status_result(client, slow):
    job = submit(client, prompt="a ball", seed="5", name="first")
    status = wait(client, job, "running")
    assert status["settings"]["seed"] == 5 and status["session"] == "a"
    assert client.get(f"/api/jobs/{job}/result").status_code == 404
    slow.step.release(1)
    while client.get(f"/api/jobs/{job}").json()["progress"]["denoise"] != [1, 4]:
        time.sleep(0.02)
    slow.step.release(3)
    done = wait(client, job, "done")
    shape = {"height": 64, "width": 64, "num_frames": 9, "fps": 8, "resize": "crop"}
    assert done["video"] == shape
    assert list(done["progress"]) == ["denoise", "save"] and done["seconds"]["denoise"] >= 0
    assert set(done["files"]) == {"result", "map", "trajectory", "boxes"}
    part = client.get(f"/api/jobs/{job}/result", headers={"range": "bytes=0-9"})
    assert part.status_code == 206 and len(part.content) == 10  # players seek
    boxes = client.get(f"/api/jobs/{job}/boxes").json()
    assert boxes["objects"][0]["requested"][0] == [0.1, 0.2, 0.4, 0.6]
    assert boxes["objects"][0]["measured"] is None and "Sprites alone" in boxes["reason"]


def test_a_running_job_has_a_preview_until_it_ends(client, slow, tmp_path):
    job = submit(client)
    assert wait(client, job, "running")["preview"] is None
    assert client.get(f"/api/jobs/{job}/preview").status_code == 404
    slow.step.release(1)
    while client.get(f"/api/jobs/{job}").json()["preview"] != 1:
        time.sleep(0.02)
    answer = client.get(f"/api/jobs/{job}/preview?step=1")
    assert answer.headers["content-type"] == "video/mp4"
    (tmp_path / "preview.mp4").write_bytes(answer.content)
    frames, fps = read_video(tmp_path / "preview.mp4")
    assert frames.shape == (9, 256, 256, 3) and fps == 8
    assert "preview" in client.get(f"/api/jobs/{job}").json()["files"]
    slow.step.release(3)
    done = wait(client, job, "done")
    assert done["preview"] is None and "preview" not in done["files"]
    assert client.get(f"/api/jobs/{job}/preview").status_code == 404


def test_jobs_run_in_order_and_queued_ones_are_cancelled_at_once(client, slow):
    first, second, third = (submit(client, seed=str(seed)) for seed in range(3))
    wait(client, first, "running")
    assert [client.get(f"/api/jobs/{job}").json()["ahead"] for job in (second, third)] == [0, 1]
    assert client.post(f"/api/jobs/{second}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/api/jobs/{second}/cancel").status_code == 409
    assert client.delete(f"/api/jobs/{third}").status_code == 409
    slow.step.release(8)
    wait(client, third, "done")
    assert slow.seeds == [0, 2]
    assert client.delete(f"/api/jobs/{second}").status_code == 204
    assert client.get(f"/api/jobs/{second}").status_code == 404


def test_a_running_job_is_cancelled_at_its_next_step_and_can_run_again(client, slow):
    job = submit(client, seed="7")
    wait(client, job, "running")
    assert client.post(f"/api/jobs/{job}/cancel").status_code == 200
    slow.step.release(1)
    wait(client, job, "cancelled")
    slow.step.release(4)
    again = client.post(f"/api/jobs/{job}/again").json()["id"]
    assert wait(client, again, "done")["settings"]["seed"] == 7


def test_a_failure_is_reported_and_the_next_job_runs(client, slow, caplog):
    slow.step.release(5)
    failed, good = submit(client, prompt="fail"), submit(client, prompt="good")
    assert wait(client, failed, "failed")["error"] == "RuntimeError: out of memory"
    wait(client, good, "done")


def test_sessions_see_their_own(client, slow):
    slow.step.release(100)
    mine, theirs = submit(client, session="a"), submit(client, session="b")
    wait(client, theirs, "done")

    def listed(query):
        return [job["id"] for job in client.get(f"/api/jobs{query}").json()["jobs"]]

    assert listed("?session=a") == [mine] and listed("?session=b") == [theirs]
    assert listed("") == [theirs, mine]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": "x"}, "seed='x'; expected a whole number"),
        ({"guidance_scale": "x"}, "guidance_scale='x'; expected a number"),
        ({"height": "x"}, "height='x'; expected a whole number"),
        ({"height": "64"}, "height=64 and width=None; give both, or neither"),
        (
            {"height": "63", "width": "64"},
            "height=63, width=64; expected a height that is a multiple of 32",
        ),
        ({"adapter": "x"}, "adapter='x'; expected resnet, none"),
        ({"trajectory": "{"}, "trajectory is not JSON"),
        ({"trajectory": "{}"}, "problems in the trajectory"),
    ],
)
def test_invalid_input_is_rejected_before_it_is_queued(client, fields, message):
    data = {"trajectory": json.dumps(TRAJECTORY), **fields}
    answer = client.post("/api/jobs", data=data, files={"image": ("a.png", png(64, 64))})
    assert answer.status_code == 400 and message in answer.json()["error"]
    assert client.get("/api/jobs").json()["jobs"] == []


def test_a_stopped_server_leaves_interrupted_jobs_that_can_run_again(tmp_path, slow, monkeypatch):
    monkeypatch.setattr("flashmotion_jax.editor.worker._STOP_TIMEOUT", 0.2)
    with client_of(tmp_path, generator=slow) as client:
        job, waiting = submit(client), submit(client)
        wait(client, job, "running")
        slow.step.release(1)
    slow.step.release(1000)
    with client_of(tmp_path, generator=slow) as client:
        states = [client.get(f"/api/jobs/{one}").json()["state"] for one in (job, waiting)]
        assert states == ["interrupted", "interrupted"]
        wait(client, client.post(f"/api/jobs/{job}/again").json()["id"], "done")


def test_jobs_of_a_killed_server_are_interrupted_and_those_of_a_running_one_are_not(tmp_path):
    source = tmp_path / "trajectory"
    source.write_text("{}")
    history = History(tmp_path / "home")
    job = history.new("a", "b", {}, {"trajectory": source})
    other = History(tmp_path / "home")
    assert other.all_jobs() == []  # the first one is alive, and its jobs are its own
    other.close()
    history._held.close()  # what the system does when a process is killed
    third = History(tmp_path / "home")
    (found,) = third.all_jobs()
    third.close()
    assert (found.id, found.state) == (job.id, "interrupted")


def test_other_files_in_the_history_are_ignored(tmp_path):
    for name in ("notes", "20260101-000000-00000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.json").write_text('{"a": 1}')
    history = History(tmp_path)
    history.close()
    assert history.all_jobs() == []


def test_jobs_with_the_old_names_of_settings_are_still_read(tmp_path):
    source = tmp_path / "trajectory"
    source.write_text("{}")
    history = History(tmp_path / "home")
    job = history.new("a", "b", {}, {"trajectory": source})
    history.end(job, "done")
    history.close()
    file = tmp_path / "home" / job.id / "job.json"
    data = json.loads(file.read_text())
    data["settings"] = {"steps": 4, "size": [64, 96], "frames": 9, "guidance": None, "kind": "box"}
    data["video"] = {"height": 64, "width": 96, "frames": 9, "fps": 8}
    file.write_text(json.dumps(data))
    history = History(tmp_path / "home")
    (found,) = history.all_jobs()
    history.close()
    assert found.settings == {
        "num_inference_steps": 4,
        "height": 64,
        "width": 96,
        "num_frames": 9,
        "guidance_scale": None,
        "map_kind": "box",
    }
    assert found.video == {"height": 64, "width": 96, "num_frames": 9, "fps": 8}


def test_boxes_of_sprites_are_measured():
    clip = Sprites(1, num_objects=3)[0]
    measured = report(clip.trajectory, clip.video, of_sprites=True)
    assert measured["reason"] is None
    found = [item for item in measured["objects"] if item["measured"]]
    assert len(found) >= len(clip.colors) // 2
    for item in found:
        ious = [value for value in item["iou"][1:] if value is not None]
        # Objects hide each other, so single frames may be off.
        assert not ious or np.median(ious) > 0.6, item["name"]


def test_the_page_and_sample_make_the_same_video(checkpoint, tmp_path):
    """Headless equality: what is exported here, `flashmotion sample` reproduces bit for bit."""
    (tmp_path / "image.png").write_bytes(png(64, 64))
    with client_of(tmp_path / "history", generator=Generator(checkpoint)) as client:
        job = submit(client, prompt="a red circle", seed="3", adapter="resnet")
        wait(client, job, "done", "failed")
        (tmp_path / "ours.mp4").write_bytes(client.get(f"/api/jobs/{job}/result").content)
        exported = client.get(f"/api/jobs/{job}/trajectory").content
        boxes = client.get(f"/api/jobs/{job}/boxes").json()
    (tmp_path / "trajectory.json").write_bytes(exported)
    arguments = ["sample", "--model", str(checkpoint), "--image", str(tmp_path / "image.png")]
    arguments += ["--trajectory", str(tmp_path / "trajectory.json"), "--prompt", "a red circle"]
    arguments += ["--seed", "3", "--adapter", "resnet", "--out", str(tmp_path / "theirs.mp4")]
    assert main(arguments) == 0
    ours, theirs = (read_video(tmp_path / f"{name}.mp4")[0] for name in ("ours", "theirs"))
    np.testing.assert_array_equal(ours, theirs)
    assert boxes["reason"] is None  # the checkpoint knows the words of Sprites
