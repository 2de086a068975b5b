"""The public surface, the direction of imports, and the budgets of the house."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flashmotion_jax

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("flashmotion_jax", "converters", "examples")
    for path in (ROOT / folder).rglob("*.py")
)

#: What each part may import of the package; parts on one line may import each other.
LAYERS = [
    {"runtime", "config"},
    {"media"},
    {"models", "diffusion", "trajectory", "text"},
    {"checkpoints", "data"},
    {"training", "evaluation", "inference"},
    {"perf", "editor"},
    {"cli"},
]


@pytest.mark.parametrize("name", flashmotion_jax.__all__)
def test_public_names_exist_and_are_documented(name):
    assert getattr(flashmotion_jax, name).__doc__


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'Pipe'"):
        _ = flashmotion_jax.Pipe


def test_importing_the_package_imports_no_jax():
    code = "import sys, flashmotion_jax; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def imported_parts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "flashmotion_jax" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    parts = path.relative_to(ROOT).parts
    known = {part for layer in LAYERS for part in layer}
    if parts[0] == "converters":
        allowed = set().union(*LAYERS[:4])
    elif parts[0] == "examples" or path.name == "__init__.py":
        return
    else:
        own = Path(parts[1]).stem
        level = next(i for i, layer in enumerate(LAYERS) if own in layer)
        allowed = set().union(*LAYERS[: level + 1])
    assert not (set(imported_parts(path)) & known) - allowed


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_hold_one_idea(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            start = (
                node.body[1].lineno if ast.get_docstring(node) and node.body[1:] else node.lineno
            )
            assert node.end_lineno - start <= 60, node.name
