"""Checkpoints of a run: all players, the random key and the place in the data, whole or not at all.

Orbax writes them in the background. A step counts as saved when its mark stands beside it, which
says what its files are: what was damaged afterwards is found before orbax meets it.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from orbax.checkpoint import checkpoint_managers

from flashmotion_jax.checkpoints.arrays import require_space
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.jit import program

#: What orbax calls a checkpoint that is still being written, after the step.
UNFINISHED = ".orbax-checkpoint-tmp"

#: Of files up to this size a mark knows the content: they say what the large ones hold.
MARKED_BYTES = 2**20


class State(NamedTuple):
    """Everything that a run goes on from.

    Attributes:
      players: name to `Player`.
      key: the run's random key.
      data: state of the batches' iterator, JSON.
    """

    players: Mapping[str, Any]
    key: jax.Array
    data: Mapping[str, Any]


class Checkpoints:
    """The checkpoints in a folder.

    Args:
      folder: made if need be.
      keep: how many of the latest to keep, at least two: the newest counts once it is marked, and
        orbax deletes the one before as soon as the newest is written.
      keep_best: metric whose smallest value is kept too; empty for none.
    """

    def __init__(self, folder: Path, keep: int, keep_best: str = ""):
        self._folder = folder.absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keep_best = keep_best

        def metric(metrics: Mapping[str, float]) -> float:
            # The run may have begun with another metric.
            return metrics.get(keep_best, math.inf)

        policies: list[Any] = [checkpoint_managers.LatestN(max(keep, 2))]
        if keep_best:
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=metric, reverse=True, n=1, keep_checkpoints_without_metrics=False
                )
            )
        options = ocp.CheckpointManagerOptions(
            best_fn=metric if keep_best else None,  # without it, orbax writes no metrics
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        )
        self._manager = ocp.CheckpointManager(
            self._folder, options=options, item_names=("state", "data")
        )
        self._unmarked: dict[int, dict[str, list[int]]] = {}  # step to the arrays' shapes

    def save(self, step: int, state: State, metrics: Mapping[str, float]) -> list[int]:
        """Begins to write a checkpoint; returns when the arrays may change.

        Args:
          step: steps that have been made.
          state: to write.
          metrics: means since the last checkpoint.

        Returns:
          The steps before that have been written since `mark` was last asked, which are marked.

        Raises:
          UserError: the metric of `keep_best` is not among them.
          FloatingPointError: an array is not finite.
          OSError: the checkpoint before could not be written, or the disk is too full for this one.
        """
        if self._keep_best and self._keep_best not in metrics:
            raise UserError(
                f"keep_best={self._keep_best!r} is not measured; there are {sorted(metrics)}"
            )
        arrays = _flat({"players": state.players, "key": jax.random.key_data(state.key)})
        _require_finite(step, arrays)
        # Orbax would wait for the one before too, but then delete others before it is marked.
        marked = self.wait()
        require_space(self._folder / str(step), sum(array.nbytes for array in arrays.values()))
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays),
                data=ocp.args.JsonSave(dict(state.data)),
            ),
            metrics={self._keep_best: metrics[self._keep_best]} if self._keep_best else None,
        )
        self._unmarked[step] = _shapes(arrays)
        return marked

    def mark(self) -> list[int]:
        """Marks the steps that have been written since, and returns them.

        Raises:
          OSError: one could not be written.
        """
        if not self._unmarked or self._manager.is_saving_in_progress():
            return []
        return self.wait()

    def wait(self) -> list[int]:
        """Waits until all is written, marks it, and returns the steps.

        Raises:
          OSError: one could not be written.
        """
        if not self._unmarked:
            return []
        marked, self._unmarked = self._unmarked, {}
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # orbax and tensorstore raise all kinds
            raise OSError(
                f"checkpoint {max(marked)} could not be written to {self._folder}: "
                f"{_first_line(error)}; those before it are whole"
            ) from error
        if jax.process_index() == 0:
            for step, shapes in marked.items():
                values = {"sha256": _digest(self._path(step)), "arrays": shapes}
                with replacing(self._mark(step)) as scratch:
                    scratch.write_text(json.dumps(values))
            for mark in self._folder.glob("[0-9]*.json"):
                if not mark.with_suffix("").exists():
                    mark.unlink()
        return list(marked)

    def restore(
        self, players: Mapping[str, Any], message: Callable[[str], None]
    ) -> tuple[int, State] | None:
        """The latest checkpoint that is whole.

        Those that are not are moved aside, so that their steps can be written again.

        Args:
          players: with shapes, dtypes and places of the arrays; the mesh may be another one.
          message: hears of checkpoints that are passed over.

        Returns:
          The number of steps made and the state, or None if there is none.

        Raises:
          UserError: a whole checkpoint has other arrays, of another version or other sizes.
        """
        for path in self._folder.glob(f"*{UNFINISHED}"):
            step = path.name.removesuffix(UNFINISHED)
            message(f"checkpoint {step} was cut off while it was written: removed")
            if jax.process_index() == 0:
                # What this cannot remove, orbax does when it writes the step again.
                shutil.rmtree(path, ignore_errors=True)
        for step in sorted(self._manager.all_steps(), reverse=True):
            restored = self._try(step, players)
            if isinstance(restored, State):
                return step, restored
            aside = self._folder / "damaged" / str(step)
            message(f"checkpoint {step} is {restored}: moved to {aside}, taking the one before")
            self._set_aside(step, aside)
        return None

    def close(self) -> None:
        """Waits for what is being written, and lets go of orbax's threads."""
        self.wait()
        self._manager.close()

    def _try(self, step: int, players: Mapping[str, Any]) -> State | str:
        """The state, or what is wrong with the checkpoint."""
        try:
            mark = json.loads(self._mark(step).read_text())
            digest, shapes = mark["sha256"], mark["arrays"]
        except (OSError, ValueError, KeyError, TypeError):
            return "not finished"
        if _digest(self._path(step)) != digest:
            return "damaged (files are missing, cut or changed)"
        abstract = {"players": players, "key": jax.ShapeDtypeStruct((2,), np.uint32)}
        placed = {name: _placed(array) for name, array in _flat(abstract).items()}
        _require_same_shapes(self._path(step), shapes, _shapes(placed))
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(placed), data=ocp.args.JsonRestore()
        )
        try:
            restored: Any = self._manager.restore(step, args=args)
        except Exception as error:  # orbax and tensorstore raise all kinds
            return f"damaged ({_first_line(error)})"
        leaves = [restored.state[name] for name in placed]
        tree = jax.tree.unflatten(jax.tree.structure(abstract), leaves)
        return State(tree["players"], jax.random.wrap_key_data(tree["key"]), restored.data)

    def _set_aside(self, step: int, aside: Path) -> None:
        if jax.process_index() == 0:
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():  # the same step was damaged before
                shutil.rmtree(aside)
            self._path(step).rename(aside)
            self._mark(step).unlink(missing_ok=True)
        multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()

    def _path(self, step: int) -> Path:
        return self._folder / str(step)

    def _mark(self, step: int) -> Path:
        return self._folder / f"{step}.json"


def _flat(tree: Any) -> dict[str, Any]:
    """Dotted path to array of every leaf, whatever the types of the nodes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _require_finite(step: int, arrays: dict[str, jax.Array]) -> None:
    """Raises FloatingPointError; finite losses may still make an update that overflows."""
    finite = jax.device_get(_are_finite(arrays))
    faults = [name for name, is_finite in finite.items() if not is_finite]
    if faults:
        raise FloatingPointError(
            f"after step {step}, {len(faults)} arrays are not finite, such as {faults[0]}: nothing "
            "is saved of it; lower the learning rate or clip_norm"
        )


@program
def _are_finite(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.isfinite(array).all() for name, array in arrays.items()}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _placed(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The same array on the devices of the mesh that is set."""
    spec = array.sharding.spec if array.sharding else PartitionSpec()
    sharding = NamedSharding(jax.sharding.get_mesh(), spec)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def _shapes(arrays: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: list(array.shape) for name, array in arrays.items()}


def _require_same_shapes(
    path: Path, found: dict[str, list[int]], expected: dict[str, list[int]]
) -> None:
    differing = [
        f"{name}: {found.get(name, 'nothing')} there, {expected.get(name, 'nothing')} here"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if differing:
        raise UserError(
            f"{path} has other arrays than this run ({len(differing)} differ, {differing[0]}); "
            "go on with the version that wrote it, or give another output"
        )


def _digest(folder: Path) -> str:
    """Of the names and sizes of all files, and of what the small ones hold."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            size = file.stat().st_size
            digest.update(f"{file.relative_to(folder)} {size}\n".encode())
            if size <= MARKED_BYTES:
                digest.update(file.read_bytes())
    return digest.hexdigest()
