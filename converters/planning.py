"""Plans: which tensors become which parameters of a component, and what does not fit."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.eight_bits import policy_of
from flashmotion_jax.config import DiTConfig
from flashmotion_jax.config.serialise import with_overrides
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import read_json_object

from . import adapters, dit, spiece, text_encoder, tiny_vae, vae
from .folders import Folder
from .mapping import Entry, Row, find_bad_values, find_problems, make_entries, override
from .names import Names
from .quantized import stored_readers
from .recognition import Contents, Part
from .tensors import StateDict, Tensor
from .wrappers import is_training

TABLES: Mapping[str, Any] = {
    "dit": dit,
    "vae": vae,
    "tiny_vae": tiny_vae,
    "text_encoder": text_encoder,
}

#: Keys beside the weights of a component that have a use of their own.
LEFT_OUT = {"text_encoder": (spiece.TENSOR,)}

#: Keys of buffers that are computed anew, as regular expressions.
BUFFERS = (r"(.*\.)?(freqs|freqs_cos|freqs_sin|inv_freq|_extra_state|n_averaged)",)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A component to write, and the tensors that it is made from.

    Attributes:
      kind: One of `components.kinds()`.
      config: Configuration of the component.
      dit_config: For an adapter, the DiT that it belongs to.
      dtype: To store matmul and convolution weights in.
      entries: One per parameter.
      source: State dict of the component.
      notices: A line for everything that was left out or assumed.
    """

    kind: str
    config: Any
    dit_config: DiTConfig | None
    dtype: str
    entries: Sequence[Entry]
    source: StateDict
    notices: Sequence[str] = ()

    def problems(self) -> list[str]:
        """Lists every difference between the tensors and the component, except values."""
        aliases = text_encoder.ALIASES if self.kind == "text_encoder" else ()
        return [
            f"{self.kind}: {problem}"
            for problem in find_problems(self.entries, self.source, aliases)
        ]

    def bad_values(self) -> Iterator[str]:
        """Yields a line per tensor that contains NaN or infinity; reads all tensors."""
        for entry in tqdm(self.entries, f"checking {self.kind}", disable=None):
            for problem in find_bad_values(entry, self.source):
                yield f"{self.kind}: {problem}"

    def write(self, folder: Path, overwrite: bool) -> None:
        """Writes the component into a checkpoint."""
        with tqdm(total=len(self.entries), desc=f"writing {self.kind}", disable=None) as bar:

            def read(entry: Entry) -> np.ndarray:
                bar.update()
                return entry.gather(self.source)

            components.save_component(
                folder,
                self.kind,
                self.config,
                self._readers(read),
                self.dtype,
                dit_config=self.dit_config,
                overwrite=overwrite,
            )

    def _readers(self, read: Callable[[Entry], np.ndarray]) -> components.Readers:
        """A reader of each parameter, or of a weight and its scale as they are in the file."""
        readers: dict[str, Callable[[], np.ndarray]] = {}
        for entry in self.entries:
            own = {entry.target: functools.partial(read, entry)}
            readers |= stored_readers(entry, self.source, self.stored_dtype) or own
        return readers

    @property
    def stored_dtype(self) -> str:
        """That of the component: `dtype`, or floats where it has nothing in 8 bits."""
        return str(policy_of(self.kind, self.dtype).params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a file's components besides their tensors.

    Attributes:
      dtype: To store matmul and convolution weights in.
      dit: Configuration of the DiT that adapters belong to, and of what the shapes of a DiT do not
        tell.
      has_dit: Whether that DiT is there; if not, an adapter that copies it tells its sizes.
      values: Content of a `config.json` beside the file, of any component, or empty.
      names: The user's table, which takes precedence over ours.
      assignments: Fields of an adapter's configuration that the file does not tell, `key=value`.
    """

    dtype: str
    dit: DiTConfig = dataclasses.field(default_factory=DiTConfig)
    has_dit: bool = False
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    names: Names = dataclasses.field(default_factory=Names)
    assignments: Sequence[str] = ()


def plan_folder(folder: Folder, kind: str, dtype: str) -> Plan:
    """Plans one component of a folder.

    Args:
      folder: Folder in a known layout.
      kind: "dit", "vae" or "text_encoder".
      dtype: To store matmul and convolution weights in.

    Raises:
      UserError: A file is missing, damaged, or of another model.
    """
    source, values = folder.read(kind)
    config = TABLES[kind].read_config(source, values, folder.layout)
    rows = TABLES[kind].table(config, folder.layout)
    return _plan(kind, config, None, Known(dtype=dtype), rows, source)


def plan_contents(contents: Contents, known: Known) -> list[Plan]:
    """Plans all components in a single file, the DiT first, as adapters depend on it.

    Raises:
      UserError: A component is of another model, or the user's table does not match.
    """
    plans = []
    for part in sorted(contents.parts, key=lambda part: part.kind != "dit"):
        plan = plan_part(part, known)
        if part.kind == "dit":
            known = dataclasses.replace(known, dit=plan.config, has_dit=True)
        plans.append(plan)
    return plans


def plan_part(part: Part, known: Known) -> Plan:
    """Plans one component in a single file.

    Raises:
      UserError: It is of another model, or the user's table does not match.
    """
    source = {
        key: tensor
        for key, tensor in part.tensors.items()
        if not known.names.is_ignored(key) and not known.names.is_ignored(part.prefix + key)
    }
    if part.kind in TABLES:
        if part.kind == "dit":
            dit.require_ours(source)
        table = TABLES[part.kind]
        config = table.from_shapes(source, part.layout, _base(part, known))
        rows = table.table(config, part.layout)
        return _plan(part.kind, config, None, known, rows, source, LEFT_OUT.get(part.kind, ()))
    name = part.kind.removeprefix("adapters/")
    dit_config = known.dit if known.has_dit else adapters.dit_config(name, source, known.dit)
    config, notices = adapters.read_config(name, source, dit_config)
    config = with_overrides(config, known.assignments)
    rows = adapters.table(name, config, dit_config, source)
    plan = _plan(part.kind, config, dit_config, known, rows, source, adapters.NAMES[name].left_out)
    return dataclasses.replace(plan, notices=[*notices, *plan.notices])


def _base(part: Part, known: Known) -> Any:
    """What the shapes of a component do not tell: of its `config.json`, or as published."""
    layout = part.layout if part.kind == "dit" else "diffusers"
    try:
        return TABLES[part.kind].read_config(part.tensors, known.values, layout)
    except (UserError, TypeError, AttributeError):  # of another component, or damaged
        return known.dit if part.kind == "dit" else components.component_classes(part.kind)[0]()


def read_values(file: Path) -> dict[str, Any]:
    """Content of the `config.json` beside a file, which may be another component's; else empty."""
    beside = file.with_name("config.json")
    try:
        return read_json_object(beside, "a configuration") if beside.is_file() else {}
    except UserError:
        return {}


def _plan(
    kind: str,
    config: Any,
    dit_config: DiTConfig | None,
    known: Known,
    rows: Sequence[Row],
    source: StateDict,
    left_out: Sequence[str] = (),
) -> Plan:
    # Weights in 8 bits are rounded from floats, in `save_component`.
    policy = policy_of(kind, known.dtype).without_eight_bits
    module = components.abstract_module(kind, config, policy, dit_config)
    parameters = components.flat_parameters(module)
    rows = override(parameters, rows, known.names.keys)
    # The projections of an adapter may be linear layers or convolutions of size one.
    is_guess = dit_config is not None
    entries = make_entries(parameters, rows, source if is_guess else None)
    wanted = {key: entry for entry in entries for key in entry.keys}
    extra = {key for key in source.keys() - wanted if _is_left_out(key, (*left_out, *BUFFERS))}
    flat = {
        key: reshaped
        for key, entry in wanted.items()
        if key in source and (reshaped := _unflatten(source[key], entry.source_shape))
    }
    shown = sorted(extra - {spiece.TENSOR})
    notices = [f"left out of {kind}: {_count(shown)}"] if shown else []
    notices += [f"stored flat in the file: {key}" for key in flat]
    source = {key: flat.get(key, tensor) for key, tensor in source.items() if key not in extra}
    return Plan(kind, config, dit_config, known.dtype, entries, source, notices)


def _is_left_out(key: str, patterns: Sequence[str]) -> bool:
    return is_training(key.partition(".")[0]) or any(
        re.fullmatch(pattern, key) for pattern in patterns
    )


def _count(keys: Sequence[str]) -> str:
    first = f"{', '.join(keys[:3])}{', ...' if keys[3:] else ''}"
    return f"{len(keys)} tensor{'s' if len(keys) > 1 else ''}, {first}"


def _unflatten(tensor: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """The tensor in the shape of a kernel of convolution whose axes are merged, or None."""
    is_flat = tensor.shape != shape and math.prod(tensor.shape) == math.prod(shape)
    if len(shape) < 4 or len(tensor.shape) < 2 or not is_flat:
        return None
    return Tensor(shape, tensor.dtype, lambda: tensor.read().reshape(shape))
