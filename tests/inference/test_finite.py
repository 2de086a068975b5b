"""Nothing is made of numbers that are none: one NaN or infinity in a weight, or from a stage."""

from __future__ import annotations

import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax import Pipeline, SamplingConfig
from flashmotion_jax.checkpoints import components
from flashmotion_jax.cli.main import main
from flashmotion_jax.runtime.errors import UserError
from helpers import tiny

SAMPLING = SamplingConfig(height=32, width=64, num_frames=9)
IMAGE = np.full((32, 64, 3), 90, np.uint8)
MAPS = np.zeros((9, 32, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("checkpoint"), SAMPLING)


def spoil(array, value):
    """An array with one other value, in its middle."""
    flat = np.array(array)
    flat.reshape(-1)[flat.size // 2] = value
    return flat


@pytest.mark.parametrize(
    ("kind", "value"),
    [("dit", np.nan), ("vae", np.inf), ("text_encoder", -np.inf), ("adapters/resnet", np.nan)],
)
def test_a_weight_that_is_none_is_named_and_nothing_is_written(
    folder, tmp_path, capsys, kind, value
):
    model = shutil.copytree(folder, tmp_path / "model")
    component = components.read_component(model, kind)
    params = dict(components.parameter_readers(components.load_component(model, kind)))
    name = list(params)[-1]
    read = params[name]
    components.save_component(
        model,
        kind,
        component.config,
        params | {name: lambda: spoil(read(), value)},
        component.dtype,
        dit_config=component.dit_config,
        overwrite=True,
    )
    out, maps = tmp_path / "out" / "video.mp4", tmp_path / "maps.npy"
    np.save(maps, MAPS)
    arguments = ["sample", "--model", str(model), "--trajectory", str(maps), "--out", str(out)]
    assert main([*arguments, "--height", "32", "--width", "64", "--num-frames", "9"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].endswith(f"{kind} holds NaN or infinity in {name}; convert or train it again")
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("kind", "part", "stage"),
    [
        ("text_encoder", "", "text"),
        ("vae", "encoder", "encode"),
        ("dit", "", "denoise"),
        ("adapter", "", "denoise"),
        ("vae", "decoder", "decode"),
    ],
)
def test_a_stage_that_computes_nan_is_named(folder, kind, part, stage):
    """Models in memory are not checked when they are loaded; their results are."""
    checkpoint = components.open_checkpoint(folder, "resnet")
    paths = {name: name for name in ("dit", "vae", "text_encoder")} | {"adapter": "adapters/resnet"}
    models = {
        name: components.load_component(folder, path, "float32") for name, path in paths.items()
    }
    variable = next(
        variable
        for name, variable in components.flat_parameters(models[kind]).items()
        if name.startswith(part) and name.endswith("kernel")
    )
    variable.set_value(jnp.asarray(spoil(variable.get_value(), np.nan)))
    pipe = Pipeline(
        {name: lambda model=model: model for name, model in models.items()},
        tokenizer=checkpoint.tokenizer,
        dit_config=checkpoint.config.dit,
        vae_config=checkpoint.config.vae,
        sampling=SAMPLING,
    )
    with pytest.raises(FloatingPointError, match=f"the stage '{stage}' computed NaN or infinity"):
        pipe(IMAGE, "a red ball", MAPS)


@pytest.mark.parametrize("scale", [np.nan, np.inf, 1e308, -1e39])
def test_a_scale_beyond_float32_is_refused_before_models_load(folder, scale):
    with pytest.raises(UserError, match=r"adapter_scale=.*; expected a finite number"):
        Pipeline.from_pretrained(folder, "resnet")(IMAGE, "", MAPS, adapter_scale=scale)


def test_a_scale_that_overflows_stops_the_denoising(folder):
    pipe = Pipeline.from_pretrained(folder, "resnet")
    with pytest.raises(FloatingPointError, match=r"the stage 'denoise' .* lower the scales"):
        pipe(IMAGE, "a red ball", MAPS, adapter_scale=3e38)
