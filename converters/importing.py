"""Import of PyTorch checkpoints: Wan2.2 folders and single files become components.

All components are planned and checked before anything is written, and every problem is reported,
including NaN and infinity.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import ADAPTERS, DiTConfig, SamplingConfig
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.file_formats import require_format
from flashmotion_jax.runtime.json_files import read_json_object

from . import adapters, dit, text_encoder, vae
from .folders import Folder, locate, open_folder
from .mapping import (
    Entry,
    Row,
    find_bad_values,
    find_problems,
    make_entries,
    override,
)
from .reader import read_file
from .recognition import conventions_of, recognize, select_weights, strip_prefixes
from .tensors import StateDict

TABLES: Mapping[str, Any] = {"dit": dit, "vae": vae, "text_encoder": text_encoder}


@dataclasses.dataclass(frozen=True)
class Names:
    """A user's table of names.

    Attributes:
      keys: Path of a parameter here, or a regular expression for several -> key in the file.
      ignore: Regular expressions of keys to ignore.
    """

    keys: Mapping[str, str]
    ignore: Sequence[str]


NO_NAMES = Names({}, ())


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
    """

    kind: str
    config: Any
    dit_config: DiTConfig | None
    dtype: str
    entries: Sequence[Entry]
    source: StateDict

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
                {entry.target: functools.partial(read, entry) for entry in self.entries},
                self.dtype,
                dit_config=self.dit_config,
                overwrite=overwrite,
            )


def convert_wan22(
    source: str,
    destination: Path,
    *,
    kinds: Sequence[str],
    dtype: str,
    overwrite: bool,
    conventions: str | None = None,
) -> str:
    """Imports a Wan2.2 folder in either layout.

    Args:
      source: Folder, or `owner/name` on the Hugging Face Hub.
      destination: New folder, or a checkpoint to add to.
      kinds: Some of "dit", "vae" and "text_encoder", which includes the tokenizer.
      dtype: To store matmul and convolution weights in.
      overwrite: Replace existing components.
      conventions: How a DiT is sampled, a name in `config.CONVENTIONS`; by default "wan22".

    Returns:
      A line that says what was written.

    Raises:
      UserError: Source or destination cannot be used; the message lists every problem.
      OSError: The download failed, or the disk is full.
    """
    require_free(destination, kinds, overwrite)
    folder = open_folder(locate(source, kinds))
    tokenizer = folder.tokenizer if "text_encoder" in kinds else None
    problems = _tokenizer_problems(tokenizer) if tokenizer else []
    plans = []
    for kind in kinds:
        try:
            plans.append(plan_folder(folder, kind, dtype))
        except ValueError as error:
            problems.append(f"{kind}: {error}")
    _require_no_problems(problems, plans)
    written = _write(destination, plans, conventions or "wan22", overwrite, tokenizer)
    return f"wrote {', '.join(kinds)} ({dtype}) to {destination}{written}"


def convert_file(
    source: str,
    destination: Path,
    *,
    dtype: str,
    overwrite: bool,
    weights: str = "ema",
    component: str | None = None,
    names: Names | None = None,
    conventions: str | None = None,
) -> str:
    """Imports one file: a generator or adapter of FlashMotion, or any single component.

    Args:
      source: File, or `owner/name/file` on the Hugging Face Hub.
      destination: New folder, or a checkpoint to add to.
      dtype: To store matmul and convolution weights in.
      overwrite: Replace the component if it exists.
      weights: "ema" or "raw", of a training checkpoint with both.
      component: Kind of component; by default it is recognized by its keys.
      names: The user's table, which takes precedence over ours.
      conventions: How a DiT is sampled, a name in `config.CONVENTIONS`; by default that of
        `conventions_of`.

    Returns:
      A line that says what was written.

    Raises:
      UserError: Source or destination cannot be used; the message lists every problem.
      OSError: The download failed, or the disk is full.
    """
    tensors = open_file(locate(source, ()), weights)
    dit_config = DiTConfig()
    if (destination / "dit").is_dir():
        dit_config = components.read_component(destination, "dit").config
    plan = plan_file(tensors, dit_config, dtype, component, names)
    require_free(destination, [plan.kind], overwrite)
    _require_no_problems([], [plan])
    written = _write(destination, [plan], conventions or conventions_of(source), overwrite)
    return f"wrote {plan.kind} ({dtype}) to {destination}{written}"


def open_file(file: Path, weights: str = "ema") -> StateDict:
    """Opens a single file, with prefixes removed from its keys; see `recognition`."""
    return strip_prefixes(select_weights(read_file(file), weights))


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
    return _plan(kind, config, None, dtype, TABLES[kind].table(config, folder.layout), source)


def plan_file(
    source: StateDict,
    dit_config: DiTConfig,
    dtype: str,
    component: str | None = None,
    names: Names | None = None,
) -> Plan:
    """Plans the component in a single file.

    Args:
      source: State dict from `open_file`.
      dit_config: Configuration of a generator, or of the DiT that an adapter belongs to.
      dtype: To store matmul and convolution weights in.
      component: Kind of component; by default it is recognized by its keys.
      names: The user's table, which takes precedence over ours.

    Raises:
      UserError: The file is not recognized, or the user's table does not match.
    """
    kind, layout = (component, "original") if component else recognize(source)
    names = names or NO_NAMES
    source = {
        key: tensor
        for key, tensor in source.items()
        if not any(re.fullmatch(pattern, key) for pattern in names.ignore)
    }
    if kind not in TABLES:
        return _plan_adapter(kind, source, dit_config, dtype, names)
    table = TABLES[kind]
    config = dit_config if kind == "dit" else table.read_config(source, {}, layout)
    return _plan(kind, config, None, dtype, table.table(config, layout), source, names)


def read_names(file: Path) -> Names:
    """Reads a user's table: JSON of path -> key in the file, and keys to `ignore`.

    Raises:
      UserError: The file is missing or has another form.
    """
    expected = 'expected JSON such as {"stem.bias": "conv_in.bias", "ignore": ["freqs"]}'
    keys = read_json_object(file, expected)
    ignore = keys.pop("ignore", [])
    try:
        for pattern in (*keys, *ignore):
            re.compile(pattern)
        if not all(isinstance(key, str) for key in keys.values()):
            raise TypeError("a key is not a string")
    except (TypeError, re.error) as error:
        raise UserError(f"{file} is not a table of names ({error}); {expected}") from error
    return Names(keys, ignore)


def _plan_adapter(
    kind: str, source: StateDict, dit_config: DiTConfig, dtype: str, names: Names
) -> Plan:
    name = kind.removeprefix("adapters/")
    rows = adapters.table(name, dit_config, source)
    guess = _plan(kind, ADAPTERS[name].config(), dit_config, dtype, rows, source, names)
    config = adapters.read_config(name, guess.entries, source, dit_config)
    return _plan(kind, config, dit_config, dtype, rows, source, names)


def _plan(
    kind: str,
    config: Any,
    dit_config: DiTConfig | None,
    dtype: str,
    rows: Sequence[Row],
    source: StateDict,
    names: Names = NO_NAMES,
) -> Plan:
    module = components.abstract_module(kind, config, dtype, dit_config)
    parameters = components.flat_parameters(module)
    rows = override(parameters, rows, names.keys)
    # The projections of an adapter may be linear layers or convolutions of size one.
    is_guess = dit_config is not None
    entries = make_entries(parameters, rows, source if is_guess else None)
    return Plan(kind, config, dit_config, dtype, entries, source)


def _tokenizer_problems(folder: Path) -> list[str]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return [f"tokenizer: {file} is missing"]
    try:
        require_format(file, ("json",), "the table of a tokenizer")
    except UserError as error:
        return [f"tokenizer: {error}"]
    return []


def _require_no_problems(problems: list[str], plans: Sequence[Plan]) -> None:
    problems = problems + [
        problem for plan in plans for problem in (*plan.problems(), *plan.bad_values())
    ]
    if problems:
        raise UserError(
            f"{len(problems)} problems; nothing was written:\n  "
            + "\n  ".join(problems)
            + "\n`flashmotion convert inspect SRC` lists the contents; pass custom names with "
            "--map"
        )


def require_free(destination: Path, kinds: Sequence[str], overwrite: bool) -> None:
    """Checks that components can be written to a new folder, or be added to a checkpoint.

    Raises:
      UserError: The folder holds something else, or has one of the components.
    """
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if not (destination / "model.json").is_file():
        raise UserError(
            f"{destination} exists and is not a checkpoint of this project; choose another folder"
        )
    components.read_sampling(destination)
    taken = [kind for kind in kinds if (destination / kind).exists()]
    if taken and not overwrite:
        raise UserError(f"{destination} has {', '.join(taken)}; add --overwrite to replace them")


def _write(
    destination: Path,
    plans: Sequence[Plan],
    conventions: str,
    overwrite: bool,
    tokenizer: Path | None = None,
) -> str:
    """Writes the components; returns a line about how a DiT among them is sampled, or nothing."""
    with _opened(destination) as folder:
        sampling = SamplingConfig()
        if (folder / "model.json").is_file():
            sampling = components.read_sampling(folder)
        for plan in plans:
            plan.write(folder, overwrite)
        if tokenizer:
            components.save_tokenizer(folder, tokenizer)
        has_dit = any(plan.kind == "dit" for plan in plans)
        if has_dit:
            sampling = sampling.with_conventions(conventions)
        components.write_sampling(folder, sampling)
    return f"\nsampled as {conventions}: {sampling}" if has_dit else ""


@contextmanager
def _opened(destination: Path) -> Generator[Path]:
    """Yields the checkpoint to add to, or a scratch folder that becomes a new one when complete."""
    if (destination / "model.json").is_file():
        yield destination
    else:
        with replacing(destination) as scratch:
            yield scratch
