"""Configurations from the Python files of `configs/`."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import TypeVar

from flashmotion_jax.config.adapters import ADAPTERS
from flashmotion_jax.runtime.errors import UserError

Config = TypeVar("Config")


def load_config(name: str, kind: type[Config]) -> Config:
    """Runs a configuration file and takes what its `get_config` returns.

    Args:
      name: path of a Python file; what follows a colon is handed to `get_config`, for instance
        `configs/stage3_vc.py:NAME`. An adapter may also stand at the end of the name, as in
        `configs/stage3_vc_NAME.py`.
      kind: `TrainConfig` or `CacheConfig`.

    Raises:
      UserError: there is no such file, it has no `get_config`, or it builds something else.
    """
    path, argument = _split(name)
    if not Path(path).is_file():
        beside = sorted(str(file) for file in Path(path).parent.glob("*.py"))
        hint = f"; there are {', '.join(beside)}" if beside else ""
        raise UserError(f"no configuration at {path}{hint}")
    # Configurations share `configs.common`, in a folder beside which nothing need be installed.
    folders = Path(path).resolve().parents
    root = next((folder.parent for folder in folders if folder.name == "configs"), folders[1])
    sys.path.insert(0, str(root))
    try:
        get_config = runpy.run_path(path)["get_config"]
        config = get_config(argument) if argument else get_config()
    except (KeyError, SyntaxError, TypeError, ImportError) as error:
        raise UserError(f"{name} is no configuration ({type(error).__name__}: {error})") from error
    finally:
        sys.path.pop(0)
    if not isinstance(config, kind):
        raise UserError(f"{name} builds a {type(config).__name__}; expected a {kind.__name__}")
    return config


def _split(name: str) -> tuple[str, str]:
    """Path and argument of a configuration's name."""
    path, _, argument = name.partition(":")
    if not Path(path).is_file():
        stem, _, adapter = Path(path).stem.rpartition("_")
        if adapter in ADAPTERS:
            return str(Path(path).with_stem(stem)), adapter
    return path, argument
