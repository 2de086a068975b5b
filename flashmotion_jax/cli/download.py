"""`flashmotion download`: published weights, ready to sample with, and data sets."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from flashmotion_jax.cli import options
from flashmotion_jax.config.adapters import ADAPTERS
from flashmotion_jax.config.models import Weights
from flashmotion_jax.runtime.errors import UserError

if TYPE_CHECKING:
    from flashmotion_jax.hub.catalog import Item
    from flashmotion_jax.hub.plan import Disk, Step
    from flashmotion_jax.hub.repository import Address

_DEFAULT_ADAPTER = "controlnet"


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser(
        "download",
        help="download published weights and convert them, or a data set",
        description="Downloads from the Hugging Face Hub, or the server in HF_ENDPOINT, with the "
        "token in HF_TOKEN or of `hf auth login`. Every file is compared with its published "
        "SHA-256. A download that was interrupted continues with the same command.",
        epilog="Names: flashmotion, flashmotion-slow, turbo, wan22 (checkpoints); magicdata, "
        "flashbench, movebench (data sets); metrics (the networks of FID and FVD).",
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="what to download, see below")
    destination = add(
        "destination",
        type=options.path,
        metavar="[DST]",
        help="new folder, or one to continue (default: checkpoints/NAME, data/NAME or metrics)",
    )
    # With nargs="?", Python 3.11 would not accept it after an option.
    destination.required = False
    add(
        "--adapter",
        action="append",
        choices=tuple(ADAPTERS),
        help=f"trajectory adapter to include; repeatable (default: {_DEFAULT_ADAPTER})",
    )
    add(
        "--dtype",
        choices=get_args(Weights),
        default="bfloat16",
        help="dtype of matmul and convolution weights; int8 or fp8: large linear layers in 8 bits "
        "(default: bfloat16; float32 for training)",
    )
    add(
        "--repo",
        action="append",
        default=[],
        metavar="[KEY=]OWNER/NAME[@REVISION]",
        help="another repository, for instance base=me/wan@main; repeatable. The keys are those "
        "that --dry-run prints",
    )
    add("--keep", action="store_true", help="keep the downloaded files after their conversion")
    add(
        "--overwrite",
        action="store_true",
        help="replace components, or files of a data set, that are not the published ones",
    )
    add("--dry-run", action="store_true", help="print files, sizes and free disk; write nothing")
    options.set_outputs(parser, folders=("destination",))
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from flashmotion_jax.hub.catalog import ITEMS
    from flashmotion_jax.hub.downloading import run_download
    from flashmotion_jax.hub.plan import plan_download
    from flashmotion_jax.runtime.atomic import check_folder

    if args.name not in ITEMS:
        raise UserError(f"{args.name!r} is not known; expected one of {', '.join(ITEMS)}")
    item = ITEMS[args.name]
    adapters = _adapters(item, args)
    destination = args.destination or Path(item.folder)
    check_folder(destination)
    download = plan_download(
        item,
        destination,
        adapters=adapters,
        addresses=_addresses(item, args),
        dtype=args.dtype,
        overwrite=args.overwrite,
        keep=args.keep,
    )
    print(_describe(download.steps), flush=True)
    disks = download.disks()
    for disk in disks:
        print(_describe_disk(disk), flush=True)
    if short := [disk for disk in disks if disk.needed > disk.free]:
        raise UserError(
            f"{(short[0].needed - short[0].free) / 1e9:.1f} GB too little is free on the disk of "
            f"{short[0].folder}; free some space, or choose a folder on another disk"
        )
    if args.dry_run:
        print("dry run: nothing was written")
        return 0
    print(run_download(download, options.print_status))
    after = item.after.format(
        folder=shlex.quote(str(destination)), adapter=adapters[0] if adapters else "none"
    )
    print(f"next:\n  {after}")
    return 0


def _adapters(item: Item, args: argparse.Namespace) -> list[str]:
    if not item.adapters and args.adapter:
        raise UserError(f"{args.name} has no adapters; leave --adapter out")
    chosen = args.adapter or ([_DEFAULT_ADAPTER] if item.adapters else [])
    if unknown := [name for name in chosen if name not in item.adapters]:
        raise UserError(
            f"{args.name} has no adapter {unknown[0]}; expected {' or '.join(item.adapters)}"
        )
    return list(dict.fromkeys(chosen))


def _addresses(item: Item, args: argparse.Namespace) -> dict[str, Address]:
    from flashmotion_jax.hub.repository import Address

    known = {key: source for key, source in item.sources.items() if isinstance(source, Address)}
    addresses = {}
    for text in args.repo:
        key, equals, name = text.rpartition("=")
        if not equals and len(known) == 1:
            key = next(iter(known))
        if key not in known:
            raise UserError(
                f"--repo {text}: expected {' or '.join(f'{name}=OWNER/NAME' for name in known)}"
            )
        addresses[key] = known[key].replaced(name)
    return addresses


def _describe(steps: Sequence[Step]) -> str:
    """One line for each part, below that of its repository."""
    lines: list[str] = []
    for step in steps:
        title = step.files[0].url
        if step.repository:
            where = step.repository
            title = f"{step.part.source}: {where.address.name} at {where.commit[:8]}"
        if title not in lines:
            lines.append(title)
        files = f"{len(step.files)} files" if step.files[1:] else step.files[0].name
        here = step.num_bytes - step.num_bytes_left
        state = f", {_size(here)} of it here" if 0 < here < step.num_bytes else ""
        state = ", here" if here == step.num_bytes else state
        state = ", in the cache of huggingface_hub" if step.cached else state
        state = ", converted already" if step.done else state
        lines.append(f"  {_size(step.num_bytes):>9}  {step.part.kind}: {files}{state}")
    lines.append(f"to transfer: {_size(sum(step.num_bytes_left for step in steps))}")
    return "\n".join(lines)


def _describe_disk(disk: Disk) -> str:
    return f"disk of {disk.folder}: {_size(disk.needed)} needed at most, {_size(disk.free)} free"


def _size(num_bytes: int) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes} bytes"
