"""The public surface, the direction of imports, declared dependencies, and limits on file size."""

from __future__ import annotations

import ast
import functools
import graphlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import flashmotion_jax

ROOT = Path(__file__).parents[1]
FOLDERS = ("flashmotion_jax", "converters", "configs", "examples", "tools")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

#: Rooms of the package from the bottom up: each imports only rooms of the lines above its own.
LAYERS = [
    {"runtime"},
    {"config"},
    {"media"},
    {"models", "diffusion", "trajectory"},
    {"text"},
    {"checkpoints"},
    {"data", "converters"},
    {"configs", "training", "inference"},
    {"evaluation"},
    {"perf", "editor", "hub"},
    {"cli"},
]

by_path = functools.partial(
    pytest.mark.parametrize, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] in ("configs", "converters"):
        parts = ("flashmotion_jax", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def is_type_checking(node):
    return isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"


def nodes_at_run_time(tree):
    for node in ast.iter_child_nodes(tree):
        if not is_type_checking(node):
            yield node
            yield from nodes_at_run_time(node)


@functools.cache
def imported(path):
    """Names of the modules that a file imports, at its top or inside functions."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in nodes_at_run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                found.add(submodule if submodule in MODULES else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("name", flashmotion_jax.__all__)
def test_public_names_exist_and_are_documented(name):
    assert getattr(flashmotion_jax, name).__doc__


def sections(function):
    """Sections of Google's style that the docstring of a function or method should have."""
    signature = inspect.signature(function)
    if signature.parameters.keys() - {"self"}:
        yield "Args:"
    if signature.return_annotation != "None":
        yield "Returns:"


@pytest.mark.parametrize("name", flashmotion_jax.__all__)
def test_public_names_document_their_arguments(name):
    public = getattr(flashmotion_jax, name)
    if inspect.isclass(public):
        assert {"Args:", "Attributes:"} & set(public.__doc__.split())
    else:
        assert {*sections(public), "Raises:"} <= set(public.__doc__.split())


@pytest.mark.parametrize("name", ["from_pretrained", "__call__", "request", "run"])
def test_methods_of_the_pipeline_document_their_arguments(name):
    method = getattr(flashmotion_jax.Pipeline, name)
    assert set(sections(method)) <= set(method.__doc__.split())


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'Pipe'"):
        _ = flashmotion_jax.Pipe


def test_importing_the_package_imports_no_jax():
    code = "import sys, flashmotion_jax; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def room(name):
    parts = name.split(".")
    return parts[1] if parts[0] == "flashmotion_jax" and len(parts) > 1 else None


@by_path("path", [path for path in SOURCES if room(module_name(path))])
def test_imports_go_one_way(path):
    own = room(module_name(path))
    level = next(i for i, layer in enumerate(LAYERS) if own in layer)
    allowed = {own, None}.union(*LAYERS[:level])
    if path.name == "__main__.py":  # `python -m` runs the command
        allowed.add("cli")
    assert {room(name) for name in imported(path)} <= allowed


@by_path("path", [path for path in SOURCES if room(module_name(path)) not in ("cli", None)])
def test_only_commands_parse_arguments(path):
    if path.name != "__main__.py":
        assert "argparse" not in imported(path)


def test_every_room_has_its_place():
    rooms = {room(name) for name in MODULES} - {None}
    assert rooms == set().union(*LAYERS)


def test_no_files_import_each_other_in_a_circle():
    graph = {name: imported(path) & MODULES.keys() - {name} for name, path in MODULES.items()}
    # The package's names are imported when they are first used.
    graph["flashmotion_jax"] = set()
    graphlib.TopologicalSorter(graph).prepare()


#: Names of modules whose distribution has another name.
DISTRIBUTIONS = {
    "absl": "absl-py",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "orbax": "orbax-checkpoint",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
#: What the tests and tools import where it is installed: parity tests skip without it.
OPTIONAL = {"atheris", "libtpu", "matplotlib", "ml-dtypes", "scipy"}


def third_party(paths, at_top=False):
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = top_level_imports(tree) if at_top else imported(path)
        for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
            if not any(
                (ROOT / folder / f"{name}.py").is_file() for folder in ("examples", "tools")
            ):
                yield DISTRIBUTIONS.get(name, name).replace("_", "-").lower()


def top_level_imports(tree):
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def declared(*extras):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]
    found = set()
    for line in [*project["dependencies"], *(line for name in extras for line in extra[name])]:
        name, nested = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", line).groups()
        found |= declared(*nested.split(",")) if name == "flashmotion_jax" else {name}
    return {name.replace("_", "-").lower() for name in found}


PACKAGE = [path for path in SOURCES if room(module_name(path))]
OWN = {"flashmotion-jax", "examples", "helpers", "tests", "editor", "conftest"}


def test_what_the_package_imports_first_is_a_dependency():
    """Packages of extras are imported by the functions that need them."""
    paths = [path for path in PACKAGE if "editor" not in path.parts]
    assert set(third_party(paths, at_top=True)) - OWN <= declared()
    editor = [path for path in PACKAGE if "editor" in path.parts]
    assert set(third_party(editor, at_top=True)) - OWN <= declared("edit")


def test_every_import_is_declared():
    extras = ("convert", "eval", "bench", "train", "edit", "heic", "plan", "gguf", "tokamax")
    assert set(third_party(PACKAGE)) - OWN <= declared(*extras)
    others = [*(set(SOURCES) - set(PACKAGE)), *(ROOT / "tests").rglob("*.py")]
    assert set(third_party(others)) - OWN - OPTIONAL <= declared(*extras, "test")


def test_one_place_pins_the_linters():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in extras["lint"])
    assert "flashmotion_jax[test,lint]" in extras["dev"]
    assert '".[test,lint,docs]"' in (ROOT / ".ci" / "run").read_text()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (local,) = [repo["hooks"] for repo in hooks if repo["repo"] == "local"]
    assert [hook["entry"].split()[0] for hook in local] == ["ruff", "ruff", "pyrefly"]
    assert all(hook["language"] == "system" for hook in local)


@by_path("path", [path for path in SOURCES if path.parts[len(ROOT.parts)] != "tools"])
def test_files_and_functions_hold_one_idea(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            start = (
                node.body[1].lineno if ast.get_docstring(node) and node.body[1:] else node.lineno
            )
            assert node.end_lineno - start <= 60, node.name
