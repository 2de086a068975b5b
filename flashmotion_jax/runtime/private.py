"""Access to private parts of JAX, where it has no public API."""

from __future__ import annotations

import importlib
from types import ModuleType

import jax


def private_module(name: str, attribute: str, purpose: str) -> ModuleType:
    """Imports a private module of JAX and checks that it still has what is needed of it.

    Args:
      name: Name of the module.
      attribute: What is needed of it.
      purpose: What fails without it, and what to use in its place.

    Raises:
      ImportError: The installed version of JAX has no such module or attribute.
    """
    try:
        module = importlib.import_module(name)
        getattr(module, attribute)
    except (ImportError, AttributeError) as error:
        raise ImportError(f"jax {jax.__version__} has no {name}.{attribute}: {purpose}") from error
    return module
