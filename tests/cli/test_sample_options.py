"""Options of `flashmotion sample` that replace a checkpoint's conventions."""

from __future__ import annotations

import pytest

from flashmotion_jax.cli.main import build_parser, main
from flashmotion_jax.cli.sample import _request
from flashmotion_jax.config import SamplingConfig


class Recorder:
    """A fake pipeline that keeps the settings it is asked for."""

    sampling = SamplingConfig().with_conventions("turbo")

    def request(self, *args, sampling, **options):
        return sampling


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ([], {}),
        (["--few-step-grid", "warped"], {"warp_denoising_steps": True}),
        (["--few-step-grid", "raw"], {"warp_denoising_steps": False}),
        (["--timestep-rounding", "none"], {"timestep_rounding": "none"}),
        (["--sampler", "dpm++", "--solver-grid", "diffusers"], {"sampler": "dpm++"}),
        (["--size-from", "image", "--resize", "crop"], {"size_from": "image", "resize": "crop"}),
    ],
)
def test_conventions(options, changes):
    args = build_parser().parse_args(["sample", *options])
    sampling = _request(Recorder(), args, None)
    expected = {"warp_denoising_steps": False, "timestep_rounding": "bfloat16"}
    expected |= {"resize": "stretch", "size_from": "model"} | changes
    assert {name: getattr(sampling, name) for name in expected} == expected


def test_unknown_conventions_are_refused(capsys):
    for option in ("--sampler", "--few-step-grid", "--resize", "--timestep-rounding"):
        with pytest.raises(SystemExit):
            build_parser().parse_args(["sample", option, "other"])
        assert f"argument {option}" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"timestep_rounding='up' is unknown; use one of none, in"):
        SamplingConfig(timestep_rounding="up")
    with pytest.raises(ValueError, match="resize='pad' is unknown; use one of crop, stretch"):
        SamplingConfig(resize="pad")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--camera", "pan:0.2"], "camera 'pan:0.2'; expected pan:DX,DY, zoom:FACTOR"),
        (["--camera", "static", "--camera", "zoom:2"], "camera static with zoom; leave static out"),
        (["--camera", "zoom:2"], "--camera zoom:2 needs a --trajectory; give one, or omit it"),
    ],
)
def test_a_bad_camera_is_one_line_before_any_work(options, message, capsys):
    assert main(["sample", "--model", "missing", *options]) == 2
    assert message in capsys.readouterr().err
