"""LoRA files of any program: which weights of a model they change, and how.

`lora_keys` knows the names, `lora_changes` the maths. All problems are found before a weight is
read; the tensors of the file are read when it is merged.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flax import nnx

from flashmotion_jax.config import AdapterConfig, DiTConfig, adapter_name
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import parse_json, read_json_object

from . import adapters, dit
from .lora_changes import Change, find_kinds, parts_of
from .lora_keys import Modules, is_text_encoder, split_key
from .mapping import Entry, Row, make_entries
from .quantized import dequantize
from .reader import read_weights
from .tensors import StateDict, Tensor, WeightFile
from .wrappers import is_adapter, is_holder

#: Key of safetensors' metadata in files of this project: the component that they are for.
COMPONENT = "flashmotion_component"

#: Names of the blocks' modules that ai-toolkit mixes from both layouts.
_MIXED = {
    f"blocks.{attention}.{ours}": f"blocks.{{layer}}.{attention}.{theirs}"
    for attention in ("self_attn", "cross_attn")
    for ours, theirs in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
}

#: Widths of Wan's models, for the message about a LoRA of another one.
_WIDTHS = {1536: "Wan2.1 1.3B", 3072: "Wan2.2 5B", 5120: "Wan2.1 or Wan2.2 14B"}

Place = tuple[str, int]
"""A parameter's dotted path and a layer, 0 where the parameter is not stacked."""


@dataclass(frozen=True)
class LoRA:
    """A LoRA file, with its changes by the parameters of one model.

    Attributes:
      path: The file.
      component: "dit" or "adapter".
      changes: What happens to each layer of each parameter, in this order.
      entries: How those parameters are laid out in PyTorch, by path.
      skipped: Number of keys that belong to text encoders.
    """

    path: Path
    component: str
    changes: Mapping[Place, list[Change]]
    entries: Mapping[str, Entry]
    skipped: int

    def __str__(self) -> str:
        """Describes the file in a line."""
        changes = [change for group in self.changes.values() for change in group]
        ranks = sorted({change.rank for change in changes} - {None})  # pyrefly: ignore
        kinds = sorted({"DoRA" if "magnitude" in c.parts else c.kind for c in changes})
        rank = f", rank {ranks[0] if len(ranks) == 1 else f'{ranks[0]} to {ranks[-1]}'}"
        text = f"{self.path.name}: {' and '.join(kinds)}{rank if ranks else ''}, changes "
        text += f"{len(self.changes)} tensors of the {NAMES[self.component]}"
        return text + (f"; {self.skipped} keys of a text encoder are left out" * bool(self.skipped))


#: What to call the components that a LoRA can change.
NAMES = {"dit": "generator", "adapter": "adapter"}


def open_lora(path: str | Path) -> tuple[WeightFile, Path]:
    """Opens a LoRA: a file, or a folder as PEFT and diffusers write it.

    Raises:
      UserError: There is no such file, or it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        names = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise UserError(f"{path} has no {' or '.join(names)}; expected the path of a LoRA file")
        path = found[0]
    return read_weights(path), path


def component_of(file: WeightFile) -> str:
    """The component that a file says it is for: "adapter", or "dit" if it says nothing."""
    if str(file.metadata.get(COMPONENT, "")).startswith("adapters/"):
        return "adapter"
    parts = next(iter(file.tensors), "").split(".")
    prefixes = itertools.takewhile(is_holder, parts)
    return "adapter" if any(map(is_adapter, prefixes)) else "dit"


def plan_lora(
    file: WeightFile,
    path: Path,
    adapter: AdapterConfig | None,
    parameters: Mapping[str, nnx.Variable],
    dit_config: DiTConfig,
) -> LoRA:
    """Finds what a file changes of a model, and checks everything about it.

    Args:
      file: The file.
      path: Its path.
      adapter: Configuration of the adapter to change; None for the generator.
      parameters: The model's parameters, abstract or not, by dotted path.
      dit_config: Of the generator.

    Raises:
      UserError: The file is no LoRA, or not for this model; the message names the first problem.
    """
    tensors = dequantize(file)
    component = "adapter" if adapter else "dit"
    keys = _model_keys(adapter, parameters, dit_config)
    settings = _read_settings(file, path)
    parts, skipped = _sort(tensors, path)
    # A parameter may stand for itself, as `blocks.0.modulation` does.
    names = {key.rpartition(".")[0] for key in keys} | keys.keys()
    modules = Modules(names - {""})
    changes: dict[Place, list[Change]] = {}
    entries: dict[str, Entry] = {}
    problems: list[str] = []
    has_alpha = any("alpha" in of_module for of_module in parts.values())
    for module, of_module in parts.items():
        try:
            name = modules.find(module)
            if name is None:
                raise UserError(f"this model has no such module{_other_model(parts, dit_config)}")
            for key, change in _changes(name, of_module, module, settings, has_alpha):
                if key not in keys and name not in keys:
                    raise UserError(f"this model has no {key}")
                entry, layer = keys.get(key) or keys[name]
                _check(change, entry.source_shape, _other_model(parts, dit_config))
                changes.setdefault((entry.target, layer), []).append(change)
                entries[entry.target] = entry
        except UserError as error:
            problems.append(f"{module}: {error}")
    if problems:
        more = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
        raise UserError(f"{path} cannot be merged into the {NAMES[component]}: {problems[0]}{more}")
    return LoRA(path, component, changes, entries, skipped)


def _model_keys(
    adapter: AdapterConfig | None, parameters: Mapping[str, nnx.Variable], config: DiTConfig
) -> dict[str, tuple[Entry, int]]:
    """Every key of a model's tensors, in all layouts -> the parameter and the layer."""
    of_dit = [dit.table(config, layout) for layout in ("original", "diffusers")]
    of_dit.append([*(Row(ours, theirs) for ours, theirs in _MIXED.items()), *of_dit[0]])
    tables = of_dit
    if adapter:
        own = adapters.table(adapter_name(adapter), adapter, config, {})
        copies_dit = any(row.target == "blocks.self_attn.q" for row in own)
        tables = [[*table, *own] for table in of_dit] if copies_dit else [own]
    return {
        key: (entry, layer)
        for table in tables
        for entry in make_entries(parameters, table)
        for layer, key in enumerate(entry.keys)
    }


def _sort(tensors: StateDict, path: Path) -> tuple[dict[str, dict[str, Tensor]], int]:
    """The parts of every module, and the number of keys that belong to a text encoder."""
    parts: dict[str, dict[str, Tensor]] = {}
    skipped = 0
    for key, tensor in tensors.items():
        try:
            split = split_key(key)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        if split is None:
            found = "weights of a whole model" if key.endswith((".weight", ".bias")) else key
            raise UserError(
                f"{path} holds {found} where a LoRA was expected ({key}): names such as "
                "blocks.0.self_attn.q.lora_A.weight, .lora_down.weight, .lokr_w1 or .diff"
            )
        module, part = split
        if is_text_encoder(module):
            skipped += 1
            continue
        if part in parts.setdefault(module, {}):
            raise UserError(f"{path} has two tensors {part} for {module}; expected one LoRA a file")
        parts[module][part] = tensor
    if not parts:
        raise UserError(f"{path} holds no LoRA of a generator or adapter; it has {skipped} keys")
    return parts, skipped


def _changes(
    name: str, parts: Mapping[str, Tensor], module: str, settings: _Settings, has_alpha: bool
) -> Iterator[tuple[str, Change]]:
    """Yields the key of each tensor that a module's parts change, and its change."""
    kinds = find_kinds(parts)
    factor = 1.0
    for kind in kinds:
        change = Change(kind, parts_of(kind, parts))
        if change.rank == 0:
            raise UserError("its rank is 0")
        if change.rank is not None or kind == "LoKr":
            if has_alpha and change.rank is not None and "alpha" not in parts:
                raise UserError("its alpha is missing, though other modules of the file have one")
            factor = settings.factor(module, change.rank, parts.get("alpha"))
            magnitude = {name: parts[name] for name in ("magnitude",) if name in parts}
            change = Change(kind, {**change.parts, **magnitude}, factor)
        yield f"{name}.weight", change
    if "magnitude" in parts and not set(kinds) & {"LoRA", "LoHa", "LoKr"}:
        raise UserError("it has a magnitude of DoRA and no LoRA")
    if "up_bias" in parts:
        yield f"{name}.bias", Change("difference", {"difference": parts["up_bias"]}, factor)
    if "bias_difference" in parts:
        yield f"{name}.bias", Change("difference", {"difference": parts["bias_difference"]})
    if "modulation_difference" in parts:
        change = Change("difference", {"difference": parts["modulation_difference"]})
        yield f"{name}.modulation", change
    if set(parts) == {"alpha"}:
        raise UserError("it has an alpha and nothing else")


@dataclass(frozen=True)
class _Settings:
    """What a file says about all its modules: the configuration of PEFT."""

    alpha: float | None = None
    alpha_pattern: Mapping[str, float] | None = None
    rank: float | None = None
    rank_pattern: Mapping[str, float] | None = None
    by_root: bool = False

    def factor(self, module: str, rank: int | None, tensor: Tensor | None) -> float:
        """Returns alpha / rank of a module, or alpha / sqrt(rank) of rsLoRA.

        Args:
          module: Its name in the file.
          rank: From the shapes of its tensors; None for a LoKr of whole matrices.
          tensor: Its own alpha.

        Raises:
          UserError: The alpha is not a number.
        """
        if tensor is not None:
            values = tensor.read().astype(np.float64).ravel()
            if values.size != 1 or not math.isfinite(values[0]):
                raise UserError(f"its alpha is {values[:3].tolist()}; expected one finite number")
            # Of a LoKr of whole matrices, LyCORIS and ComfyUI ignore alpha.
            return 1.0 if rank is None else float(values[0]) / rank
        if self.alpha is None:
            return 1.0
        alpha = _by_pattern(self.alpha_pattern, module, self.alpha)
        divisor = rank or _by_pattern(self.rank_pattern, module, self.rank or 1)
        return alpha / (math.sqrt(divisor) if self.by_root else divisor)


def _by_pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """The value of the first pattern that a module's name ends with, as in PEFT."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _read_settings(file: WeightFile, path: Path) -> _Settings:
    """Settings from the metadata that diffusers writes, or from PEFT's file beside it."""
    beside = path.with_name("adapter_config.json")
    fix = "expected the settings of a LoRA: r, lora_alpha, rank_pattern, alpha_pattern"
    if "lora_adapter_metadata" in file.metadata:
        where = f"lora_adapter_metadata of {path}"
        values = parse_json(file.metadata["lora_adapter_metadata"], where, fix)
        prefix = "transformer."
        if isinstance(values, dict):
            values = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    elif path.name.startswith("adapter_model.") and beside.is_file():
        where, values = str(beside), read_json_object(beside, fix)
    else:
        return _Settings()
    try:
        alpha, rank = values.get("lora_alpha", values.get("alpha")), values.get("r")
        patterns = [
            {str(pattern): float(value) for pattern, value in (values.get(name) or {}).items()}
            for name in ("alpha_pattern", "rank_pattern")
        ]
        for pattern in (*patterns[0], *patterns[1]):
            re.compile(pattern)
        return _Settings(
            None if alpha is None else float(alpha),
            patterns[0],
            None if rank is None else float(rank),
            patterns[1],
            bool(values.get("use_rslora")),
        )
    except (ValueError, TypeError, AttributeError, re.error) as error:
        raise UserError(f"{where}: {error!s:.100}; {fix}") from error


def _check(change: Change, shape: tuple[int, ...], other_model: str) -> None:
    """Raises UserError if the shapes of a change do not fit, or it holds NaN or infinity."""
    try:
        change.check(shape)
    except UserError as error:
        raise UserError(f"{error}{other_model}") from error
    for part, tensor in change.parts.items():
        if not np.isfinite(tensor.read().astype(np.float32)).all():
            raise UserError(f"{part} holds NaN or infinity; download the file again")


def _other_model(parts: Mapping[str, Mapping[str, Tensor]], config: DiTConfig) -> str:
    """Says which model a file seems to be for, if that is another one."""
    for module, of_module in parts.items():
        if "up" in of_module and re.search(r"self_attn[._]q$|attn1[._]to_q$", module):
            width = of_module["up"].shape[0]
            if width != config.dim:
                name = f", that of {_WIDTHS[width]}" if width in _WIDTHS else ""
                return f"; the file is for a width of {width}{name}, this model has {config.dim}"
    return f"; this model has {config.num_layers} blocks of width {config.dim}"
