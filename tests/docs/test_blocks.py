"""Every block of code in the README and the guides: Python runs, JSON is read, commands parse.

A command runs too, unless the line before its block is a comment with the reason why it does not,
`<!-- not run: REASON -->`, or one of the names that `.ci/run` gives to the blocks that it runs.
Python with such a comment is only compiled.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from flashmotion_jax.cli.main import build_parser, main
from flashmotion_jax.config import TrainConfig, load_config
from flashmotion_jax.data.sprites import Sprites
from flashmotion_jax.data.sprites.export import export

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
#: Blocks that are no code of ours: shown, not run.
SHOWN = ("text", "bibtex")
#: Names of blocks that `.ci/run` runs.
IN_CI = {"sample", "test", "convert", "train"}
#: Programs of others, whose arguments are not checked.
EXTERNAL = {"cd", "mkdir", "export", "tail", "curl", "git", "docker", "kubectl", "sky"}
EXTERNAL |= {"sbatch", "scancel", "scontrol", "pre-commit"}


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str
    mark: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


_FENCE = re.compile(r"(?:^ *<!-- ([^\n]*) -->\n+)?^( *)```(\S*)\n(.*?)^\2```$", re.S | re.M)


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        body = re.sub(rf"^{fence[2]}", "", fence[4], flags=re.M)
        line = text[: fence.start(3)].count("\n") + 1
        found.append(Block(page, line, fence[3], body, fence[1] or ""))
    return found


BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(*languages):
    return pytest.mark.parametrize(
        "block", [block for block in BLOCKS if block.language in languages], ids=str
    )


def commands(text: str) -> Iterator[list[str]]:
    """Words of each command of a shell script; placeholders `...` and redirections are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if re.fullmatch(r"[;&|]+", word):
                while words and re.match(r"[A-Za-z_]+=", words[0]):
                    words.pop(0)
                if words:
                    yield words
                words = []
            elif word != "...":
                words.append(word)


def check_command(words: list[str]) -> list[str] | None:
    """Checks that a command exists and parses. Returns the arguments of `flashmotion`."""
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program in ("flashmotion", "python3", "python", "pip", "bash"):
        pass
    elif "/" in program:
        assert (ROOT / program).is_file(), f"no file {program}"
    else:
        assert program in EXTERNAL, f"{program} is not in EXTERNAL of {__file__}"
    if program == "flashmotion":
        args = build_parser().parse_args(arguments)
        config = getattr(args, "config", None)
        if args.run.__module__.endswith(("train", "plan")) and config:
            load_config(str(config), TrainConfig)
        return arguments
    if program == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= set(known["optional-dependencies"])
    if program.startswith("python") and arguments[:1] == ["-m"]:
        assert importlib.util.find_spec(arguments[1]) or arguments[1] == "venv"
    elif program in ("python", "python3", "bash"):
        assert (ROOT / arguments[0]).is_file(), f"no file {arguments[0]}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_says_its_language(page):
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^ *```", text, re.M)) == 2 * len(blocks(page))
    for block in blocks(page):
        assert block.language in ("bash", "python", "json", *SHOWN), f"{block}: {block.language!r}"
        if block.language == "bash" and not block.mark.startswith("not run: "):
            assert block.mark in IN_CI or block.mark == "", f"{block}: {block.mark}"


@of("bash")
def test_commands_parse(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(block.text):
        try:
            check_command(words)
        except SystemExit:
            pytest.fail(f"{block}: {shlex.join(words)}: {block.text}")


@of("json")
def test_json_is_read(block):
    json.loads(block.text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the guides name: a photo, a trajectory, a checkpoint, videos of a benchmark."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("sprites.png", "sprites.json", "sprites_labels.png"):
        shutil.copyfile(ROOT / "examples" / name, folder / name)
    from PIL import Image

    Image.open(ROOT / "examples" / "sprites.png").convert("RGB").save(folder / "photo.jpg")
    (folder / "checkpoints").mkdir()
    shipped = ROOT / "flashmotion_jax" / "assets" / "tiny"
    (folder / "checkpoints" / "flashmotion").symlink_to(shipped)
    export(Sprites(2, split="test", num_objects=1), folder / "sprites_test")
    (folder / "generated").symlink_to(folder / "sprites_test" / "videos")
    return folder


#: Shapes that the blocks of a page compute, as the page says.
SHAPES = {"trajectories.md": {"maps": (121, 320, 480, 3), "short": (49, 480, 720, 3)}}
RUN = [
    page
    for page in PAGES
    if any(block.mark == "" and block.language in ("python", "bash") for block in blocks(page))
]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
@pytest.mark.filterwarnings("ignore:.*does not know:UserWarning")
def test_blocks_run(page, folder, monkeypatch, capsys):
    """The blocks of a page, one after another, in a folder with what they name."""
    monkeypatch.chdir(folder)
    shutil.copyfile("sprites.json", "trajectory.json")
    names = {"__name__": "guide"}
    for block in blocks(page):
        if block.mark:
            continue
        if block.language == "json" and '"keyframes"' in block.text:
            Path("trajectory.json").write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
        elif block.language == "bash":
            for words in commands(block.text):
                arguments = check_command(words)
                if arguments is not None:
                    assert main(arguments) == 0, f"{block}: {capsys.readouterr()}"
    for name, shape in SHAPES.get(page.name, {}).items():
        assert names[name].shape == shape


@of("python")
def test_python_compiles(block):
    try:
        ast.parse(block.text)
    except SyntaxError:
        ast.parse("{" + block.text + "}")  # a row of a table
