"""`python -m flashmotion_jax.data.sprites OUT`: exports clips as a MagicData folder.

Exit status: 0 done, 1 failed (disk), 2 bad arguments or input, 130 interrupted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tqdm import tqdm

from flashmotion_jax.cli.options import add_traceback
from flashmotion_jax.data.sprites import Sprites, SpritesConfig, export, test_groups
from flashmotion_jax.runtime.errors import exit_status
from flashmotion_jax.runtime.interrupts import exit_process


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: arguments after the program's name; None takes those of the process.

    Returns:
      The exit status.
    """
    args = build_parser().parse_args(argv)
    return exit_status("sprites", lambda: _run(args), traceback="traceback" in args)


def _run(args: argparse.Namespace) -> int:
    config = SpritesConfig(
        num_frames=args.num_frames, height=args.height, width=args.width, fps=args.fps
    )
    if args.split == "train":
        sources = [Sprites(args.count, seed=args.seed, config=config)]
    else:
        sources = list(test_groups(args.per_group, config).values())
    total = sum(len(source) for source in sources)
    with tqdm(total=total, desc="sprites", unit="clip", disable=None) as bar:
        path = export(sources, args.out, progress=lambda done, _: bar.update(done - bar.n))
    print(f"{total} clips in {path}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command."""
    size = SpritesConfig()
    parser = argparse.ArgumentParser(
        prog="python -m flashmotion_jax.data.sprites",
        description="Exports procedural clips in MagicData's layout. Run it again to "
        "resume after an interruption.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", help="output folder: a new one, or one to resume")
    parser.add_argument("--split", choices=("train", "test"), default="train", help="split")
    parser.add_argument(
        "--count", type=int, default=4000, help="number of clips of the training split"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the training split")
    parser.add_argument(
        "--per-group", type=int, default=16, help="clips per group of the test split"
    )
    parser.add_argument("--num-frames", type=int, default=size.num_frames, help="frames per clip")
    parser.add_argument("--height", type=int, default=size.height, help="in pixels")
    parser.add_argument("--width", type=int, default=size.width, help="in pixels")
    parser.add_argument("--fps", type=int, default=size.fps, help="frames per second")
    add_traceback(parser)
    return parser


if __name__ == "__main__":
    exit_process(main())
