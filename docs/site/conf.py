"""Configuration of Sphinx; `docs/build.py` runs it."""

from __future__ import annotations

import re

import reference
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

import flashmotion_jax

project = "flashmotion_jax"
author = "the flashmotion_jax authors"
project_copyright = author
release = version = flashmotion_jax.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Two modules may have a class of the same name, and annotations have no module.
suppress_warnings = ["ref.python"]

html_theme = "pydata_sphinx_theme"
html_title = "flashmotion_jax"
html_static_path = ["static"]
templates_path = ["templates"]
html_css_files = ["site.css"]
html_sidebars = {"**": ["navigation.html"]}
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_center": [],
    "navbar_end": ["theme-switcher", "navbar-icon-links"],
    "github_url": "https://github.com/flashmotion-jax/flashmotion_jax",
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_INDENTED = re.compile(r"((?:(?<=\n\n)|\A) {4}.*(?:\n(?: {4}.*)?)*)", re.M)

logger = logging.getLogger(__name__)


class LinkCode(SphinxPostTransform):
    """Links inline code that names a module, a class, a function or a source file to its entry."""

    default_priority = 400

    def run(self) -> None:
        """Replaces the names of one page."""
        entries = self.env.domains.python_domain.objects
        for node in list(self.document.findall(nodes.literal)):
            entry = entries.get(full_name(node.astext()))
            if entry is None or isinstance(node.parent, nodes.reference):
                continue
            docname, builder = self.env.docname, self.app.builder
            link = make_refnode(
                builder, docname, entry.docname, entry.node_id, node.deepcopy(), node.astext()
            )
            node.replace_self(link)


def full_name(text: str) -> str:
    """The full name of what inline code means: `models/dit.py`, `fm.Pipeline`, `perf.plan`."""
    text = text.removesuffix("()")
    if re.fullmatch(r"[\w/]+/\w+\.py", text):
        text = text.removesuffix(".py").replace("/", ".")
    if text.startswith("fm."):
        return "flashmotion_jax." + text.removeprefix("fm.")
    return text if text.startswith("flashmotion_jax.") else f"flashmotion_jax.{text}"


def check_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Warns of public names that have no entry in the reference."""
    entries = env.domains.python_domain.objects
    expected = {f"flashmotion_jax.{name}" for name in flashmotion_jax.__all__}
    for name in sorted((expected | set(reference.public_names())) - entries.keys()):
        logger.warning("%s is not in the reference; has it a docstring?", name)


def to_restructured_text(app, what, name, obj, options, lines) -> None:
    """Turns the Markdown of a docstring into reStructuredText, before sections are parsed.

    Single backticks become double ones, bars and final underscores outside of code are escaped, and
    the indented blocks of modules become blocks of code.
    """
    text = "\n".join(lines)
    if what == "module":
        parts = _INDENTED.split(text)
        parts[1::2] = [as_block(part) for part in parts[1::2]]
    else:
        parts = [text]
    parts[0::2] = [as_inline(part) for part in parts[0::2]]
    lines[:] = "".join(parts).splitlines()
    if what in ("attribute", "data", "property"):
        # Napoleon takes what precedes a colon in the first line as a type, so the first line is an
        # escaped line break, which is not shown.
        lines.insert(0, "\\")


def as_block(text: str) -> str:
    """An indented block as a block of code."""
    command = re.match(r"\s*(flashmotion|python|pip|examples/|[A-Z_]+=)", text)
    return f".. code-block:: {'bash' if command else 'text'}\n\n{text}"


def as_inline(text: str) -> str:
    """Text with single backticks as reStructuredText."""
    parts = _CODE.split(text)
    parts[0::2] = [re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[0::2]]
    for index in range(1, len(parts), 2):
        parts[index] = f"``{parts[index]}``"
        if parts[index + 1][:1].isalnum():
            parts[index] += "\\ "
    return "".join(parts)


def setup(app: Sphinx) -> None:
    """Registers what this file adds."""
    app.add_post_transform(LinkCode)
    app.connect("env-check-consistency", check_names)
    # Napoleon's priority is 500.
    app.connect("autodoc-process-docstring", to_restructured_text, priority=400)
