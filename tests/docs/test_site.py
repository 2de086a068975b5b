"""The documentation site, as far as it can be checked without building it, which CI does."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

import flashmotion_jax

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def site():
    """The modules of `docs/site` that need no Sphinx."""
    sys.path.insert(0, str(DOCS / "site"))
    yield {name: importlib.import_module(name) for name in ("pages", "plots", "reference")}
    sys.path.remove(str(DOCS / "site"))


def test_public_names_are_in_the_reference(site):
    reference = site["reference"]
    listed = [name for names in reference.PUBLIC.values() for name in names]
    assert sorted(listed) == sorted(flashmotion_jax.__all__)
    text = "\n".join(reference.pages().values())
    for name in reference.modules():
        assert f".. automodule:: {name}\n" in text
    assert "flashmotion_jax.converters.dit" in reference.modules()
    assert "flashmotion_jax.configs.sprites.stage2" in reference.modules()


def test_every_command_is_in_the_reference(site):
    page = site["reference"].command_page()
    assert {"sample", "convert import", "evaluate compare", "edit"} <= set(
        re.findall(r"^##+ `flashmotion (.*)`$", page, re.M)
    )


def test_the_index_has_every_page_once(site):
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = sorted(path.name for path in DOCS.glob("*.md") if path.name != "README.md")
    assert sorted(re.findall(r"\]\(([\w-]+\.md)\)", index)) == pages
    assert "api" in site["pages"].navigation(index)


def test_links_of_all_pages_lead_to_files(site):
    pages = site["pages"]
    for page, path in pages.page_names().items():
        folder = "" if path.parent == DOCS.parent else "docs"
        text = path.read_text(encoding="utf-8")
        targets = []
        pages.outside_fences(text, lambda part, found=targets: found.append(part) or "")
        for link in pages._LINK.finditer("".join(targets)):
            target = pages.site_link(link[2], folder)
            name, _, anchor = target.partition("#")
            if not name.endswith(".md") or name.startswith("http") or not anchor:
                continue
            file = pages.page_names()[name]
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]
            assert anchor in slugs, f"{page}: {link[2]}"


def test_plots_name_columns_of_the_table_that_follows(site):
    pages, plots = site["pages"], site["plots"]
    for path in DOCS.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        found = pages._PLOT.findall(text)
        assert len(found) == text.count("<!-- plot: "), path
        for spec, table in found:
            header, *rows = pages.table_rows(table)
            _, columns = plots.parse(spec, header)
            assert all(plots.numbers(row[column]) for row in rows for column in columns)


@pytest.mark.parametrize(
    ("cell", "values"),
    [
        (".44 [.41, -.47] (N 16)", [0.44, 0.41, -0.47]),
        ("4.2, 1.4, 0.0", [4.2, 1.4, 0.0]),
        ("**1,204.5** GB", [1204.5]),
        ("+.0004 [-.0030, .0037]", [0.0004, -0.003, 0.0037]),
        ("not run", []),
    ],
)
def test_numbers_of_a_cell(site, cell, values):
    assert site["plots"].numbers(cell) == values


@pytest.mark.parametrize(
    ("target", "folder", "expected"),
    [
        ("results.md#on-one-h200", "docs", "results.md#on-one-h200"),
        ("../CONTRIBUTING.md", "docs", "contributing.md"),
        ("docs/README.md", "", "index.md"),
        (
            "../launch/",
            "docs",
            "https://github.com/flashmotion-jax/flashmotion_jax/blob/main/launch",
        ),
        ("https://example.org/a#b", "docs", "https://example.org/a#b"),
        ("#format", "docs", "#format"),
    ],
)
def test_links_on_the_site(site, target, folder, expected):
    assert site["pages"].site_link(target, folder) == expected


def test_a_broken_link_is_an_error(site):
    with pytest.raises(ValueError, match=r"no file docs/missing\.md"):
        site["pages"].site_link("missing.md", "docs")
    fence = "```text\n[a](b.md)\n```"
    assert site["pages"].outside_fences(f"x\n{fence}\ny", str.upper) == f"X\n{fence}\nY"
