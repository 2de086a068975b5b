"""`python -m converters`: PyTorch checkpoints in and out.

Exit status: 0 done, 1 failed (disk, network, a package that is missing), 2 bad arguments or input,
130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashmotion_jax.config import ADAPTERS
from flashmotion_jax.runtime.errors import exit_status

KINDS = {
    "dit": "dit",
    "vae": "vae",
    "text": "text_encoder",
    **{name: f"adapters/{name}" for name in ADAPTERS},
}
WAN22 = ("dit", "vae", "text")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: arguments after the program's name; None takes those of the process.

    Returns:
      The exit status.
    """
    args = build_parser().parse_args(argv)

    def run() -> int:
        print(args.run(args))
        return 0

    return exit_status("converters", run)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="python -m converters", description="PyTorch checkpoints in and out."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_wan22(commands)
    _add_flashmotion(commands)
    _add_inspect(commands)
    _add_export(commands)
    _add_metrics(commands)
    return parser


def _add_wan22(commands: Any) -> None:
    parser = commands.add_parser("wan22", help="convert a Wan2.2-TI2V-5B folder")
    parser.add_argument(
        "source",
        metavar="SRC",
        help="folder in the original or diffusers layout, or owner/name on Hugging Face",
    )
    _add_destination(parser)
    _add_only(parser)
    parser.set_defaults(run=_run_wan22)


def _add_flashmotion(commands: Any) -> None:
    parser = commands.add_parser(
        "flashmotion", help="convert one file: generator, adapter, or any single component"
    )
    parser.add_argument(
        "source",
        metavar="SRC",
        help=".pt, .pth or .safetensors, or owner/name/file on Hugging Face",
    )
    _add_destination(parser)
    parser.add_argument(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="of a training checkpoint with both (default: ema)",
    )
    _add_names(parser)
    parser.set_defaults(run=_run_flashmotion)


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect", help="print keys, shapes and dtypes, what they seem to be, and what is left over"
    )
    parser.add_argument("source", metavar="SRC", help="file or folder, or a Hugging Face name")
    _add_names(parser)
    parser.set_defaults(run=_run_inspect)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser("export", help="write a checkpoint of this project for PyTorch")
    parser.add_argument("source", type=Path, metavar="DIR", help="checkpoint of this project")
    parser.add_argument("destination", type=Path, metavar="DST", help="new folder, or .safetensors")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--layout", choices=("original", "diffusers"), help="of the folder")
    what.add_argument("--adapter", choices=tuple(ADAPTERS), help="write this adapter to one file")
    _add_only(parser)
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of all tensors (default: as stored)"
    )
    parser.set_defaults(run=_run_export)


def _add_metrics(commands: Any) -> None:
    parser = commands.add_parser(
        "metrics", help="convert the networks of FID and FVD, Inception and I3D"
    )
    parser.add_argument("source", metavar="SRC", help=".pth, .pt or .safetensors")
    parser.add_argument("destination", type=Path, metavar="DST", help="folder of the result")
    parser.set_defaults(run=_run_metrics)


def _add_destination(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "destination", type=Path, metavar="DST", help="new folder, or a checkpoint to add to"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="bfloat16",
        help="to store matmul and convolution weights in (default: bfloat16; float32 to train)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace components that exist")


def _add_only(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--only",
        type=_parse_only,
        default=WAN22,
        metavar="PARTS",
        help="some of dit,vae,text (default: all)",
    )


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--component", choices=tuple(KINDS), help="(default: by its keys)")
    parser.add_argument(
        "--map", type=Path, metavar="FILE", help="JSON of names, see docs/checkpoints.md"
    )


def _parse_only(text: str) -> tuple[str, ...]:
    parts = tuple(dict.fromkeys(text.split(",")))
    if unknown := set(parts) - set(WAN22):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))} unknown; expected some of {','.join(WAN22)}"
        )
    return parts


def _run_wan22(args: argparse.Namespace) -> str:
    from .importing import convert_wan22

    return convert_wan22(
        args.source,
        args.destination,
        kinds=[KINDS[part] for part in args.only],
        dtype=args.dtype,
        overwrite=args.overwrite,
    )


def _run_flashmotion(args: argparse.Namespace) -> str:
    from .importing import convert_file, read_names

    return convert_file(
        args.source,
        args.destination,
        dtype=args.dtype,
        overwrite=args.overwrite,
        weights=args.weights,
        component=args.component and KINDS[args.component],
        names=args.map and read_names(args.map),
    )


def _run_inspect(args: argparse.Namespace) -> str:
    from .importing import read_names
    from .inspection import inspect

    return inspect(
        args.source,
        component=args.component and KINDS[args.component],
        names=args.map and read_names(args.map),
    )


def _run_export(args: argparse.Namespace) -> str:
    from .exporting import export_adapter, export_folder

    if args.adapter:
        return export_adapter(args.source, args.destination, args.adapter, dtype=args.dtype)
    return export_folder(
        args.source,
        args.destination,
        args.layout,
        kinds=[KINDS[part] for part in args.only],
        dtype=args.dtype,
    )


def _run_metrics(args: argparse.Namespace) -> str:
    from .metrics import convert_metrics

    return convert_metrics(args.source, args.destination)


if __name__ == "__main__":
    sys.exit(main())
