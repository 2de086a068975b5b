"""The training loop: batches in, updates, metrics and checkpoints out.

It knows no particular stage, only trained models and updates. A step is a function of the state
before it, the batch, and a key folded from the step's number: a run that is killed and resumed
makes the same numbers, bit for bit, as one that was never interrupted.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import signal
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.data.batches import Batches
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.lock import sole_writer
from flashmotion_jax.training.abstract import abstract_states
from flashmotion_jax.training.checkpoints import Checkpoints, Snapshot
from flashmotion_jax.training.inputs import Inputs, Sampler, open_inputs
from flashmotion_jax.training.metric_writer import MetricWriter
from flashmotion_jax.training.profiling import Profiler
from flashmotion_jax.training.stage import Stage, frozen_policy
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.throughput import Throughput
from flashmotion_jax.training.train_step import Metrics, make_train_step
from flashmotion_jax.training.workdir import export_model, open_workdir


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
      workdir: Folder of the run.
      num_steps: Number of completed steps.
      model: The exported checkpoint, or None if the run was stopped before its end.
    """

    workdir: Path
    num_steps: int
    model: Path | None


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """Metrics of a step that may still be running."""

    step: int
    metrics: dict[str, Metrics]


def train(
    config: TrainConfig,
    *,
    resume: str = "auto",
    quiet: bool = False,
    profile: str | Path | None = None,
) -> TrainResult:
    """Trains a stage, from the beginning or from the latest checkpoint.

    SIGTERM and the first Ctrl-C stop the run after the current step, which is saved.

    Args:
      config: The run.
      resume: "auto" resumes the run in the workdir, if there is one; "never" raises instead.
      quiet: Write nothing to standard error.
      profile: Folder for a profile of a few steps after warm-up, to be opened with TensorBoard.

    Returns:
      How the run ended.

    Raises:
      UserError: The configuration does not fit its checkpoints, its data or the existing run.
      FloatingPointError: A loss or gradient is not finite; the message names step and metric.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.context)
    with jax.set_mesh(mesh), ExitStack() as stack:
        stage = build_stage(config)
        if jax.process_index() == 0:
            stack.enter_context(sole_writer(config.workdir))
        inputs = open_inputs(config, stage)
        batches = stack.enter_context(closing(inputs.batches(mesh)))
        workdir = open_workdir(config, stage, resume)
        profiler = Profiler(profile, stage.updates)
        trainer = Trainer(config, stage, inputs, batches, workdir, quiet, profiler)
        stack.enter_context(closing(trainer))
        return trainer.run()


class Trainer:
    """A run in progress; see `train`."""

    def __init__(
        self,
        config: TrainConfig,
        stage: Stage,
        inputs: Inputs,
        batches: Batches[Any],
        workdir: Path,
        quiet: bool,
        profiler: Profiler,
    ):
        sampling = inputs.sampling(stage.export.sampling)
        export = dataclasses.replace(stage.export, sampling=sampling)
        stage = dataclasses.replace(stage, export=export)
        self._config, self._stage, self._batches, self._workdir = config, stage, batches, workdir
        self._profiler = profiler
        self._checkpoints = Checkpoints(workdir / "checkpoints", config.keep, config.keep_best)
        messages: list[str] = []
        self._step, snapshot = self._restore_or_init(messages)
        self._saved_step = self._step
        self._states, self._key = dict(snapshot.states), snapshot.key
        self._writer = MetricWriter(
            workdir,
            config.num_train_steps,
            start_step=self._step,
            every=config.log_every,
            quiet=quiet,
            bounds=_bounds(stage),
        )
        for message in messages:
            self._writer.message(message)
        policy = frozen_policy(config)
        self._frozen = {role: ref.load(policy) for role, ref in stage.frozen.items()}
        self._frozen |= inputs.constants()
        self._train_steps = [
            make_train_step(update, stage.trained[update.model].optimizer)
            for update in stage.updates
        ]
        self._throughput = Throughput(config.batch_size, config.log_every)
        self._sampler = inputs.sampler(stage.export) if config.sample_every else None
        self._since_save: dict[str, list[float]] = {}
        self._pending: collections.deque[StepRecord] = collections.deque()

    def _restore_or_init(self, messages: list[str]) -> tuple[int, Snapshot]:
        restored = self._checkpoints.restore(abstract_states(self._stage), messages.append)
        if restored is not None:
            step, snapshot = restored
            self._batches.set_state(dict(snapshot.data))
            messages.append(f"resuming from step {step}")
            return step, snapshot
        states = {name: init.create_train_state() for name, init in self._stage.trained.items()}
        return 0, Snapshot(states, jax.random.key(self._config.seed), {})

    def run(self) -> TrainResult:
        """Trains until the last step, or until the run is asked to stop."""
        config = self._config
        with _stop_signals() as stop:
            while self._step < config.num_train_steps:
                self._run_step()
                if self._step % config.save_every == 0 or self._step == config.num_train_steps:
                    self._save()
                if self._sampler and self._step % config.sample_every == 0:
                    self._sample(self._sampler)
                self._report_saved(self._checkpoints.commit())
                if _should_stop(stop, self._step):
                    return self._stop()
        self._report_saved(self._checkpoints.wait())
        export = self._stage.export
        model = export_model(self._workdir, export, self._states[export.model])
        return TrainResult(self._workdir, self._step, model)

    def _run_step(self) -> None:
        """Runs all updates that are due on a step, in order."""
        with self._throughput.waiting():
            batch = next(self._batches)
        # An implicit transfer would make the host wait for the device, or the device for the host.
        with jax.transfer_guard("disallow"), self._profiler.step(self._step):
            metrics = {}
            step = sharding.replicate(np.int32(self._step))
            key = jax.random.fold_in(self._key, step)
            for index, update in enumerate(self._stage.updates):
                if update.is_due(self._step):
                    update_key = jax.random.fold_in(key, sharding.replicate(np.int32(index)))
                    metrics[update.model] = self._update(index, batch, update_key, step)
        self._pending.append(StepRecord(self._step, metrics))
        self._step += 1
        # One step late: the device runs the next step while the host reads this one's metrics.
        self._record(keep=1)
        if self._profiler.is_complete:
            jax.block_until_ready(self._states)
            self._writer.message(self._profiler.stop())

    def _update(self, index: int, batch: Any, key: jax.Array, step: jax.Array) -> Metrics:
        """Runs one update; while it runs, its model's state is donated."""
        name, train_step = self._stage.updates[index].model, self._train_steps[index]
        state = self._states.pop(name)
        args = (state, self.models(), batch, key, step)
        self._throughput.count_flops(name, train_step, args)
        self._states[name], metrics = train_step(*args)
        return metrics

    def models(self) -> dict[str, Any]:
        """Returns all models by role, except one whose state has been donated."""
        models = dict(self._frozen)
        for name, state in self._states.items():
            models[name] = state.params
            if state.ema is not None:
                models[f"{name}_ema"] = state.ema
        return models

    def _record(self, keep: int) -> None:
        """Reads the metrics of all steps but the last `keep`.

        Raises:
          FloatingPointError: A metric is not finite.
        """
        while len(self._pending) > keep:
            record = self._pending.popleft()
            values = {
                f"{model}/{name}": float(value)
                for model, metrics in record.metrics.items()
                for name, value in jax.device_get(metrics).items()
            }
            self._require_finite(record.step, values)
            speed = self._throughput.measure(record.step, record.metrics)
            self._writer.record(record.step, values | speed)
            for name, value in values.items():
                self._since_save.setdefault(name, []).append(value)

    def _require_finite(self, step: int, values: Mapping[str, float]) -> None:
        invalid = [
            f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)
        ]
        if not invalid:
            return
        self._report_saved(self._checkpoints.wait())
        raise FloatingPointError(
            f"step {step}: {', '.join(invalid)}; the checkpoints in {self._workdir} are of earlier "
            "steps. Lower the learning rate or clip_norm, or look at the videos of this step"
        )

    def _save(self) -> None:
        # Reads all metrics first: a step whose metrics are not finite must not be saved.
        self._record(keep=0)
        means = {name: sum(v) / len(v) for name, v in self._since_save.items()}
        snapshot = Snapshot(self._states, self._key, self._batches.get_state())
        self._report_saved(self._checkpoints.save(self._step, snapshot, means))
        self._saved_step = self._step
        self._since_save.clear()

    def _sample(self, sampler: Sampler) -> None:
        self._record(keep=0)
        fps = self._stage.export.sampling.fps
        for index, frames in enumerate(sampler(self._stage.bind(self.models()))):
            self._writer.video(self._step, str(index), frames, fps)
        self._throughput.restart()

    def _report_saved(self, steps: list[int]) -> None:
        for step in steps:
            self._writer.message(f"saved step {step}")

    def _stop(self) -> TrainResult:
        if self._saved_step != self._step:
            self._save()
        self._report_saved(self._checkpoints.wait())
        return TrainResult(self._workdir, self._step, None)

    def close(self) -> None:
        """Finish writing checkpoints, logs and the profile."""
        self._checkpoints.close()
        if message := self._profiler.close():
            self._writer.message(message)
        self._writer.close()


def _bounds(stage: Stage) -> dict[str, tuple[float, float]]:
    """A stage's bounds by the full path of the metric."""
    return {
        f"{update.model}/{name}": bounds
        for update in stage.updates
        for name, bounds in stage.bounds.items()
    }


@contextmanager
def _stop_signals() -> Generator[threading.Event, None, None]:
    """Turn SIGTERM and the first Ctrl-C into an event; a second Ctrl-C interrupts at once.

    With several processes, jax itself handles SIGTERM, so that all stop after the same step.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # only the main thread may install signal handlers
        return
    is_alone = jax.process_count() == 1

    def handle(number: int, frame: Any) -> None:
        del frame
        if is_alone:
            stop.set()
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(number, previous[number])

    signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT) if is_alone else (signal.SIGINT,)
    previous = {number: signal.signal(number, handle) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _should_stop(stop: threading.Event, step: int) -> bool:
    """Whether to stop after this step; all processes must stop after the same one."""
    if jax.process_count() == 1:
        return stop.is_set()
    return multihost_utils.reached_preemption_sync_point(step)
