"""Options that several commands share, and how commands report progress."""

from __future__ import annotations

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from flashmotion_jax.config import ADAPTERS, Decoder, Weights, sparse_adapters
from flashmotion_jax.runtime.errors import UserError

DTYPES = ("bfloat16", "float32")


class Parser(argparse.ArgumentParser):
    """A parser whose commands, at every level, take `--traceback` and report errors in one line."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        add_traceback(self)

    def error(self, message: str) -> NoReturn:
        """Exits with status 2; argparse would print the whole usage before the message."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_traceback(parser: argparse.ArgumentParser) -> None:
    """Adds `--traceback`; `"traceback" in args` then says whether it was given."""
    parser.add_argument(
        "--traceback",
        action="store_true",
        # A default would replace what an option before the name of a command has set.
        default=argparse.SUPPRESS,
        help="print the Python traceback of every error, not only of bugs",
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`, required, and `--set`."""
    parser.add_argument(
        "--config",
        required=True,
        type=path_text,
        metavar="NAME|F.py",
        help="name of a configuration or path of a file, for instance stage3 or my.py; text after "
        "a colon is passed to its get_config, as in stage3:ADAPTER",
    )
    add_overrides(parser, "stage.optimizer.learning_rate=1e-5")


def add_overrides(parser: argparse.ArgumentParser, example: str) -> None:
    """Adds `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"override a field of the configuration, for instance {example}; repeatable",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`."""
    parser.add_argument(
        "--model",
        type=path_text,
        metavar="DIR",
        help="checkpoint folder (default: the included small 64x64 model)",
    )


def add_adapter(parser: argparse.ArgumentParser, default: str | None, text: str) -> None:
    """Adds `--adapter`."""
    parser.add_argument("--adapter", choices=(*ADAPTERS, "none"), default=default, help=text)


def add_known_frames(parser: argparse.ArgumentParser) -> None:
    """Adds `--known-frames`."""
    parser.add_argument(
        "--known-frames",
        type=frames,
        metavar="N,N,...|all",
        help=f"frames on which --adapter {' or '.join(sparse_adapters())} knows the trajectory "
        "(default: its keyframes)",
    )


def add_camera(parser: argparse.ArgumentParser) -> None:
    """Adds `--camera`, whose texts `trajectory.Camera.parse` reads."""
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="MOVE",
        help="move the objects of the trajectory as a camera would, by the last frame: pan:DX,DY "
        "moves the picture by widths and heights, zoom:FACTOR, roll:DEGREES turns it clockwise, "
        "dolly:DISTANCE[,ID=DEPTH...] moves into it (default depth: 1); anchors adds objects of "
        "the background, static keeps them in place; repeatable, see docs/trajectories.md "
        "(default: none)",
    )


def add_size(parser: argparse.ArgumentParser, sides: str, frames: str) -> None:
    """Adds `--height`, `--width` and `--num-frames`, with help for the sides and the frames."""
    parser.add_argument("--height", type=int, metavar="N", help=sides)
    parser.add_argument("--width", type=int, metavar="N", help=sides)
    parser.add_argument("--num-frames", type=int, metavar="N", help=frames)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Adds `--dtype`."""
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="dtype of matmuls and convolutions (default: bfloat16; float32 on a CPU)",
    )


def add_decoder(parser: argparse.ArgumentParser) -> None:
    """Adds `--decoder`."""
    parser.add_argument(
        "--decoder",
        choices=get_args(Decoder),
        default="full",
        help="the VAE, or the tiny VAE of the model, which is many times faster and softer "
        "(default: full)",
    )


def add_weights(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--weights`, with help for its default."""
    parser.add_argument(
        "--weights",
        choices=get_args(Weights),
        help="dtype of stored weights; int8 or fp8: large linear layers of DiT, its copies and "
        f"text encoder, and their matmuls, in 8 bits; see docs/low_memory.md (default: {default})",
    )


def add_attention(parser: argparse.ArgumentParser) -> None:
    """Adds `--attention`."""
    parser.add_argument(
        "--attention",
        choices=("cuDNN", "tokamax"),
        default="cuDNN",
        help="flash attention on NVIDIA GPUs; tokamax: H100 and later, after pip install "
        "'flashmotion_jax[tokamax]' (default: cuDNN)",
    )


def set_outputs(
    parser: argparse.ArgumentParser,
    *,
    videos: Sequence[str] = (),
    files: Sequence[str] = (),
    folders: Sequence[str] = (),
) -> None:
    """Declares the arguments that name what a command writes, for `check_outputs`."""
    parser.set_defaults(outputs={"video": videos, "file": files, "folder": folders})


def check_outputs(args: argparse.Namespace) -> None:
    """Checks that a command can write all that it was asked to, before it starts to work.

    Raises:
      UserError: An output is not a path that can be written, or two are the same.
    """
    from flashmotion_jax.media.videos import check_output
    from flashmotion_jax.runtime.atomic import check_file, check_folder

    checks = {"video": check_output, "file": check_file, "folder": check_folder}
    given: set[Path] = set()
    for kind, names in getattr(args, "outputs", {}).items():
        for path in [getattr(args, name) for name in names]:
            if path is None:
                continue
            checks[kind](path)
            if Path(path).absolute() in given:
                raise UserError(f"{path} is given for two outputs; choose another name for one")
            given.add(Path(path).absolute())


def path_text(text: str) -> str:
    """Parses the path of a file or folder, or the name of a model on Hugging Face.

    Raises:
      argparse.ArgumentTypeError: the text is empty, which often is an unset variable of a shell, or
        contains a null character.
    """
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be the name of a file; expected a path")
    return text


def path(text: str) -> Path:
    """Parses a path, as `path_text` does."""
    return Path(path_text(text))


def frames(text: str) -> tuple[int, ...] | Literal["all"]:
    """Parses frame numbers with commas, or "all".

    Raises:
      argparse.ArgumentTypeError: it is neither.
    """
    if text.strip() == "all":
        return "all"
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected frame numbers with commas, such as 0,40,120, or all"
        ) from None


def key_frame(text: str) -> tuple[int, str]:
    """Parses FRAME=IMAGE.

    Raises:
      argparse.ArgumentTypeError: The text has another form.
    """
    frame, equals, file = text.partition("=")
    if not (equals and file and frame.strip().isdecimal()):
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected a frame, an equals sign and an image, as in 60=middle.png"
        )
    return int(frame), path_text(file)


def lora(text: str) -> tuple[str, float]:
    """Parses FILE or FILE:WEIGHT, a LoRA.

    Raises:
      argparse.ArgumentTypeError: there is no file, or the weight is not a finite number.
    """
    file, colon, weight = text.rpartition(":")
    if not colon or "/" in weight or "\\" in weight:  # a colon of a folder or of a drive
        return path_text(text), 1.0
    try:
        number = float(weight)
    except ValueError:
        if "." in weight:  # a colon of the file's own name
            return path_text(text), 1.0
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected a file, or a file, a colon and a weight, as in a.safetensors:0.8"
        )
    return path_text(file), number


def positive(text: str) -> int:
    """Parses a number of things.

    Raises:
      argparse.ArgumentTypeError: the text is not a whole number, or below 1.
    """
    if not (text.strip().isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number, at least 1")
    return int(text)


def part(text: str) -> tuple[int, int]:
    """Parses N/M: part N, counted from 1, of M parts that share some work.

    Raises:
      argparse.ArgumentTypeError: the text has another form, or N is not between 1 and M.
    """
    try:
        number, count = (int(word) for word in text.split("/"))
    except ValueError:
        number, count = 0, 0
    if not 1 <= number <= count:
        raise argparse.ArgumentTypeError(f"{text!r}; expected N/M, for instance 2/8")
    return number, count


@contextmanager
def progress_bars() -> Generator[Callable[[str, int, int], None], None, None]:
    """Yields a `runtime.progress.Progress` that draws one bar on stderr for each stage."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            bars[stage] = tqdm(total=total, desc=f"{stage:8}", unit="step", file=sys.stderr)
        bar = bars[stage]
        bar.update(max(0, done - bar.n))
        if done == total:
            bar.close()

    try:
        yield progress
    finally:
        for bar in bars.values():
            bar.close()


def keep_compiled_programs() -> None:
    """Chooses the folder where JAX keeps compiled programs for later commands.

    The folder is `flashmotion/compiled` in the user's cache directory. JAX_COMPILATION_CACHE_DIR
    names another one; JAX_ENABLE_COMPILATION_CACHE=false keeps nothing. Only commands call this,
    before JAX is imported: the library leaves the settings of its user's program alone.

    Programs are kept however quickly they compile. JAX keeps those that take a second or more,
    which on a fast machine none of the included model does.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "flashmotion" / "compiled"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@contextmanager
def plain_warnings(program: str) -> Generator[None]:
    """Prints warnings for users as `program: warning: TEXT`, without the line of code."""
    original = warnings.formatwarning

    def format_warning(message, category, filename, lineno, line=None) -> str:
        if category is UserWarning:
            return f"{program}: warning: {message}\n"
        return original(message, category, filename, lineno, line)

    warnings.formatwarning = format_warning
    try:
        yield
    finally:
        warnings.formatwarning = original


def print_status(text: str) -> None:
    """Prints a line about work in progress to stderr."""
    print(text, file=sys.stderr, flush=True)
