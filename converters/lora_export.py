"""Export of a LoRA that was trained here, under the names of other programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.arrays import read_array, require_complete
from flashmotion_jax.config import LORAS
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.checksums import require_undamaged
from flashmotion_jax.runtime.errors import UserError

from . import dit
from .lora import COMPONENT
from .mapping import Row, make_entries
from .writer import Spec, write_safetensors

#: Program -> prefix of its keys, whether it has diffusers' names of modules, names of the matrices.
PROGRAMS: Mapping[str, tuple[str, bool, tuple[str, str]]] = {
    "comfyui": ("diffusion_model.", False, ("lora_down", "lora_up")),
    "diffusers": ("transformer.", True, ("lora_A", "lora_B")),
}


def export_lora(source: Path, destination: Path, program: str, *, dtype: str | None) -> str:
    """Exports the LoRA of a checkpoint to one file.

    Args:
      source: Checkpoint that was trained with `stage.lora.rank`.
      destination: New `.safetensors` file.
      program: A name of `PROGRAMS`, which can read the file.
      dtype: Of all tensors; None keeps the stored dtypes.

    Returns:
      A line that says what was written.

    Raises:
      UserError: The source has no LoRA, or the destination exists.
    """
    components.read_sampling(source)
    names = [name for name in LORAS if (source / "adapters" / name).is_dir()]
    if not names:
        raise UserError(
            f"{source} has no LoRA; expected the result of `flashmotion train` with --set "
            "stage.lora.rank=32 or another rank"
        )
    if destination.suffix != ".safetensors":
        raise UserError(f"{destination} has no suffix .safetensors, the format of LoRAs")
    if destination.exists():
        raise UserError(f"{destination} exists; choose another name")
    adapter = names[0].removesuffix("_lora")
    component = components.read_component(source, f"adapters/{names[0]}")
    specs, arrays = _tensors(source, component, program, dtype)
    metadata = {"format": "pt", COMPONENT: f"adapters/{adapter}"}
    config = component.config
    if program == "diffusers":
        values = {
            "r": config.rank,
            "lora_alpha": config.factor * config.rank,
            # Modules are found by the ends of their names.
            "target_modules": sorted({_end(spec.key) for spec in specs}),
        }
        metadata["lora_adapter_metadata"] = json.dumps(
            {f"transformer.{name}": value for name, value in values.items()}
        )
    with replacing(destination) as scratch:
        write_safetensors(scratch, specs, arrays, metadata)
    return (
        f"wrote the LoRA of the blocks, rank {config.rank}, for {program} to {destination}; "
        f"the other weights of the adapter are in `convert export --adapter {adapter}`"
    )


def _tensors(
    source: Path, component: components.Component, program: str, dtype: str | None
) -> tuple[list[Spec], Iterator[np.ndarray]]:
    """Keys, shapes and dtypes of all tensors, and the tensors themselves, one at a time."""
    prefix, is_diffusers, matrices = PROGRAMS[program]
    rows = [
        Row(f"{ours}.{half}", f"{prefix}{theirs if is_diffusers else original}.{matrix}")
        for ours, original, theirs in dit.NAMES
        for half, matrix in zip(("down", "up"), matrices, strict=True)
    ]
    module: Any = components.abstract_module(
        component.kind, component.config, component.dtype, component.dit_config
    )
    parameters = components.flat_parameters(module)
    blocks = {path: leaf for path, leaf in parameters.items() if path.startswith("blocks.")}
    entries = make_entries(blocks, rows)
    folder = source / component.kind / "params"
    require_complete(folder, component.num_bytes)
    require_undamaged(folder.parent)
    specs = [
        Spec(key, entry.source_shape, dtype or str(entry.dtype))
        for entry in entries
        for key in entry.keys
    ]
    suffix = f".{matrices[0]}.weight"
    alphas = [spec.key.removesuffix(suffix) for spec in specs if spec.key.endswith(suffix)]
    if is_diffusers:
        alphas = []
    alpha = np.float32(component.config.factor * component.config.rank)

    def arrays() -> Iterator[np.ndarray]:
        for entry in entries:
            for _, array in entry.scatter(read_array(folder, entry.target)):
                yield array
        for _ in alphas:
            yield np.asarray(alpha)

    return [*specs, *(Spec(f"{name}.alpha", (), "float32") for name in alphas)], arrays()


def _end(key: str) -> str:
    """The name of a module within its block, such as `attn1.to_q`."""
    return re.split(r"\.\d+\.", key, maxsplit=1)[1].partition(".lora_")[0]
