"""Benchmarks: which videos there are, and where the masks of their objects lie.

A benchmark is a `Layout` in a file of its own, and a row of `LAYOUTS`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from flashmotion_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from flashmotion_jax.evaluation.benchmarks.base import Benchmark, Layout

#: Value of `--bench`, which is also the name of its file -> class of the layout. The files are
#: imported only when they are needed, so that the command line can list the names at once.
LAYOUTS = {
    "flashbench": "FlashBench",
    "magicbench": "MagicBench",
    "davis": "Davis",
    "movebench": "MoveBench",
    "sprites": "SpritesFolder",
    "folder": "Folder",
}


def layout_of(bench: str) -> Layout:
    """The layout of a benchmark.

    Raises:
      UserError: There is no such benchmark.
    """
    if bench not in LAYOUTS:
        raise UserError(f"bench={bench!r}; expected one of {', '.join(LAYOUTS)}")
    return getattr(importlib.import_module(f"{__name__}.{bench}"), LAYOUTS[bench])()


def read_benchmark(bench: str, root: str | Path) -> Benchmark:
    """Reads which videos a benchmark has.

    Args:
      bench: A name in `LAYOUTS`, which also decides how many frames are compared.
      root: Folder of the benchmark.

    Raises:
      UserError: The benchmark is unknown, the folder has another layout, or no video is usable.
    """
    layout, root = layout_of(bench), Path(root)
    if not root.is_dir():
        raise UserError(f"no folder {root}: give the folder of the benchmark")
    benchmark = layout.benchmark(root)
    if not benchmark.items:
        problems = benchmark.problems
        first = f"; the first is {problems[0].id}: {problems[0].reason}" if problems else ""
        raise UserError(f"{root}: none of its {len(problems)} videos can be scored{first}")
    return benchmark
