"""Loading of configuration files: those of `configs/` by name, any other by its path."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import itertools
import sys
import traceback
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TypeVar

from flashmotion_jax.config.adapters import ADAPTERS
from flashmotion_jax.runtime.errors import UserError

Config = TypeVar("Config")

_COUNTER = itertools.count()


def load_config(name: str, kind: type[Config]) -> Config:
    """Runs a configuration file and returns what its `get_config` builds.

    Args:
      name: path of a file, which ends in `.py`, or the name of an installed configuration, such as
        `stage2` or `sprites/stage2`. Text after a colon is passed to `get_config`, for instance
        `stage3_vc:ADAPTER`; an adapter may also follow an underscore, `stage3_vc_ADAPTER`.
      kind: type of configuration that is expected, for instance `TrainConfig`.

    Raises:
      UserError: the file does not exist or raises an error, or it builds something else.
    """
    path, argument = _find(name)
    try:
        get_config = getattr(_run(path), "get_config", None)
        if not callable(get_config):
            raise UserError(f"{name} is not a configuration: {path} defines no function get_config")
        if argument and not inspect.signature(get_config).parameters:
            raise UserError(f"{name}: this configuration takes no text after a colon; leave it out")
        config = get_config(argument) if argument else get_config()
    except UserError:
        raise
    except Exception as error:  # a configuration file is input, whatever it raises
        raise UserError(f"{name} is not a configuration: {_describe(error, path)}") from error
    if not isinstance(config, kind):
        raise UserError(f"{name} builds a {type(config).__name__}; expected a {kind.__name__}")
    return config


def installed_names() -> list[str]:
    """Lists the names of the configurations that come with the package."""
    folder = _installed_folder()
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix()
        for path in folder.rglob("*.py")
        if "def get_config" in path.read_text(encoding="utf-8")
    )


def _installed_folder() -> Path:
    spec = importlib.util.find_spec("flashmotion_jax.configs")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("this installation lacks flashmotion_jax.configs; install it again")
    return Path(next(iter(spec.submodule_search_locations)))


def _find(name: str) -> tuple[Path, str]:
    """Returns the path of a configuration and the argument of its `get_config`."""
    text, _, argument = name.partition(":")
    path = Path(text) if text.endswith(".py") else _installed_folder() / f"{text}.py"
    if path.is_file():
        return path, argument
    stem, _, adapter = path.stem.rpartition("_")
    if adapter in ADAPTERS and path.with_stem(stem).is_file():
        return path.with_stem(stem), adapter
    if text.endswith(".py"):
        there = sorted(file.name for file in path.parent.glob("*.py"))
        hint = f"{path.parent} has {', '.join(there)}" if there else f"{path.parent} has none"
        raise UserError(f"no configuration at {path}; {hint}")
    names = installed_names()
    near = difflib.get_close_matches(text, names, n=3)
    hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(names)}"
    raise UserError(f"no configuration is called {text}; {hint}; or give a path that ends in .py")


def _run(path: Path) -> types.ModuleType:
    """Executes a file as a member of a package that no other load shares.

    The package is the folder `configs` that the file is in, or else the file's own folder, so that
    `from .common import ...` reads what lies beside the file: two checkouts in one process never
    see each other's modules, and a folder's name never shadows another package.
    """
    path = path.resolve()
    root = next((folder for folder in path.parents if folder.name == "configs"), path.parent)
    package = f"_flashmotion_configs_{next(_COUNTER)}"
    spec = ModuleSpec(package, None, is_package=True)
    spec.submodule_search_locations = [str(root)]
    sys.modules[package] = importlib.util.module_from_spec(spec)
    importlib.invalidate_caches()  # files may be newer than the cached listing of their folder
    parts = path.relative_to(root).with_suffix("").parts
    name = ".".join([package, *(part.replace(".", "_") for part in parts)])
    module = types.ModuleType(name)
    module.__file__, module.__package__ = str(path), name.rpartition(".")[0]
    # Dataclasses look up the module of their class. It stays, as later overrides need it too.
    sys.modules[name] = module
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    return module


def _describe(error: Exception, path: Path) -> str:
    """Returns the type and message of an error, and the last line of the user's code in it."""
    folder = path.resolve().parent
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if folder in Path(frame.filename).parents
    ]
    place = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""
    return f"{place}{type(error).__name__}: {error}"
