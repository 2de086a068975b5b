"""Export to PyTorch: components in the layouts and under the names of Wan2.2 and diffusers."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.arrays import Readers, read_array, require_complete
from flashmotion_jax.checkpoints.eight_bits import DTYPES, readers_as
from flashmotion_jax.config import DiTConfig, to_dict
from flashmotion_jax.runtime import checksums
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.checksums import require_undamaged
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.lock import sole_writer

from . import adapters, dit, text_encoder, vae
from .folders import LAYOUTS, TOKENIZERS
from .mapping import Entry, Row, make_entries
from .planning import TABLES
from .tensors import StateDict, Tensor
from .writer import Spec, write_safetensors, write_shards, write_torch

#: Files that `WanPipeline.from_pretrained` of diffusers needs in addition to the models.
MODEL_INDEX = {
    "_class_name": "WanPipeline",
    "boundary_ratio": None,
    "expand_timesteps": True,
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": [None, None],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
SCHEDULER = {
    "_class_name": "UniPCMultistepScheduler",
    "flow_shift": 5.0,
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
}


@dataclasses.dataclass(frozen=True)
class Tensors:
    """The tensors of a component under their exported names, read on demand.

    Attributes:
      kind: Kind of the component.
      readers: Name of a parameter -> function that reads it, as floats.
      entries: One per parameter.
      dtype: Of all tensors; None keeps the stored dtypes, and makes bfloat16 of 8 bits.
    """

    kind: str
    readers: Readers
    entries: Sequence[Entry]
    dtype: str | None

    def specs(self) -> list[list[Spec]]:
        """Key, shape and dtype of every tensor, grouped by parameter."""
        return [
            [Spec(key, entry.source_shape, self.dtype or str(entry.dtype)) for key in entry.keys]
            for entry in self.entries
        ]

    def arrays(self) -> Iterator[np.ndarray]:
        """Yields the tensors in the same order, one parameter in memory at a time."""
        for entry in tqdm(self.entries, f"writing {self.kind}", disable=None):
            for _, array in entry.scatter(self.readers[entry.target]()):
                yield array


def export_folder(
    source: Path, destination: Path, layout: str, *, kinds: Sequence[str], dtype: str | None
) -> str:
    """Exports components in a layout of Wan2.2.

    Args:
      source: Checkpoint of this project.
      destination: New folder.
      layout: "original" or "diffusers".
      kinds: Some of "dit", "vae" and "text_encoder", which includes the tokenizer.
      dtype: Of all tensors; None keeps the stored dtypes, also where the original name of a file
        says bfloat16, and makes bfloat16 of 8 bits.

    Returns:
      A line about each part of a configuration that the layout does not hold, and one that says
      what was written.

    Raises:
      UserError: The source lacks a component or is damaged, or the destination exists.
    """
    components.read_sampling(source)
    found = {kind: components.read_component(source, kind) for kind in kinds}
    _require_new(destination)
    notes = []
    with sole_writer(destination, beside=True), replacing(destination) as scratch:
        for kind, component in found.items():
            files = LAYOUTS[layout][kind]
            rows = TABLES[kind].table(component.config, layout)
            tensors = open_tensors(source, component, rows, dtype)
            notes += _find_lost(component, tensors, layout)
            file = scratch / files.weights
            file.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".safetensors":
                write_shards(file, tensors.specs(), tensors.arrays())
            else:
                _write_file(file, tensors)
            if files.config:
                _write_json(scratch / files.config, _config(component, layout))
        if "text_encoder" in kinds:
            require_undamaged(source / "tokenizer")
            ours = shutil.ignore_patterns(checksums.FILE_NAME)
            shutil.copytree(source / "tokenizer", scratch / TOKENIZERS[layout], ignore=ours)
        if layout == "diffusers" and found.keys() == LAYOUTS[layout].keys():
            _write_json(scratch / "model_index.json", MODEL_INDEX)
            _write_json(scratch / "scheduler" / "scheduler_config.json", SCHEDULER)
    return "\n".join([*notes, f"wrote {', '.join(kinds)} in the {layout} layout to {destination}"])


def export_adapter(source: Path, destination: Path, name: str, *, dtype: str | None) -> str:
    """Exports an adapter to one file, under the first names of `converters.adapters`.

    Args:
      source: Checkpoint of this project.
      destination: New file, `.safetensors`, `.pt` or `.pth`.
      name: Kind of the adapter.
      dtype: Of all tensors; None keeps the stored dtypes.

    Returns:
      A line that says what was written.

    Raises:
      UserError: The source lacks the adapter, or the destination exists.
    """
    components.read_sampling(source)
    component = components.read_component(source, f"adapters/{name}")
    _require_new(destination)
    if destination.suffix not in (".safetensors", ".pt", ".pth"):
        raise UserError(f"{destination} has no known suffix; use .safetensors, .pt or .pth")
    # `read_component` requires it of every adapter.
    dit_config = cast(DiTConfig, component.dit_config)
    rows = adapters.table(name, component.config, dit_config, {})
    tensors = open_tensors(source, component, rows, dtype)
    with sole_writer(destination, beside=True), replacing(destination) as scratch:
        _write_file(scratch, tensors)
    notes = _find_lost(component, tensors, "file's")
    return "\n".join([*notes, f"wrote adapter {name} to {destination}"])


def open_tensors(
    source: Path, component: components.Component, rows: Sequence[Row], dtype: str | None
) -> Tensors:
    """Opens the tensors of a component under the names of a table.

    Args:
      source: Checkpoint of this project.
      component: Component of it.
      rows: The table.
      dtype: Of all tensors; None keeps the stored dtypes.

    Raises:
      UserError: Files are missing or truncated.
    """
    policy = component.policy(component.dtype if component.dtype in DTYPES else "bfloat16")
    module = components.abstract_module(
        component.kind, component.config, policy.without_eight_bits, component.dit_config
    )
    parameters = components.flat_parameters(module)
    entries = make_entries(parameters, rows)
    folder = source / component.kind / "params"
    require_complete(folder, component.num_bytes)
    require_undamaged(folder.parent)
    stored = {name: functools.partial(read_array, folder, name) for name in component.names()}
    floats = {name: variable.get_value() for name, variable in parameters.items()}
    return Tensors(component.kind, readers_as(floats, stored), entries, dtype)


def _write_file(file: Path, tensors: Tensors) -> None:
    write = write_safetensors if file.suffix == ".safetensors" else write_torch
    write(file, [spec for group in tensors.specs() for spec in group], tensors.arrays())


def _config(component: components.Component, layout: str) -> dict[str, Any]:
    if component.kind == "dit":
        return dit.write_config(component.config, layout)
    module = vae if component.kind == "vae" else text_encoder
    return module.write_config(component.config)


def _find_lost(component: components.Component, tensors: Tensors, layout: str) -> list[str]:
    """Returns at most one line, about the fields that another program cannot find in a layout."""
    shapes = {
        spec.key: Tensor(spec.shape, spec.dtype, lambda: np.zeros(0))
        for group in tensors.specs()
        for spec in group
    }
    try:
        read = _read_back(component, shapes, layout)
    except UserError as error:
        return [f"note: the {layout} layout does not store all of {component.kind}: {error}"]
    wanted, found = to_dict(component.config), to_dict(read)
    lost = [f"{name}={value}"[:80] for name, value in wanted.items() if found[name] != value]
    if not lost:
        return []
    return [f"note: the {layout} layout does not store {component.kind}: {', '.join(lost)}"]


def _read_back(component: components.Component, shapes: StateDict, layout: str) -> Any:
    """Returns the configuration that an exported component is read with."""
    if component.dit_config:
        name = component.kind.removeprefix("adapters/")
        return adapters.read_config(name, shapes, component.dit_config)[0]
    values = _config(component, layout) if LAYOUTS[layout][component.kind].config else {}
    written = json.loads(json.dumps(values))
    return TABLES[component.kind].read_config(shapes, written, layout)


def _require_new(destination: Path) -> None:
    if destination.is_dir() and not any(destination.iterdir()):
        return
    if destination.exists():
        raise UserError(f"{destination} exists; choose another name")


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
