"""The training loop: batches in, turns played, metrics and checkpoints out.

It knows no kind of stage, only players and turns. A step is a function of the state before it, the
batch, and a key that is folded from the step: a run that is killed and goes on from a checkpoint
makes the same numbers, bit for bit, as one that was never interrupted.
"""

from __future__ import annotations

import collections
import math
import os
import signal
import threading
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from flashmotion_jax.config import TrainConfig
from flashmotion_jax.data.batches import Batches
from flashmotion_jax.runtime import sharding
from flashmotion_jax.training.checkpoints import Checkpoints, State
from flashmotion_jax.training.inputs import Inputs, Sampler, open_inputs
from flashmotion_jax.training.layout import abstract_players
from flashmotion_jax.training.run import open_run, write_model
from flashmotion_jax.training.stage import Stage, frozen_policy
from flashmotion_jax.training.stages import build_stage
from flashmotion_jax.training.throughput import Throughput
from flashmotion_jax.training.turn import Metrics, make_step
from flashmotion_jax.training.watch import Watch


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
      folder: of the run.
      steps: that have been made.
      model: the checkpoint that came of it; None if the run was asked to stop before its end.
    """

    folder: Path
    steps: int
    model: Path | None


class StepRecord(NamedTuple):
    """What is known of a step that may still be running."""

    step: int
    metrics: dict[str, Metrics]


def train(config: TrainConfig, *, resume: str = "auto", quiet: bool = False) -> Outcome:
    """Trains a stage, from its beginning or from its latest checkpoint.

    Args:
      config: of the run.
      resume: "auto" goes on with a run that is there; "never" refuses to.
      quiet: nothing on standard error.

    Returns:
      How it ended. SIGTERM and a first Ctrl-C end it after the step, which is saved.

    Raises:
      UserError: the configuration does not fit its checkpoints, its data or the run that is there.
      FloatingPointError: a loss or gradient is not finite; the step and the group are named.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.context)
    with jax.set_mesh(mesh), ExitStack() as stack:
        stage = build_stage(config)
        inputs = open_inputs(config, stage)
        batches = stack.enter_context(closing(inputs.batches(mesh)))
        folder = open_run(config, stage, resume)
        loop = Loop(config, stage, inputs, batches, folder, quiet)
        stack.enter_context(closing(loop))
        return loop.run()


class Loop:
    """A run in progress; see `train`."""

    def __init__(
        self,
        config: TrainConfig,
        stage: Stage,
        inputs: Inputs,
        batches: Batches[Any],
        folder: Path,
        quiet: bool,
    ):
        self._config, self._stage, self._batches, self._folder = config, stage, batches, folder
        self._checkpoints = Checkpoints(folder / "checkpoints", config.keep, config.keep_best)
        messages: list[str] = []
        self._step, state = self._begin(messages)
        self._saved_step = self._step
        self._players, self._key = dict(state.players), state.key
        self._watch = Watch(
            folder,
            config.steps,
            start_step=self._step,
            every=config.log_every,
            quiet=quiet,
            bounds=_bounds(stage),
        )
        for message in messages:
            self._watch.message(message)
        policy = frozen_policy(config)
        self._frozen = {role: source.load(policy) for role, source in stage.frozen.items()}
        self._frozen |= inputs.constants()
        self._steps = [
            make_step(turn, stage.players[turn.player].optimizer) for turn in stage.turns
        ]
        self._throughput = Throughput(config)
        self._sampler = inputs.sampler(stage.result) if config.sample_every else None
        self._since_save: dict[str, list[float]] = {}
        self._pending: collections.deque[StepRecord] = collections.deque()

    def _begin(self, messages: list[str]) -> tuple[int, State]:
        """The latest checkpoint, or the beginning."""
        restored = self._checkpoints.restore(abstract_players(self._stage), messages.append)
        if restored is not None:
            step, state = restored
            self._batches.set_state(dict(state.data))
            messages.append(f"going on from step {step}")
            return step, state
        players = {name: player.new_player() for name, player in self._stage.players.items()}
        return 0, State(players, jax.random.key(self._config.seed), {})

    def run(self) -> Outcome:
        """Trains until the end, or until the run is asked to stop."""
        config = self._config
        with _asked_to_stop() as asked:
            while self._step < config.steps:
                self._play()
                if self._step % config.save_every == 0 or self._step == config.steps:
                    self._save()
                if self._sampler and self._step % config.sample_every == 0:
                    self._sample(self._sampler)
                self._report_saved(self._checkpoints.mark())
                if _agreed(asked, self._step):
                    return self._stop()
        self._report_saved(self._checkpoints.wait())
        result = self._stage.result
        model = write_model(self._folder, result, self._players[result.player])
        return Outcome(self._folder, self._step, model)

    def _play(self) -> None:
        """One step: every player whose turn it is, in order."""
        with self._throughput.waiting():
            batch = next(self._batches)
        step, metrics = self._step, {}
        key = jax.random.fold_in(self._key, step)
        for index, (turn, play) in enumerate(zip(self._stage.turns, self._steps, strict=True)):
            if not turn.plays(step):
                continue
            player = self._players.pop(turn.player)
            self._players[turn.player], metrics[turn.player] = play(
                player, self.models(), batch, jax.random.fold_in(key, index), jnp.int32(step)
            )
        self._step += 1
        self._pending.append(StepRecord(step, metrics))
        # One step late: the device has the next step to do while the host reads this one's numbers.
        self._record(keep=1)

    def models(self) -> dict[str, Any]:
        """All models but the player who is away playing."""
        models = dict(self._frozen)
        for name, player in self._players.items():
            models[name] = player.params
            if player.ema is not None:
                models[f"{name}_ema"] = player.ema
        return models

    def _record(self, keep: int) -> None:
        """Reads the numbers of all steps but the last `keep`.

        Raises:
          FloatingPointError: one is not finite.
        """
        while len(self._pending) > keep:
            step, metrics = self._pending.popleft()
            values = {
                f"{player}/{name}": float(value)
                for player, named in metrics.items()
                for name, value in jax.device_get(named).items()
            }
            self._require_finite(step, values)
            self._watch.record(step, values | self._throughput.measure(step, metrics))
            for name, value in values.items():
                self._since_save.setdefault(name, []).append(value)

    def _require_finite(self, step: int, values: Mapping[str, float]) -> None:
        faults = [
            f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)
        ]
        if not faults:
            return
        self._report_saved(self._checkpoints.wait())
        raise FloatingPointError(
            f"step {step}: {', '.join(faults)}; the checkpoints in {self._folder} are of before. "
            "Lower the learning rate or clip_norm, or look at the videos of this step"
        )

    def _save(self) -> None:
        # What is not finite must not be saved: all numbers up to here are read first.
        self._record(keep=0)
        means = {name: sum(v) / len(v) for name, v in self._since_save.items()}
        state = State(self._players, self._key, self._batches.get_state())
        self._report_saved(self._checkpoints.save(self._step, state, means))
        self._saved_step = self._step
        self._since_save.clear()

    def _sample(self, sampler: Sampler) -> None:
        self._record(keep=0)
        fps = self._stage.result.sampling.fps
        for index, frames in enumerate(sampler(self.models())):
            self._watch.video(self._step, str(index), frames, fps)
        self._throughput.restart()

    def _report_saved(self, steps: list[int]) -> None:
        for step in steps:
            self._watch.message(f"saved step {step}")

    def _stop(self) -> Outcome:
        """Saves, unless this step has just been saved."""
        if self._saved_step != self._step:
            self._save()
        self._report_saved(self._checkpoints.wait())
        return Outcome(self._folder, self._step, None)

    def close(self) -> None:
        """Finishes what is being written."""
        self._checkpoints.close()
        self._watch.close()


def _bounds(stage: Stage) -> dict[str, tuple[float, float]]:
    """A stage's bounds, under the names that metrics are recorded with."""
    return {
        f"{turn.player}/{name}": bounds
        for turn in stage.turns
        for name, bounds in stage.bounds.items()
    }


@contextmanager
def _asked_to_stop() -> Generator[threading.Event, None, None]:
    """Turns SIGTERM and the first Ctrl-C into an event; a second Ctrl-C interrupts at once.

    Of several processes, jax hears SIGTERM itself, to make all stop after the same step.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may have handlers
        return
    is_alone = jax.process_count() == 1

    def ask(number: int, frame: Any) -> None:
        del frame
        if is_alone:
            asked.set()
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(number, previous[number])

    signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT) if is_alone else (signal.SIGINT,)
    previous = {number: signal.signal(number, ask) for number in signals}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _agreed(asked: threading.Event, step: int) -> bool:
    """Whether to stop after this step: all processes must do so after the same one."""
    if jax.process_count() == 1:
        return asked.is_set()
    return multihost_utils.reached_preemption_sync_point(step)
