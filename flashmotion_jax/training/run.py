"""The folder of a run: what was asked for, and the checkpoint that comes of it.

OUTPUT/run.json        the configuration, and the digests of all weights it started from
OUTPUT/checkpoints/    to go on from
OUTPUT/log.jsonl, tensorboard/, samples/
OUTPUT/model/          the result: a checkpoint for sampling, exporting, and the next stage
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import TrainConfig, differences, to_dict
from flashmotion_jax.runtime.atomic import replacing, replacing_folder
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.training.player import Player
from flashmotion_jax.training.stage import Result, Stage


def open_run(config: TrainConfig, stage: Stage, resume: str) -> Path:
    """Makes the folder of a new run, or checks that one that is there is the same.

    Args:
      config: of the run.
      stage: built from it.
      resume: "auto" goes on with a run that is there; "never" refuses to.

    Returns:
      The folder.

    Raises:
      UserError: there is a run of another configuration or of other weights (the differences are
        shown), or one at all with "never".
    """
    folder = Path(config.output)
    if jax.process_index() != 0:
        return folder  # the others would meet the file that process 0 has just written
    file = folder / "run.json"
    weights = {role: source.read().key for role, source in stage.frozen.items()}
    weights |= {
        name: player.source.read().key for name, player in stage.players.items() if player.source
    }
    if not file.exists():
        values = {"config": to_dict(config), "weights": weights, "jax": jax.__version__}
        with replacing(file) as scratch:
            scratch.write_text(json.dumps(values, indent=2) + "\n")
    elif resume == "never":
        raise UserError(
            f"{folder} holds a run; give another output, delete it, or use --resume auto"
        )
    else:
        _require_same(file, config, weights)
    return folder


def _require_same(file: Path, config: TrainConfig, weights: dict[str, str]) -> None:
    try:
        values = json.loads(file.read_text())
        changes = differences(values["config"], config)
        old = values["weights"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); give another output") from error
    changes += [
        f"weights of {role}: {old.get(role, 'none')[:12]} -> {key[:12]}"
        for role, key in weights.items()
        if old.get(role) != key
    ]
    if changes:
        raise UserError(
            f"{file.parent} holds a run of another configuration; give another output, or undo:\n  "
            + "\n  ".join(changes)
        )


def write_model(folder: Path, result: Result, player: Player) -> Path:
    """Writes the result of a run as a checkpoint; what was not trained is linked, not copied.

    Args:
      folder: of the run.
      result: what it is.
      player: the trained one.

    Returns:
      The checkpoint's folder, `model` in that of the run.
    """
    module = player.params if player.ema is None else player.ema
    model = folder / "model"
    config = result.configure(module) if result.configure else result.config
    if jax.process_count() == 1:
        readers = components.parameter_readers(module)
    else:
        # Gathering takes all processes, in the same order; then one writes.
        arrays = {
            name: _whole(variable) for name, variable in components.flat_parameters(module).items()
        }
        readers = {name: lambda array=array: array for name, array in arrays.items()}
        if jax.process_index() != 0:
            return model
    with replacing_folder(model) as scratch:
        scratch.mkdir()
        for part in ("dit", "vae", "text_encoder", "tokenizer"):
            source = (Path(result.base) / part).resolve()
            if part != result.kind and source.exists():
                # Relative, so that checkpoints and runs can be moved together.
                target = os.path.relpath(source, model.resolve())
                (scratch / part).symlink_to(target, target_is_directory=True)
        components.write_sampling(scratch, result.sampling)
        components.save_component(
            scratch,
            result.kind,
            config,
            readers,
            "float32",
            dit_config=result.dit_config,
        )
    return model


def _whole(variable: nnx.Variable) -> np.ndarray:
    """A parameter in host memory, gathered from all processes."""
    array = variable.get_value()
    everywhere = PartitionSpec(*[None] * array.ndim)
    return np.asarray(jax.jit(lambda x: jax.sharding.reshard(x, everywhere))(array))
