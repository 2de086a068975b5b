"""Inspection: what a file or folder contains, and how the converter would import it."""

from __future__ import annotations

from pathlib import Path

from flashmotion_jax.checkpoints import components
from flashmotion_jax.config import SamplingConfig, to_dict
from flashmotion_jax.runtime.errors import UserError

from .folders import LAYOUTS, Folder, open_folder
from .lora_keys import is_lora
from .names import Names
from .nearest import describe_nearest
from .planning import Known, Plan, plan_contents, plan_folder, read_values
from .quantized import dequantize
from .reader import read_weights
from .recognition import conventions_of, recognize
from .sources import locate
from .tensors import StateDict


def inspect(source: str, *, component: str | None, names: Names | None) -> str:
    """Describes a file or folder.

    Args:
      source: File or folder, or its name on the Hugging Face Hub.
      component: Kind of component in a file; by default it is recognized by its keys.
      names: The user's table, which takes precedence over ours.

    Returns:
      A line per tensor, followed by the recognized component, its problems, and the conventions
      that a DiT would be sampled with; of a checkpoint of this project, what it consists of.

    Raises:
      UserError: The source cannot be read.
    """
    if (Path(source) / "model.json").is_file():
        return _describe_checkpoint(Path(source))
    path = locate(source, LAYOUTS["original"])
    if path.is_dir():
        folder = open_folder(path)
        return "\n\n".join(_describe_part(folder, kind) for kind in folder.files)
    file = read_weights(path)
    listing = _list(file.tensors)
    names = names or Names()
    known = Known(dtype="bfloat16", values=read_values(path), names=names)
    try:
        tensors = dequantize(file)
    except UserError as error:
        return f"{listing}\n{error}"
    try:
        contents = recognize(tensors, component=component, prefix=names.prefix)
        plans = plan_contents(contents, known)
    except UserError as error:
        nearest = "" if is_lora(tensors) else f"\n{describe_nearest(tensors, known)}"
        return f"{listing}\n{error}{nearest}"
    unused = [f"unused: {key}" for key in contents.unused if not names.is_ignored(key)]
    lines = [f"{_summarize(plan)}{_sampled(plan, conventions_of(source))}" for plan in plans]
    if any(plan.problems() for plan in plans):
        lines.append(describe_nearest(tensors, known))
    return "\n".join([listing, *lines, *unused, *contents.notices])


def _describe_checkpoint(path: Path) -> str:
    sampling = components.read_sampling(path)
    there = [kind for kind in components.kinds() if (path / kind / "config.json").is_file()]
    parts = [(kind, components.read_component(path, kind)) for kind in there]
    lines = [f"{kind}: {part.config} ({part.dtype})" for kind, part in parts]
    fields = [f"  {name}: {value!r}" for name, value in to_dict(sampling).items()]
    return "\n".join([*lines, f"sampled as: {sampling}", *fields])


def _describe_part(folder: Folder, kind: str) -> str:
    try:
        plan = plan_folder(folder, kind, "bfloat16")
    except UserError as error:
        return f"{kind}: {error}"
    return f"{_list(plan.source)}\n{_summarize(plan)}{_sampled(plan, 'wan22')}"


def _list(source: StateDict) -> str:
    return "\n".join(
        f"{key}  {list(tensor.shape)}  {tensor.dtype}" for key, tensor in source.items()
    )


def _summarize(plan: Plan) -> str:
    used = {key for entry in plan.entries for key in entry.keys} & plan.source.keys()
    problems = plan.problems()
    lines = [
        f"looks like {plan.kind}: {plan.config}",
        f"{len(used)} of {len(plan.source)} tensors are used, {len(problems)} problems",
        *problems,
        *plan.notices,
    ]
    return "\n".join(lines)


def _sampled(plan: Plan, conventions: str) -> str:
    if plan.kind != "dit":
        return ""
    return f"\nsampled as {conventions}: {SamplingConfig().with_conventions(conventions)}"
