"""Checkpoints of a run: all train states, the random key and the position in the data.

Orbax writes them in the background. A step counts as saved once its manifest, `<step>.json`, is
written; it holds the checksum of every file, so that damage is found before orbax reads them.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from flashmotion_jax.checkpoints.arrays import require_space
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.checksums import measure_files, read_json, write_json
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.finite import find_not_finite
from flashmotion_jax.runtime.sharding import sharding_of

#: Suffix of the folder that orbax writes a checkpoint to before it renames it.
UNFINISHED = ".orbax-checkpoint-tmp"

_DAMAGE = (
    "",
    "incomplete",
    "damaged (files are missing, truncated or changed)",
    "damaged (the disk cannot read it)",
)

#: The file with the metrics of a checkpoint; orbax reads it as soon as it opens the folder.
_METRICS = "metrics/metrics"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Everything that is needed to resume a run.

    Attributes:
      states: Name of each trained model to its `TrainState`.
      key: The run's random key.
      data: State of the batch iterator, as JSON.
    """

    states: Mapping[str, Any]
    key: jax.Array
    data: Mapping[str, Any]


class Checkpoints:
    """The checkpoints in a folder.

    Args:
      folder: Created if it does not exist.
      keep: Number of latest checkpoints to keep, at least two: orbax deletes the oldest one as soon
        as the newest is written, which is before it has a manifest.
      keep_best: Metric whose checkpoint of the smallest value is kept too; empty for none.
    """

    def __init__(self, folder: Path, keep: int, keep_best: str = ""):
        self._folder = folder.absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._keep_best = keep_best
        self._messages = self._set_aside_damaged_metrics() if keep_best else []

        def metric(metrics: Mapping[str, float]) -> float:
            # Checkpoints from before `keep_best` was changed lack the metric.
            return metrics.get(keep_best, math.inf)

        policies: list[Any] = [checkpoint_managers.LatestN(max(keep, 2))]
        if keep_best:
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=metric, reverse=True, n=1, keep_checkpoints_without_metrics=False
                )
            )
        options = ocp.CheckpointManagerOptions(
            best_fn=metric if keep_best else None,  # orbax writes metrics only if this is set
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
        )
        self._manager = ocp.CheckpointManager(
            self._folder, options=options, item_names=("state", "data")
        )
        self._uncommitted: dict[int, dict[str, list[int]]] = {}  # step to shapes of its arrays

    def save(self, step: int, snapshot: Snapshot, metrics: Mapping[str, float]) -> list[int]:
        """Starts writing a checkpoint; when this returns, the arrays may be donated.

        Args:
          step: Number of completed steps.
          snapshot: What to write.
          metrics: Averages since the last checkpoint.

        Returns:
          Earlier steps that have been committed by this call.

        Raises:
          UserError: `metrics` lacks the metric of `keep_best`.
          FloatingPointError: An array is not finite.
          OSError: The previous checkpoint could not be written, or the disk is too full for this
            one.
        """
        if self._keep_best and self._keep_best not in metrics:
            raise UserError(
                f"keep_best={self._keep_best!r} is not a metric of this run; expected one of "
                f"{', '.join(sorted(metrics))}"
            )
        arrays = _flat({"states": snapshot.states, "key": jax.random.key_data(snapshot.key)})
        _require_finite(step, arrays)
        # Orbax would wait too, but would then delete old checkpoints before the manifest of the
        # previous one is written: a kill in between would lose both.
        committed = self.wait()
        require_space(self._folder / str(step), sum(array.nbytes for array in arrays.values()))
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays),
                data=ocp.args.JsonSave(dict(snapshot.data)),
            ),
            metrics={self._keep_best: metrics[self._keep_best]} if self._keep_best else None,
        )
        self._uncommitted[step] = _shapes(arrays)
        return committed

    def commit(self) -> list[int]:
        """Writes the manifests of complete checkpoints, without waiting; returns their steps.

        Raises:
          OSError: One could not be written.
        """
        if not self._uncommitted or self._manager.is_saving_in_progress():
            return []
        return self.wait()

    def wait(self) -> list[int]:
        """Waits until all checkpoints are complete, writes their manifests, and returns the steps.

        Raises:
          OSError: One could not be written.
        """
        if not self._uncommitted:
            return []
        committed, self._uncommitted = self._uncommitted, {}
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # orbax and tensorstore raise all kinds
            raise OSError(
                f"checkpoint {max(committed)} could not be written to {self._folder}: "
                f"{_first_line(error)}; earlier checkpoints are intact"
            ) from error
        if jax.process_index() == 0:
            for step, shapes in committed.items():
                values = {"files": measure_files(self._path(step)), "arrays": shapes}
                with replacing(self._manifest(step)) as scratch:
                    write_json(scratch, values)
            for manifest in self._folder.glob("[0-9]*.json"):
                if not manifest.with_suffix("").exists():
                    manifest.unlink()
        return list(committed)

    def restore(
        self, states: Mapping[str, Any], message: Callable[[str], None]
    ) -> tuple[int, Snapshot] | None:
        """Restores the latest intact checkpoint.

        Damaged ones are moved to `damaged/`, so that their steps can be written again.

        Args:
          states: Abstract train states; their mesh may differ from the one that was saved.
          message: Called with a line about each checkpoint that is skipped.

        Returns:
          The number of completed steps and the snapshot, or None without an intact checkpoint.

        Raises:
          UserError: An intact checkpoint has other arrays, from another version or other sizes.
        """
        for text in self._messages:
            message(text)
        for path in self._folder.glob(f"*{UNFINISHED}"):
            step = path.name.removesuffix(UNFINISHED)
            message(f"checkpoint {step} is incomplete: removed")
            if jax.process_index() == 0:
                # Whatever cannot be removed, orbax replaces when it writes the step again.
                shutil.rmtree(path, ignore_errors=True)
        for step in sorted(self._manager.all_steps(), reverse=True):
            restored = self._try_restore(step, states)
            if isinstance(restored, Snapshot):
                return step, restored
            target = self._set_aside(step)
            message(f"checkpoint {step} is {restored}: moved to {target}; trying the previous one")
            multihost_utils.sync_global_devices(f"move checkpoint {step}")
            self._manager.reload()
        return None

    def close(self) -> None:
        """Waits until all checkpoints are complete, and ends orbax's threads."""
        self.wait()
        self._manager.close()

    def _try_restore(self, step: int, states: Mapping[str, Any]) -> Snapshot | str:
        """Returns the snapshot, or what is wrong with the checkpoint."""
        # One process reads all files again; every process has to take the same checkpoint.
        found = self._find_damage(step) if jax.process_index() == 0 else 0
        if damage := _DAMAGE[int(multihost_utils.broadcast_one_to_all(np.int32(found)))]:
            return damage
        shapes = read_json(self._manifest(step))["arrays"]
        abstract = {"states": states, "key": jax.ShapeDtypeStruct((2,), np.uint32)}
        arrays = {name: _on_current_mesh(array) for name, array in _flat(abstract).items()}
        _require_same_shapes(self._path(step), shapes, _shapes(arrays))
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(arrays), data=ocp.args.JsonRestore()
        )
        try:
            restored: Any = self._manager.restore(step, args=args)
        except Exception as error:  # orbax and tensorstore raise all kinds
            return f"damaged ({_first_line(error)})"
        leaves = [restored.state[name] for name in arrays]
        tree = jax.tree.unflatten(jax.tree.structure(abstract), leaves)
        return Snapshot(tree["states"], jax.random.wrap_key_data(tree["key"]), restored.data)

    def _find_damage(self, step: int, names: Sequence[str] | None = None) -> int:
        """Returns the index in `_DAMAGE` of what is wrong with files of a checkpoint."""
        if not self._manifest(step).is_file():
            return 1
        try:
            manifest = read_json(self._manifest(step))
            if manifest.keys() != {"files", "arrays"}:
                return 2
            files = manifest["files"]
            expected = files if names is None else {name: files.get(name) for name in names}
            return 0 if measure_files(self._path(step), names) == expected else 2
        except FileNotFoundError:
            return 1
        except UserError:
            return 2
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return 3

    def _set_aside_damaged_metrics(self) -> list[str]:
        """Sets aside checkpoints with changed metrics; returns a message about each."""
        messages = []
        if jax.process_index() == 0:
            for file in sorted(self._folder.glob(f"[0-9]*/{_METRICS}")):
                name = file.parents[1].name
                damage = self._find_damage(int(name), [_METRICS]) if name.isdecimal() else 0
                if damage:
                    target = self._set_aside(int(name))
                    messages.append(f"checkpoint {name} is {_DAMAGE[damage]}: moved to {target}")
        multihost_utils.sync_global_devices("check metrics of checkpoints")
        return messages

    def _set_aside(self, step: int) -> Path:
        """Moves a checkpoint to `damaged/`, by process 0; returns where it is then."""
        target = self._folder / "damaged" / str(step)
        if jax.process_index() == 0:
            target.parent.mkdir(exist_ok=True)
            if target.exists():  # the same step was damaged before
                shutil.rmtree(target)
            self._path(step).rename(target)
            self._manifest(step).unlink(missing_ok=True)
        return target

    def _path(self, step: int) -> Path:
        return self._folder / str(step)

    def _manifest(self, step: int) -> Path:
        return self._folder / f"{step}.json"


def _flat(tree: Any) -> dict[str, Any]:
    """Maps the dotted path of every leaf to it, whatever the types of the nodes."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _require_finite(step: int, arrays: dict[str, jax.Array]) -> None:
    """Raises FloatingPointError for NaN or infinity; an update may overflow with finite losses."""
    if invalid := find_not_finite(arrays):
        raise FloatingPointError(
            f"after step {step}, {len(invalid)} arrays are not finite, for example {invalid[0]}; "
            "this step is not saved. Lower the learning rate or clip_norm"
        )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _on_current_mesh(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding_of(array))


def _shapes(arrays: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: list(array.shape) for name, array in arrays.items()}


def _require_same_shapes(
    path: Path, found: dict[str, list[int]], expected: dict[str, list[int]]
) -> None:
    differing = [
        f"{name}: {found.get(name, 'nothing')} on disk, {expected.get(name, 'nothing')} expected"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if differing:
        raise UserError(
            f"{path} holds other arrays than this run ({len(differing)} differ, {differing[0]}); "
            "resume with the version that wrote it, or choose another workdir"
        )
