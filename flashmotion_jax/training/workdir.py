"""The folder of a run: its configuration, and the checkpoint that it exports.

WORKDIR/run.json        the configuration, and the digests of all weights that the run starts from
WORKDIR/checkpoints/    to resume from
WORKDIR/log.jsonl, tensorboard/, samples/
WORKDIR/model/          the result: a checkpoint to sample, to export, and for the next stage
"""

from __future__ import annotations

import os
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import TrainConfig, differences, to_dict
from flashmotion_jax.runtime.atomic import replacing, replacing_folder
from flashmotion_jax.runtime.checksums import read_json, write_json
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.training.lora import merged_readers
from flashmotion_jax.training.stage import ExportSpec, Stage
from flashmotion_jax.training.train_state import TrainState


def open_workdir(config: TrainConfig, stage: Stage, resume: str) -> Path:
    """Creates the folder of a new run, or checks that an existing run is the same.

    Args:
      config: The run.
      stage: The stage built from it.
      resume: "auto" resumes an existing run; "never" raises instead.

    Returns:
      The folder.

    Raises:
      UserError: The folder holds a run with another configuration or other weights (the message
        lists the differences), or any run with "never".
    """
    workdir = Path(config.workdir)
    if jax.process_index() != 0:
        return workdir  # process 0 may just have written run.json
    file = workdir / "run.json"
    weights = {role: ref.read().key for role, ref in stage.frozen.items()}
    weights |= {name: init.source.read().key for name, init in stage.trained.items() if init.source}
    if not file.exists():
        values = {"config": to_dict(config), "weights": weights, "jax": jax.__version__}
        with replacing(file) as scratch:
            write_json(scratch, values)
    elif resume == "never":
        raise UserError(
            f"{workdir} holds a run; choose another workdir, delete it, or use --resume auto"
        )
    else:
        _require_same(file, config, weights)
    return workdir


def _require_same(file: Path, config: TrainConfig, weights: dict[str, str]) -> None:
    try:
        values = read_json(file)
        changes = differences(values["config"], config)
        old = values["weights"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); choose another workdir") from error
    changes += [
        f"weights of {role}: {old.get(role, 'none')[:12]} -> {key[:12]}"
        for role, key in weights.items()
        if old.get(role) != key
    ]
    if changes:
        raise UserError(
            f"{file.parent} holds a run of another configuration; choose another workdir, or undo:"
            "\n  " + "\n  ".join(changes)
        )


def export_model(workdir: Path, export: ExportSpec, state: TrainState) -> Path:
    """Writes the result of a run as a checkpoint; components that were not trained are links.

    Args:
      workdir: Folder of the run.
      export: The checkpoint to write.
      state: State of the trained model.

    Returns:
      The checkpoint's folder, `model` in the workdir.
    """
    module = state.params if state.ema is None else state.ema
    model = workdir / "model"
    config = export.finalize_config(module) if export.finalize_config else export.config
    if jax.process_count() == 1:
        readers = components.parameter_readers(module)
    else:
        # All processes gather, in the same order; then process 0 writes.
        arrays = {
            name: _gather(variable) for name, variable in components.flat_parameters(module).items()
        }
        readers = {name: lambda array=array: array for name, array in arrays.items()}
        if jax.process_index() != 0:
            return model
    with replacing_folder(model) as scratch:
        scratch.mkdir()
        kept = {"dit", "vae", "text_encoder", "tokenizer"} - {export.kind}
        # A tiny autoencoder is of the latents of one VAE.
        kept |= {"tiny_vae"} - {export.kind} if export.kind != "vae" else set()
        for component in sorted(kept):
            source = (Path(export.base) / component).resolve()
            if source.exists():
                # Relative links, so that checkpoints and runs can be moved together.
                target = os.path.relpath(source, model.resolve())
                (scratch / component).symlink_to(target, target_is_directory=True)
        components.write_sampling(scratch, export.sampling)
        if lora := export.lora:
            components.save_component(
                scratch, lora.kind, lora.config, readers, "float32", dit_config=export.dit_config
            )
            readers = merged_readers(export, lora, readers)
        components.save_component(
            scratch,
            export.kind,
            config,
            readers,
            "float32",
            dit_config=export.dit_config,
        )
    return model


def _gather(variable: nnx.Variable) -> np.ndarray:
    """Gathers a parameter from all processes into host memory."""
    array = variable.get_value()
    replicated = PartitionSpec(*[None] * array.ndim)
    return np.asarray(jax.jit(lambda x: jax.sharding.reshard(x, replicated))(array))
