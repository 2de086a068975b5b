"""Builds the documentation site: `python docs/build.py`, then open build/docs/html/index.html.

Needs `pip install -e ".[docs]"` and no network. The pages are the Markdown files of this folder,
which are written to be read on GitHub as well, and the reference, which is made from docstrings.
Warnings are errors: broken links, missing pages, public names without a place in the reference.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

SITE = Path(__file__).parent / "site"
ROOT = SITE.parents[1]


def main() -> int:
    """Writes the sources of all pages, then runs Sphinx on them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="output folder")
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path[:0] = [str(SITE), str(ROOT)]
    import pages
    from sphinx.cmd.build import main as sphinx

    source, html = args.out / "source", args.out / "html"
    pages.write(source)
    options = ["--fail-on-warning", "--keep-going", "--quiet", "-c", str(SITE), "-b", "html"]
    status = sphinx([*options, "-d", str(args.out / "doctrees"), str(source), str(html)])
    if status == 0:
        print(f"wrote {html / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
