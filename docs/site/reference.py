"""The reference: a page with the names of `flashmotion_jax`, a page for each package, the commands.

Pages name modules; Sphinx fills in the docstrings. Modules are found in the source tree, so that a
new one is in the reference.
"""

from __future__ import annotations

import argparse
import ast
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: The public names of `flashmotion_jax`, by task.
PUBLIC = {
    "Generating videos": ("Pipeline", "SamplingConfig"),
    "Trajectories": ("Trajectory", "TrackedObject", "Keyframe", "load_maps"),
    "Models": ("load_models", "Models"),
    "Evaluation": ("evaluate", "EvaluateConfig"),
    "Video files": ("read_video", "write_video"),
}


@functools.cache
def modules() -> dict[str, Path]:
    """File of each public module, by name; packages come before their modules."""
    found = {}
    for folder in ("flashmotion_jax", "configs", "converters"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if folder != "flashmotion_jax":
                parts = ("flashmotion_jax", *parts)
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if not parts[-1].startswith("_") and parts != ("flashmotion_jax",):
                found[".".join(parts)] = path
    return dict(sorted(found.items()))


def packages() -> dict[str, list[str]]:
    """Modules of each package, without its subpackages."""
    known = modules()
    found: dict[str, list[str]] = {
        name: [] for name, path in known.items() if path.name == "__init__.py"
    }
    for name, path in known.items():
        if path.name != "__init__.py":
            found[name.rpartition(".")[0]].append(name)
    return found


def definitions(name: str) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Public classes and functions that a module defines."""
    for node in ast.parse(modules()[name].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def public_names() -> Iterator[str]:
    """Full names of all public classes and functions, where they are defined."""
    for name in modules():
        yield from (f"{name}.{node.name}" for node in definitions(name))


def summary(name: str) -> str:
    """First paragraph of a module's docstring in one line, as reStructuredText."""
    text = ast.get_docstring(ast.parse(modules()[name].read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def heading(text: str, character: str) -> str:
    """A heading of reStructuredText."""
    return f"{text}\n{character * len(text)}\n\n"


def automodule(name: str) -> str:
    """The docstring and members of a module. Packages do not repeat what they import."""
    special = "   :special-members: __call__\n   :show-inheritance:\n   :ignore-module-all:\n"
    text = f".. automodule:: {name}\n   :members:\n{special}\n"
    # Compiled functions are objects of JAX, which automodule leaves out.
    for node in definitions(name):
        decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
        if re.search(r"\b(jit|program|custom_vjp|custom_jvp)\b", decorators):
            text += f".. autofunction:: {name}.{node.name}\n\n"
    return text


def package_page(name: str, names: list[str]) -> str:
    """The reference of a package: a section for each module."""
    text = heading(name.removeprefix("flashmotion_jax."), "=") + automodule(name)
    for module in names:
        text += heading(module.removeprefix("flashmotion_jax."), "-") + automodule(module)
    return text


def public_page() -> str:
    """The names of `flashmotion_jax` by task, and the list of packages."""
    text = heading("Python API", "=")
    text += "These names are stable and can be imported from the package itself::\n\n"
    text += "   import flashmotion_jax as fm\n\n.. currentmodule:: flashmotion_jax\n\n"
    for task, names in PUBLIC.items():
        text += heading(task, "-")
        for name in names:
            kind = "autofunction" if name[0].islower() else "autoclass"
            text += f".. {kind}:: flashmotion_jax.{name}\n"
            text += "   :members:\n   :special-members: __call__\n" * (kind == "autoclass") + "\n"
    text += heading("All packages", "-")
    text += "Everything else may change between versions.\n\n.. list-table::\n   :widths: 30 70\n\n"
    for name in packages():
        short = name.removeprefix("flashmotion_jax.")
        text += f"   * - :doc:`{short} <api/{short}>`\n     - {summary(name)}\n"
    toctree = "".join(f"   api/{name.removeprefix('flashmotion_jax.')}\n" for name in packages())
    return f"{text}\n.. toctree::\n   :hidden:\n\n{toctree}"


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                yield from commands(child)


def command_page() -> str:
    """`--help` of every command."""
    os.environ["COLUMNS"] = "96"
    from flashmotion_jax.cli.main import build_parser

    text = "# Command line\n\nEvery command prints this text with `--help`. Exit status: 0 for "
    text += "success, 1 for a failure, 2 for invalid arguments or input.\n\n"
    for parser in commands(build_parser()):
        level = "##" if parser.prog.count(" ") < 2 else "###"
        text += f"{level} `{parser.prog}`\n\n```text\n{parser.format_help()}```\n\n"
    return text


def pages() -> dict[str, str]:
    """Source of each page of the reference, by file name."""
    found = {"api.rst": public_page(), "cli.md": command_page()}
    for name, names in packages().items():
        found[f"api/{name.removeprefix('flashmotion_jax.')}.rst"] = package_page(name, names)
    return found
