"""The log, TensorBoard's events and the terminal output of a run."""

from __future__ import annotations

import io
import json
import math
import struct
import sys

import jax
import numpy as np
import pytest

from flashmotion_jax.media.videos import read_video
from flashmotion_jax.training import metric_writer
from flashmotion_jax.training.metric_writer import MetricWriter


@pytest.fixture
def run(tmp_path):
    """Makes writers of one run without TensorBoard; closes what a test leaves open."""
    writers = []

    def make(**kwargs):
        writers.append(MetricWriter(tmp_path, kwargs.pop("num_steps", 40), **kwargs))
        return writers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboardX", None)
        yield make
        for each in writers:
            each.close()


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def without_time(lines):
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


def train(writer, steps):
    for step in steps:
        writer.record(step, {"adapter/loss": float(step)})


def test_averages_over_the_steps_a_metric_was_recorded_on(run, tmp_path):
    writer = run(every=4)
    for step in range(8):
        metrics = {"adapter/loss": float(step)}
        if step % 2:
            metrics["discriminator/loss"] = 10.0 * step
        writer.record(step, metrics)
    first, second = read_log(tmp_path)
    assert without_time([first, second]) == [
        {"step": 3, "adapter/loss": 1.5, "discriminator/loss": 20.0},
        {"step": 7, "adapter/loss": 5.5, "discriminator/loss": 60.0},
    ]
    assert first["time"] <= second["time"]


def test_remaining_steps_are_written_at_the_end(run, tmp_path):
    train(run(num_steps=5, every=4), range(5))
    assert [line["step"] for line in read_log(tmp_path)] == [3, 4]
    stopped = run(every=4)
    train(stopped, range(6))
    stopped.record(6, {})
    stopped.close()
    assert without_time(read_log(tmp_path)) == [
        {"step": 3, "adapter/loss": 1.5},
        {"step": 6, "adapter/loss": 4.5},
    ]


def test_the_log_of_a_resumed_run_is_that_of_an_uninterrupted_one(run, tmp_path):
    train(run(every=5), range(40))
    whole = without_time(read_log(tmp_path))
    train(run(every=5), range(27))  # Killed; the last checkpoint was at step 20.
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 25, "warning": "gone"}\n{"step": 2')
    train(run(every=5, start_step=20), range(20, 40))
    assert without_time(read_log(tmp_path)) == whole


def test_a_line_truncated_within_a_character_is_dropped(run, tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 4}\n{"step": 5, "warning": "\xc3')
    run(start_step=10)
    assert read_log(tmp_path) == [{"step": 4}]


def test_a_file_that_is_not_a_log_is_not_changed(run, tmp_path):
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match=r'log.jsonl holds the line \'\{"epoch": 1\}\'; expected'):
        run(start_step=10)
    assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 1}\n'


def test_every_must_be_positive(run):
    with pytest.raises(ValueError, match="every=0; expected"):
        run(every=0)


def test_values_that_are_not_finite_stay_valid_json(run, tmp_path, capsys):
    writer = run(every=1)
    for step, loss in enumerate((math.nan, math.inf, 1.0)):
        writer.record(step, {"adapter/loss": loss})

    def reject(constant):
        raise AssertionError(constant)

    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    lines = [json.loads(line, parse_constant=reject) for line in lines]
    assert [line["adapter/loss"] for line in lines if "time" in line] == [None, None, 1.0]
    assert lines[1] == {"step": 0, "warning": "adapter/loss is nan; expected a finite number"}
    assert len(lines) == 4
    assert "warning at step 0: adapter/loss is nan" in capsys.readouterr().err


def test_leaving_the_bounds_gives_one_warning(run, tmp_path, capsys):
    writer = run(every=2, bounds={"dmd/variance_ratio": (0.5, 2.0)})
    for step, value in enumerate([1, 1, 0, 1.1, 0.1, 0.2, 0.1, 0.4, 1, 1, 3, 3, math.nan, 1]):
        writer.record(step, {"dmd/variance_ratio": value})
    lines = [line for line in read_log(tmp_path) if "warning" in line]
    assert lines == [
        {"step": 5, "warning": "dmd/variance_ratio is 0.15; expected 0.5 to 2"},
        {"step": 11, "warning": "dmd/variance_ratio is 3; expected 0.5 to 2"},
    ]
    assert capsys.readouterr().err.count("warning at step") == 2


def test_tensorboard_has_the_averages_and_purges_repeated_steps(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    def events(path):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]

    first = MetricWriter(tmp_path, 20, every=5, quiet=True)
    for step in range(15):
        first.record(step, {"adapter/loss": math.nan if step == 7 else float(step)})
    first.close()
    resumed = MetricWriter(tmp_path, 20, every=5, start_step=10, quiet=True)
    train(resumed, range(10, 20))
    resumed.close()

    files = sorted((tmp_path / "tensorboard").iterdir(), key=lambda path: path.suffix)
    before, after = ([*events(path)] for path in files)
    scalars = [
        [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        for event in before + after
        if event.summary.value
    ]
    assert scalars == [[(step, "adapter/loss", step - 2.0)] for step in (4, 14, 14, 19)]
    starts = [event.step for event in after if event.HasField("session_log")]
    assert starts == [10]


def test_without_tensorboard_one_message_is_written(run, tmp_path, capsys):
    train(run(), range(20))
    assert len(read_log(tmp_path)) == 2
    assert capsys.readouterr().err == (
        "metrics go to log.jsonl; for TensorBoard: pip install 'flashmotion_jax[train]'\n"
    )


def test_only_process_0_writes(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    writer = run(every=1)
    train(writer, range(3))
    writer.message("hello")
    path = writer.video(3, "car", np.zeros((2, 4, 4, 3), np.uint8), 24)
    writer.close()
    assert path == tmp_path / "samples" / "step_000003_car.mp4"
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_quiet_writes_only_the_log(run, tmp_path, capsys):
    writer = run(every=1, quiet=True)
    writer.record(39, {"adapter/loss": math.nan})
    writer.message("hello")
    assert capsys.readouterr() == ("", "")
    assert len(read_log(tmp_path)) == 2


def test_sample_videos_are_read_back(run, tmp_path):
    frames = np.full((5, 32, 48, 3), 200, np.uint8)
    path = run().video(500, "car", frames, 16)
    assert path == tmp_path / "samples" / "step_000500_car.mp4"
    read, fps = read_video(path)
    assert (read.shape, fps) == (frames.shape, 16)
    assert abs(read.astype(int) - 200).max() <= 3


def test_progress_in_a_file_is_a_line_now_and_then(run, capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(metric_writer.time, "monotonic", lambda: now[0])
    current = run(start_step=10)
    for step in range(10, 40):
        now[0] += 2
        current.record(step, {"adapter/loss/diffusion": 0.25, "adapter/gradient_norm": 1.0})
    current.message("saved")
    _, *lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "step 30/40, 0.5 steps/s, adapter/loss/diffusion 0.25",
        "step 40/40, 0.5 steps/s, adapter/loss/diffusion 0.25",
        "saved",
    ]


def test_progress_on_a_terminal_is_a_bar_that_messages_do_not_break(run, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    writer = run(start_step=10)
    train(writer, range(10, 30))
    writer.message("saved step 30")
    writer.close()
    shown = terminal.getvalue()
    assert "30/40" in shown.split("\r")[-1]
    assert "step/s" in shown and "adapter/loss 24.5" in shown
    assert "\rsaved step 30\n" in shown
