"""Prints the differences from PyTorch, and of bfloat16 from float32, for docs/parity.md.

PYTHONPATH=.:tests python tools/measure_parity.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from flashmotion_jax.config import DiTConfig
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime.tables import markdown_table
from helpers import tiny

BFLOAT16 = Policy(jnp.bfloat16, jnp.bfloat16)


def load(name):
    """The comparisons of tests/models/test_NAME.py."""
    path = Path(__file__).parents[1] / "tests" / "models" / f"test_{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(what, actual, expected):
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    difference = actual - expected
    relative = np.linalg.norm(difference) / np.linalg.norm(expected)
    return [what, f"{np.abs(difference).max():.1e}", f"{relative:.1e}"]


def measure_dit():
    dit = load("dit")
    yield row("DiT, 3 layers of width 48, 18 tokens", *dit.live(tiny.DIT))
    shapes = {"batch": 1, "frames": 5, "height": 20, "width": 22, "tokens": 64}
    config = DiTConfig(num_layers=2)
    yield row("DiT, 2 layers of width 3072, 550 tokens", *dit.live(config, **shapes))
    model, inputs = tiny.make_dit(config), tiny.dit_inputs(config=config, **shapes)
    exact = dit.forward(model, *inputs)
    rounded = tiny.make_dit(config, policy=BFLOAT16)
    yield row("the same in bfloat16, compared with float32", dit.forward(rounded, *inputs), exact)


def measure_vae():
    vae = load("vae")
    model = vae.make_vae()
    reference = vae.make_reference(model)
    for frames, height, width in [(1, 32, 48), (5, 32, 64), (9, 64, 32), (17, 32, 48)]:
        video = vae.make_video(frames, height, width)
        latents = vae.make_latents((frames + 3) // 4, height // 16, width // 16)
        encoded, decoded = vae.run_reference(reference, video, latents)
        size = f"{frames} x {height} x {width}"
        yield row(f"VAE encode, {size}", vae.encode(model, video), encoded)
        yield row(f"VAE decode, {size}", vae.decode(model, latents), decoded)
    rounded = vae.make_vae(policy=BFLOAT16)
    exact = vae.decode(model, latents)
    yield row("VAE decode in bfloat16, compared with float32", vae.decode(rounded, latents), exact)


def measure_text_encoder():
    text = load("text_encoder")
    output = text.make_encoder()(text.IDS, text.MASK)
    yield row("UMT5, 3 layers, up to 300 tokens", output, text.reference_output())


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    rows = [*measure_dit(), *measure_vae(), *measure_text_encoder()]
    print(markdown_table(["model", "largest difference", "relative"], rows), end="")
