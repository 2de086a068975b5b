"""`flashmotion convert`: imports and exports PyTorch checkpoints, inspects and verifies them."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from flashmotion_jax.cli import options
from flashmotion_jax.config.adapters import ADAPTERS
from flashmotion_jax.config.models import Weights
from flashmotion_jax.config.sampling import CONVENTIONS
from flashmotion_jax.runtime.errors import UserError, exit_status

#: Components of a Wan2.2 folder by the names of `--only`, also with the tokenizer alone, and all
#: by those of `--component`.
WAN22 = {"dit": "dit", "vae": "vae", "text": "text_encoder"}
ONLY = WAN22 | {"tokenizer": "tokenizer"}
KINDS = WAN22 | {name: f"adapters/{name}" for name in ADAPTERS}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `python -m converters`, where `wan22` and `flashmotion` are names of `import`.

    Args:
      argv: arguments after the program's name; None takes those of the process.

    Returns:
      The exit status.
    """
    args = build_parser().parse_args(argv)

    def run() -> int:
        options.check_outputs(args)
        return args.run(args)

    return exit_status("converters", run, traceback="traceback" in args)


def build_parser() -> options.Parser:
    """Builds the parser of `python -m converters`."""
    parser = options.Parser(
        prog="python -m converters", description="The commands of `flashmotion convert`."
    )
    _add_commands(parser, aliases=("wan22", "flashmotion"))
    return parser


def add_parser(commands: Any) -> None:
    """Adds the command to those of `flashmotion`."""
    parser = commands.add_parser("convert", help="import, export, inspect and verify checkpoints")
    _add_commands(parser, aliases=())


def _add_commands(parser: argparse.ArgumentParser, aliases: Sequence[str]) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_import(commands, aliases)
    _add_export(commands)
    _add_inspect(commands)
    _add_verify(commands)
    _add_metrics(commands)


def _add_import(commands: Any, aliases: Sequence[str]) -> None:
    parser = commands.add_parser(
        "import",
        aliases=aliases,
        help="convert a Wan2.2-TI2V-5B folder, or a file with one component, from PyTorch",
    )
    add = parser.add_argument
    add(
        "source",
        type=options.path_text,
        metavar="SRC",
        help="folder in the original or diffusers layout; .pt, .pth or .safetensors file; or "
        "owner/name or owner/name/file on Hugging Face",
    )
    add(
        "destination",
        metavar="DST",
        help="checkpoint folder: a new one, or one to add components to",
    )
    add(
        "--dtype",
        choices=get_args(Weights),
        default="bfloat16",
        help="dtype of matmul and convolution weights; int8 or fp8: large linear layers of DiT, "
        "its copies and text encoder in 8 bits, all others in bfloat16 (default: bfloat16; float32 "
        "for training)",
    )
    add("--overwrite", action="store_true", help="replace existing components")
    _add_only(parser, ONLY)
    add(
        "--weights",
        choices=("ema", "raw"),
        default="ema",
        help="which weights to take from a training checkpoint (default: ema)",
    )
    add(
        "--conventions",
        choices=tuple(CONVENTIONS),
        help="how a generator is sampled (default: wan22 for a folder; by the name of a file, "
        "flashmotion or, if it says so, turbo or wan22)",
    )
    _add_names(parser)
    add(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="KEY=VALUE",
        help="something about an adapter that its file does not tell, such as "
        "input=trajectory+latents; repeatable",
    )
    options.set_outputs(parser, folders=("destination",))
    parser.set_defaults(run=_import)


def _add_export(commands: Any) -> None:
    parser = commands.add_parser("export", help="write a checkpoint in a PyTorch layout")
    add = parser.add_argument
    add("source", type=options.path, metavar="DIR", help="checkpoint of this project")
    add(
        "destination",
        type=options.path_text,
        metavar="DST",
        help="new folder, or .safetensors file",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--layout", choices=("original", "diffusers"), help="layout of the exported folder"
    )
    what.add_argument(
        "--adapter", choices=tuple(ADAPTERS), help="export only this adapter, to one file"
    )
    what.add_argument(
        "--lora",
        choices=("comfyui", "diffusers"),
        help="export the LoRA that an adapter was trained as, under the names of this program, to "
        "one .safetensors file",
    )
    _add_only(parser, WAN22)
    add(
        "--dtype",
        choices=options.DTYPES,
        help="dtype of all tensors (default: as stored; of 8 bits bfloat16)",
    )
    parser.set_defaults(run=_export)


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect", help="list keys, shapes and dtypes, the recognized component and unknown keys"
    )
    parser.add_argument(
        "source",
        type=options.path_text,
        metavar="SRC",
        help="file or folder, or a Hugging Face name",
    )
    _add_names(parser)
    parser.set_defaults(run=_inspect)


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify", help="compare the files and weights of a checkpoint with their checksums"
    )
    parser.add_argument(
        "source", type=options.path, metavar="DIR", help="checkpoint of this project"
    )
    parser.set_defaults(run=_verify)


def _add_metrics(commands: Any) -> None:
    parser = commands.add_parser(
        "metrics", help="convert Inception and I3D, the networks of FID and FVD"
    )
    parser.add_argument(
        "source", type=options.path_text, metavar="SRC", help=".pth, .pt or .safetensors file"
    )
    parser.add_argument("destination", metavar="DST", help="output folder")
    options.set_outputs(parser, folders=("destination",))
    parser.set_defaults(run=_metrics)


def _add_only(parser: argparse.ArgumentParser, kinds: Mapping[str, str]) -> None:
    parser.add_argument(
        "--only",
        type=functools.partial(_parse_only, kinds),
        metavar="PARTS",
        help=f"components of the folder: some of {','.join(kinds)} (default: dit,vae,text)",
    )


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--component",
        choices=tuple(KINDS),
        help="component in the file (default: recognized by its keys)",
    )
    parser.add_argument(
        "--map",
        type=options.path,
        metavar="FILE",
        help="JSON file that renames keys, see docs/checkpoints.md",
    )


def _parse_only(kinds: Mapping[str, str], text: str) -> list[str]:
    parts = list(dict.fromkeys(text.split(",")))
    if unknown := set(parts) - set(kinds):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))} unknown; expected some of {','.join(kinds)}"
        )
    return [kinds[part] for part in parts]


def _import(args: argparse.Namespace) -> int:
    from flashmotion_jax.converters.importing import convert_file, convert_wan22
    from flashmotion_jax.converters.names import read_names
    from flashmotion_jax.converters.sources import is_file

    if is_file(args.source):
        if args.only:
            raise UserError(f"--only is for folders; {args.source} is a file")
        written = convert_file(
            args.source,
            Path(args.destination),
            dtype=args.dtype,
            overwrite=args.overwrite,
            weights=args.weights,
            component=args.component and KINDS[args.component],
            names=args.map and read_names(args.map),
            conventions=args.conventions,
            assignments=args.assignments,
        )
    else:
        if args.component or args.map or args.assignments:
            raise UserError(
                f"--component, --map and --set are for files; {args.source} is a folder"
            )
        written = convert_wan22(
            args.source,
            Path(args.destination),
            kinds=args.only or list(WAN22.values()),
            dtype=args.dtype,
            overwrite=args.overwrite,
            conventions=args.conventions,
        )
    print(written)
    return 0


def _export(args: argparse.Namespace) -> int:
    from flashmotion_jax.converters.exporting import export_adapter, export_folder
    from flashmotion_jax.converters.lora_export import export_lora
    from flashmotion_jax.runtime.atomic import check_file, check_folder

    (check_folder if args.layout else check_file)(args.destination)
    if args.lora:
        written = export_lora(args.source, Path(args.destination), args.lora, dtype=args.dtype)
    elif args.adapter:
        written = export_adapter(
            args.source, Path(args.destination), args.adapter, dtype=args.dtype
        )
    else:
        written = export_folder(
            args.source,
            Path(args.destination),
            args.layout,
            kinds=args.only or list(WAN22.values()),
            dtype=args.dtype,
        )
    print(written)
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from flashmotion_jax.converters.inspection import inspect
    from flashmotion_jax.converters.names import read_names

    component = args.component and KINDS[args.component]
    print(inspect(args.source, component=component, names=args.map and read_names(args.map)))
    return 0


def _verify(args: argparse.Namespace) -> int:
    """Returns 1 if a component's weights are not those that were written."""
    from flashmotion_jax.checkpoints.verification import verify_components

    damaged = 0
    for kind, problem in verify_components(args.source):
        print(f"{kind}: {problem or 'intact'}", flush=True)
        damaged += problem is not None
    print(f"{args.source}: {damaged} damaged components" if damaged else f"{args.source}: intact")
    return 1 if damaged else 0


def _metrics(args: argparse.Namespace) -> int:
    from flashmotion_jax.evaluation.features.conversion import convert_metrics

    print(convert_metrics(args.source, Path(args.destination)))
    return 0
