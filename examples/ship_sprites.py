"""Writes the models that `sprites.sh` trained to two small checkpoints of the repository.

    python examples/ship_sprites.py [OUT] [--stored OUT]

OUT, by default `flashmotion_jax/assets/tiny`, is the checkpoint that the package includes, with
FastGenerator and FastAdapters. The other, by default `examples/sprites_stored`, has the
SlowGenerator and SlowAdapters that they were trained from, so that stages 2 and 3 can be trained
directly. Existing checkpoints are replaced. Weights are stored in bfloat16; CPUs compute with them
in float32.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import flashmotion_jax
from flashmotion_jax.checkpoints import components
from flashmotion_jax.cli.options import add_traceback
from flashmotion_jax.runtime.atomic import replacing_folder
from flashmotion_jax.runtime.errors import UserError, exit_status

RUNS = Path("runs/sprites")
ADAPTERS = ("resnet", "controlnet")
#: Maximum size of a checkpoint in bytes, to keep the package small.
LIMIT = 25e6


def main() -> int:
    """Runs the command line and returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    package = Path(flashmotion_jax.__file__).parent
    shipped, stored = package / "assets" / "tiny", Path(__file__).parent / "sprites_stored"
    parser.add_argument("out", type=Path, nargs="?", default=shipped, metavar="OUT")
    parser.add_argument("--stored", type=Path, default=stored, metavar="OUT")
    add_traceback(parser)
    args = parser.parse_args()
    return exit_status("ship_sprites", lambda: run(args), traceback="traceback" in args)


def run(args: argparse.Namespace) -> int:
    """Writes the checkpoints, each complete or not at all."""
    write(args.stored, {adapter: RUNS / f"stage1_box_{adapter}" / "model" for adapter in ADAPTERS})
    write(args.out, {adapter: RUNS / f"stage3_{adapter}" / "model" for adapter in ADAPTERS})
    return 0


def write(out: Path, models: dict[str, Path]) -> None:
    """Combines several models that differ only in their adapters into one checkpoint.

    The tiny autoencoder comes from them, or from its own run.
    """
    generators = {components.read_component(model, "dit").key for model in models.values()}
    if len(generators) > 1:
        raise UserError(f"{' and '.join(map(str, models.values()))} have different generators")
    with replacing_folder(out) as scratch:
        source = models["resnet"]
        components.save_tokenizer(scratch, source / "tokenizer")
        components.write_sampling(scratch, components.read_sampling(source))
        for kind in ("dit", "vae", "text_encoder"):
            copy(source, scratch, kind)
        if tiny := tiny_decoder(source):
            copy(tiny, scratch, "tiny_vae")
        for adapter, model in models.items():
            copy(model, scratch, f"adapters/{adapter}")
        size = sum(file.stat().st_size for file in scratch.rglob("*") if file.is_file())
        if size > LIMIT:
            raise UserError(f"{size / 1e6:.1f} MB; expected at most {LIMIT / 1e6:.0f}")
    print(f"wrote {out}: {size / 1e6:.1f} MB")


def tiny_decoder(source: Path) -> Path | None:
    """The model with the tiny autoencoder of a model's latents, or None if none was trained."""
    for model in (source, RUNS / "tiny_decoder" / "model"):
        if not (model / "tiny_vae").exists():
            continue
        # The decoder of the VAE may have been trained since, which leaves its latents as they are.
        configs = [components.read_component(one, "vae").config for one in (source, model)]
        if configs[0] != configs[1]:
            raise UserError(
                f"the tiny VAE of {model} is for the latents of another VAE; retrain it"
            )
        return model
    return None


def copy(source: Path, out: Path, kind: str) -> None:
    """Copies a component in bfloat16, compressed."""
    component = components.read_component(source, kind)
    module = components.load_component(source, kind, "float32")
    components.save_component(
        out,
        kind,
        component.config,
        components.parameter_readers(module),
        "bfloat16",
        dit_config=component.dit_config,
        compress=True,
    )


if __name__ == "__main__":
    sys.exit(main())
