"""Import of PyTorch checkpoints: Wan2.2 folders and single files become components.

All components are planned and checked before anything is written, and every problem is reported,
including NaN and infinity.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import DiTConfig, SamplingConfig
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.file_formats import require_format
from flashmotion_jax.runtime.lock import sole_writer

from . import spiece
from .folders import Folder, open_folder
from .integrity import require_intact
from .names import Names
from .planning import Known, Plan, plan_contents, plan_folder, read_values
from .quantized import dequantize
from .reader import read_weights
from .recognition import Contents, conventions_of, recognize
from .sources import locate
from .tensors import WeightFile

#: Problems that an error lists; a file of another model has one for each tensor.
MAX_PROBLEMS = 50

Options = ParamSpec("Options")


def _alone(
    convert: Callable[Concatenate[str, Path, Options], str],
) -> Callable[Concatenate[str, Path, Options], str]:
    """Lets a conversion lock its destination, a new one beside it, as it appears at the end."""

    @functools.wraps(convert)
    def run(source: str, destination: Path, *args: Options.args, **kwargs: Options.kwargs) -> str:
        is_new = not (destination / "model.json").is_file()
        with sole_writer(destination, beside=is_new):
            return convert(source, destination, *args, **kwargs)

    return run


@_alone
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
      kinds: Some of "dit", "vae", "text_encoder", which includes the tokenizer, and "tokenizer".
        Of a folder with one component, only that one counts.
      dtype: To store matmul and convolution weights in.
      overwrite: Replace existing components.
      conventions: How a DiT is sampled, a name in `config.CONVENTIONS`; by default "wan22".

    Returns:
      A line that says what was written.

    Raises:
      UserError: Source or destination cannot be used; the message lists every problem.
      OSError: The download failed, or the disk is full.
    """
    if not Path(source).exists():  # before a download
        require_free(destination, kinds, overwrite)
    folder = open_folder(locate(source, kinds))
    kinds = _choose_kinds(folder, kinds)
    require_free(destination, kinds, overwrite)
    tokenizer = folder.tokenizer if {"text_encoder", "tokenizer"} & set(kinds) else None
    problems = _tokenizer_problems(tokenizer) if tokenizer else []
    plans = []
    for kind in (kind for kind in kinds if kind != "tokenizer"):
        try:
            plans.append(plan_folder(folder, kind, dtype))
        except ValueError as error:
            problems.append(f"{kind}: {error}")
    _require_no_problems(problems, plans)
    written = _write(destination, plans, conventions or "wan22", overwrite, tokenizer)
    notices = [] if tokenizer else _missing_tokenizer(kinds, destination)
    return "\n".join([*notices, f"wrote {', '.join(kinds)} ({dtype}) to {destination}{written}"])


@_alone
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
    assignments: Sequence[str] = (),
) -> str:
    """Imports one file: the generator or adapters of FlashMotion, or any other components.

    Args:
      source: File, or `owner/name/file` on the Hugging Face Hub.
      destination: New folder, or a checkpoint to add to.
      dtype: To store matmul and convolution weights in.
      overwrite: Replace the component if it exists.
      weights: "ema" or "raw", of a training checkpoint with both.
      component: Kind of component; by default all are recognized by their keys.
      names: The user's table, which takes precedence over ours.
      conventions: How a DiT is sampled, a name in `config.CONVENTIONS`; by default that of
        `conventions_of`.
      assignments: Fields of an adapter's configuration that the file does not tell, `key=value`.

    Returns:
      A line for everything that was left out or assumed, and one that says what was written.

    Raises:
      UserError: Source or destination cannot be used; the message lists every problem.
      OSError: The download failed, or the disk is full.
    """
    names = names or Names()
    path = locate(source, ())
    file = read_weights(path)
    contents = find_components(file, weights, component, names)
    known = Known(
        dtype=dtype,
        dit=_dit_config(destination),
        has_dit=(destination / "dit").is_dir(),
        values=read_values(path),
        names=names,
        assignments=assignments,
    )
    plans = plan_contents(contents, known)
    plans, notices = _choose_new(plans, destination, overwrite)
    kinds = [plan.kind for plan in plans]
    problems = [f"unused: {key}" for key in contents.unused if not names.is_ignored(key)]
    require_free(destination, kinds, overwrite)
    _require_no_problems(problems, plans)
    with _tokenizer_of(contents, file) as tokenizer:
        written = _write(
            destination, plans, conventions or conventions_of(source), overwrite, tokenizer
        )
    notices = [*contents.notices, *notices, *(line for plan in plans for line in plan.notices)]
    notices += _missing_tokenizer(kinds, destination)
    wrote = f"wrote {', '.join(kinds)} ({dtype}) to {destination}{written}"
    return "\n".join([*notices, wrote])


def find_components(
    file: WeightFile, weights: str, component: str | None, names: Names
) -> Contents:
    """Finds the components in a single file; see `recognition`."""
    return recognize(dequantize(file), weights=weights, component=component, prefix=names.prefix)


@contextmanager
def _tokenizer_of(contents: Contents, file: WeightFile) -> Generator[Path | None]:
    """Yields a temporary folder with the tokenizer in a file of a text encoder, or None."""
    parts = [part for part in contents.parts if part.kind == "text_encoder"]
    model = spiece.find_model(parts[0].tensors, file.metadata) if parts else None
    if model is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        spiece.write_tokenizer(Path(folder), model)
        yield Path(folder)


def _missing_tokenizer(kinds: Sequence[str], destination: Path) -> list[str]:
    if "text_encoder" not in kinds or (destination / "tokenizer").exists():
        return []
    return [
        "the text encoder has no tokenizer yet: `flashmotion convert import "
        f"Wan-AI/Wan2.2-TI2V-5B {destination} --only tokenizer` adds it"
    ]


def _choose_kinds(folder: Folder, kinds: Sequence[str]) -> list[str]:
    there = [kind for kind in kinds if kind in (*folder.files, "tokenizer")]
    if not there:
        raise UserError(
            f"{folder.path} holds only {', '.join(folder.files)}; expected {', '.join(kinds)}"
        )
    return there


def _dit_config(destination: Path) -> DiTConfig:
    """The DiT of a checkpoint to add to, or that of Wan2.2-TI2V-5B."""
    if (destination / "dit").is_dir():
        return components.read_component(destination, "dit").config
    return DiTConfig()


def _choose_new(
    plans: Sequence[Plan], destination: Path, overwrite: bool
) -> tuple[list[Plan], list[str]]:
    """Leaves out what a checkpoint already has, if the file holds something new too."""
    new = [plan for plan in plans if overwrite or not (destination / plan.kind).exists()]
    if not new:
        return list(plans), []
    return new, [
        f"left out: {plan.kind}, as {destination} has one; --overwrite replaces it"
        for plan in plans
        if plan not in new
    ]


def _tokenizer_problems(folder: Path) -> list[str]:
    file = folder / "tokenizer.json"
    if not file.is_file():
        return [f"tokenizer: {file} is missing"]
    try:
        require_format(file, ("json",), "the table of a tokenizer")
        for part in folder.iterdir():
            require_intact(part)
    except UserError as error:
        return [f"tokenizer: {error}"]
    return []


def _require_no_problems(problems: list[str], plans: Sequence[Plan]) -> None:
    problems = problems + [
        problem for plan in plans for problem in (*plan.problems(), *plan.bad_values())
    ]
    if problems:
        # Wrong shapes first: missing layers may only follow from other sizes.
        ordered = sorted(problems, key=lambda problem: ": shape: " not in problem)
        shown = [problem[:300] for problem in ordered[:MAX_PROBLEMS]]
        if more := len(problems) - len(shown):
            shown.append(f"and {more} more")
        raise UserError(
            f"{len(problems)} problems; nothing was written:\n  "
            + "\n  ".join(shown)
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
