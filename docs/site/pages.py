"""Sources of the site: the Markdown pages of the repository, with links that work on the site.

On GitHub, `docs/README.md` is the index, and links to files outside `docs` show these files. On the
site, the index also is the navigation, `CONTRIBUTING.md` and `CHANGELOG.md` are pages, and links to
other files lead to GitHub.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path

import reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GITHUB = "https://github.com/flashmotion-jax/flashmotion_jax/blob/main"
#: Pages of the site that are other files of the repository.
ELSEWHERE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
INDEX = {"docs/README.md": "index.md"}

#: What the index says about the reference on GitHub, where it is not, and on the site.
REFERENCE_ON_GITHUB = "- The Python API and the options of every command are on the site that"
REFERENCE_ON_SITE = """\
- [Python API](api.rst): the public names by task, then every package.
- [Command line](cli.md): the options of every command.
"""

_FENCE = re.compile(r"^( *)```.*?^\1```$", re.S | re.M)
_LINK = re.compile(r"(!?\[[^][]*\]\()([^)\s]+)(\))")
_PLOT = re.compile(r"^<!-- plot: (.+?) -->\n(?:<!-- .*-->\n|\n)*((?:\|.*\n)+)", re.M)


def page_names() -> dict[str, Path]:
    """File of each Markdown page of the site, by its name there."""
    files = {path.name: path for path in sorted(DOCS.glob("*.md")) if path.name != "README.md"}
    files |= {page: ROOT / name for name, page in ELSEWHERE.items()}
    return files | {"index.md": DOCS / "README.md"}


def outside_fences(text: str, change) -> str:
    """Applies a function to all text that is not in a block of code."""
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join(parts) + change(text[end:])


def site_link(target: str, folder: str) -> str:
    """A link of the site for a link of a Markdown file in a folder of the repository.

    Raises:
      ValueError: The file does not exist.
    """
    if re.match(r"\w+:|#", target):
        return target
    path, _, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(folder, path))
    if not (ROOT / path).exists():
        raise ValueError(f"link to {target} in {folder or 'the root folder'}: no file {path}")
    page = {**ELSEWHERE, **INDEX}.get(path)
    if page is None and path.startswith("docs/"):
        page = path.removeprefix("docs/")
    if page is None:
        page = f"{GITHUB}/{path}"
    return f"{page}#{anchor}" if anchor else page


def navigation(index: str) -> str:
    """The index of `docs/README.md` with a hidden table of contents for each of its sections."""
    line = next(line for line in index.splitlines() if line.startswith(REFERENCE_ON_GITHUB))
    index = index.replace(f"{line}\n", REFERENCE_ON_SITE)
    start, *sections = re.split(r"^## ", index, flags=re.M)
    out = start
    for section in sections:
        title, _, body = section.partition("\n")
        found = [link[2] for link in _LINK.finditer(body) if not link[2].startswith("http")]
        names = [name.partition("#")[0].rpartition(".")[0] for name in found]
        toctree = "\n".join(name for name in dict.fromkeys(names) if name != "index")
        out += (
            f"## {title}\n{body}\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{toctree}\n```\n\n"
        )
    return out


def table_rows(table: str) -> list[list[str]]:
    """Cells of a Markdown table, without the line below the header."""
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
    return [rows[0], *rows[2:]]


def with_plots(text: str, folder: Path) -> str:
    """Adds a plot of the table below each `<!-- plot: KIND of COLUMN; COLUMN -->`."""

    def add(match: re.Match[str]) -> str:
        import plots

        lines = []
        for theme in ("light", "dark"):
            name = plots.draw(match[1], table_rows(match[2]), folder, theme)
            lines.append(
                f"```{{image}} plots/{name}\n:class: only-{theme}\n:alt: {match[1]}\n```\n"
            )
        return "\n".join([*lines, "", match[2]])

    return _PLOT.sub(add, text)


def write(source: Path) -> None:
    """Writes the sources of all pages, their pictures and plots to a folder."""
    written: dict[str, str] = {}
    for page, path in page_names().items():
        folder = path.parent.relative_to(ROOT).as_posix().strip(".")

        def change(text: str, folder: str = folder) -> str:
            return _LINK.sub(lambda m: m[1] + site_link(m[2], folder) + m[3], text)

        text = outside_fences(path.read_text(encoding="utf-8"), change)
        text = with_plots(text, source / "plots")
        written[page] = navigation(text) if page == "index.md" else text
    written |= reference.pages()
    pictures = {
        path.name: path for kind in ("svg", "png", "webp") for path in DOCS.glob(f"*.{kind}")
    }
    source.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        file = source / name
        file.parent.mkdir(exist_ok=True)
        # Sphinx reads again what has changed.
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
    for name, path in pictures.items():
        shutil.copyfile(path, source / name)
    for file in source.rglob("*.*"):
        known = {source / name for name in (*written, *pictures)}
        if file.is_file() and file not in known and file.parent.name != "plots":
            file.unlink()
