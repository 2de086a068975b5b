"""`flashmotion cache`: encodes a data set to latents once, for training."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from flashmotion_jax.cli import options

if TYPE_CHECKING:
    from flashmotion_jax.data.latent_cache import LatentCache

#: Rejected rows that are printed, and characters of each; `report.json` has all of them.
_PRINTED, _LONGEST = 20, 300


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser("cache", help="encode a data set into latents for training")
    options.add_config(parser)
    add = parser.add_argument
    add(
        "--part",
        type=options.part,
        metavar="N/M",
        help="write only part N of M (default: all parts, shared by the processes of a job)",
    )
    add(
        "--verify",
        action="store_true",
        help="only compare the files of a complete cache with their hashes",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes a cache or one part of it, or verifies it.

    Returns:
      The exit status: 1 if a file of a verified cache is damaged.

    Raises:
      UserError: the configuration or the data set is wrong.
    """
    import jax

    from flashmotion_jax.config import CacheConfig, load_config, to_dict, with_overrides
    from flashmotion_jax.data.cache_dataset import cache_dataset
    from flashmotion_jax.data.latent_cache import verify_cache
    from flashmotion_jax.runtime.atomic import check_folder

    config = with_overrides(load_config(args.config, CacheConfig), args.set)
    if args.verify:
        damaged = verify_cache(config.output)
        for file in damaged:
            print(f"damaged: {file}")
        print(f"{config.output}: {len(damaged)} damaged files")
        return 1 if damaged else 0
    check_folder(config.output)
    number, count = args.part or (jax.process_index() + 1, jax.process_count())
    with options.progress_bars() as progress:
        cache = cache_dataset(
            **to_dict(config), process_index=number - 1, process_count=count, progress=progress
        )
    if cache is None:
        print(f"wrote part {number} of {count} of {config.output}; other parts are still missing")
        return 0
    _print_rejected(cache)
    print(
        f"wrote {config.output}: {len(cache)} videos, {cache.num_bytes / 1e9:.2f} GB; "
        f"{cache.num_rejected} rows rejected, see {config.output}/report.json"
    )
    return 0


def _print_rejected(cache: LatentCache) -> None:
    """Prints why rows were rejected, at most `_PRINTED` of them."""
    from flashmotion_jax.runtime.json_files import read_json_object

    report = cache.path / "report.json"
    if not cache.num_rejected or not report.is_file():
        return
    rejected = read_json_object(report, "remove it")["rejected"]
    for row in rejected[:_PRINTED]:
        place = f"row {row['row']}" if row.get("line") is None else f"line {row['line']}"
        id = row["id"] and f" ({row['id']})"
        print(f"rejected: {place}{id}: {row['reason']}"[:_LONGEST])
    if len(rejected) > _PRINTED:
        print(f"rejected: {len(rejected) - _PRINTED} more")
