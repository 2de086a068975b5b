"""Benchmarks: which videos there are, and where the masks of their objects lie.

A benchmark is a `Layout` in a file of its own, and a row of `LAYOUTS`.
"""

from __future__ import annotations

from pathlib import Path

from flashmotion_jax.evaluation.benchmarks.base import Benchmark, Item, Layout, Problem
from flashmotion_jax.evaluation.benchmarks.davis import Davis
from flashmotion_jax.evaluation.benchmarks.flashbench import FlashBench
from flashmotion_jax.evaluation.benchmarks.folder import Folder
from flashmotion_jax.evaluation.benchmarks.magicbench import MagicBench
from flashmotion_jax.evaluation.benchmarks.movebench import MoveBench
from flashmotion_jax.evaluation.benchmarks.sprites import SpritesFolder
from flashmotion_jax.runtime.errors import UserError

#: Value of `--bench` -> layout. The command line names the same ones, without these imports.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (FlashBench(), MagicBench(), Davis(), MoveBench(), SpritesFolder(), Folder())
}


def layout_of(bench: str) -> Layout:
    """The layout of a benchmark.

    Raises:
      UserError: There is no such benchmark.
    """
    if bench not in LAYOUTS:
        raise UserError(f"bench={bench!r}; expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[bench]


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
    found = layout.read(root)
    items = tuple(one for one in found if isinstance(one, Item))
    problems = tuple(one for one in found if isinstance(one, Problem))
    if not items:
        first = f"; the first is {problems[0].id}: {problems[0].reason}" if problems else ""
        raise UserError(f"{root}: none of its {len(problems)} videos can be scored{first}")
    return Benchmark(items, problems)
