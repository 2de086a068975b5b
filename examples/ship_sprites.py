"""Puts the trained models of `sprites.sh` into one small checkpoint, which the package ships.

    python examples/ship_sprites.py [OUT]

bfloat16 halves the files; on a CPU they are computed with in float32 all the same. Without OUT:
`flashmotion_jax/assets/tiny`, in place of what is there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import flashmotion_jax
from flashmotion_jax.commands import exit_status
from flashmotion_jax.files import replacing_folder
from flashmotion_jax.models import checkpoint

RUNS = Path("runs/sprites")
ADAPTERS = ("resnet", "controlnet")
#: Of all files, in bytes: the package is to stay light.
LIMIT = 25e6


def main() -> int:
    """Runs the command line; its exit status, 2 for bad input."""
    return exit_status("ship_sprites", run)


def run() -> int:
    """Writes the checkpoint, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    package = Path(flashmotion_jax.__file__).parent
    default = package / "assets" / "tiny"
    parser.add_argument("out", type=Path, nargs="?", default=default, metavar="OUT")
    out = parser.parse_args().out
    models = {adapter: RUNS / f"stage3_{adapter}" / "model" for adapter in ADAPTERS}
    generators = {checkpoint.read_component(model, "dit").key for model in models.values()}
    if len(generators) > 1:
        raise ValueError(f"{' and '.join(map(str, models.values()))} have different generators")
    with replacing_folder(out) as scratch:
        source = models["resnet"]
        checkpoint.save_tokenizer(scratch, source / "tokenizer")
        checkpoint.write_sampling(scratch, checkpoint.read_sampling(source))
        for kind in ("dit", "vae", "text_encoder"):
            copy(source, scratch, kind)
        for adapter, model in models.items():
            copy(model, scratch, f"adapters/{adapter}")
        size = sum(file.stat().st_size for file in scratch.rglob("*") if file.is_file())
        if size > LIMIT:
            raise ValueError(f"{size / 1e6:.1f} MB; expected at most {LIMIT / 1e6:.0f}")
    print(f"wrote {out}: {size / 1e6:.1f} MB")
    return 0


def copy(source: Path, out: Path, kind: str) -> None:
    """Copies a component in bfloat16, compressed."""
    component = checkpoint.read_component(source, kind)
    module = checkpoint.load_component(source, kind, "float32")
    checkpoint.save_component(
        out,
        kind,
        component.config,
        checkpoint.parameter_readers(module),
        "bfloat16",
        dit_config=component.dit_config,
        compress=True,
    )


if __name__ == "__main__":
    sys.exit(main())
