"""Checkpoints in 8 bits: written, read, rounded while they are read, and turned back to floats."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax import Pipeline
from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.eight_bits import require_matmuls
from flashmotion_jax.checkpoints.verification import verify_components
from flashmotion_jax.config import DiTConfig, SamplingConfig, TextEncoderConfig, VAEConfig
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime.errors import UserError

CONFIG = DiTConfig(
    dim=16, num_heads=2, ffn_dim=24, num_layers=2, in_channels=4, out_channels=4, text_dim=8
)
LAYER = "blocks.ffn.up"


@pytest.fixture(scope="module")
def kernels():
    """Readers of a DiT of random floats."""
    module = components.abstract_module("dit", CONFIG, "float32")
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(variable.get_value().shape).astype(np.float32)
        for name, variable in components.flat_parameters(module).items()
    }
    return {name: lambda array=array: array for name, array in arrays.items()}


@pytest.fixture(scope="module", params=["float32", "int8", "fp8"])
def stored(request, kernels, tmp_path_factory):
    """The same DiT on disk in each dtype."""
    folder = tmp_path_factory.mktemp("stored")
    components.write_sampling(folder, SamplingConfig())
    components.save_component(folder, "dit", CONFIG, kernels, request.param)
    return folder, request.param


def floats(module):
    """The kernel of a layer, whatever it is stored in."""
    values = components.flat_parameters(module)
    if f"{LAYER}.kernel" in values:
        return np.asarray(values[f"{LAYER}.kernel"].get_value())
    weight, scale = (values[f"{LAYER}.{name}"].get_value() for name in ("weight", "weight_scale"))
    return np.asarray(weight.astype(jnp.float32) * scale[..., None]).swapaxes(1, 2)


@pytest.mark.parametrize("weights", [None, "int8", "fp8", "float32"])
def test_any_format_is_read_as_any_other(stored, kernels, weights):
    folder, dtype = stored
    module = components.load_component(folder, "dit", "float32", weights)
    kernel = kernels[f"{LAYER}.kernel"]()
    largest = np.abs(kernel).max(1, keepdims=True)
    formats = {dtype, weights or dtype}
    # Half a step of int8 is 1 / 254 of the largest value; float8 has four bits: 1 / 16 of each.
    bound = largest * (("int8" in formats) * 1.01 / 254) + np.abs(kernel) * ("fp8" in formats) / 16
    bound += largest * ("fp8" in formats) / 448 / 512  # subnormal numbers of float8
    assert (np.abs(floats(module) - kernel) <= bound * 1.1 + 1e-7).all()
    expected = {"int8": jnp.int8, "fp8": jnp.float8_e4m3fn}.get(weights or dtype)
    assert (expected is None) == hasattr(module.blocks.ffn.up, "kernel")
    if expected is not None:
        assert module.blocks.ffn.up.weight.dtype == expected
    assert module.patch_embedding.kernel.dtype == jnp.float32


def test_a_checkpoint_in_8_bits_is_smaller_and_verified(stored):
    folder, dtype = stored
    component = components.read_component(folder, "dit")
    assert component.dtype == dtype
    assert [problem for _, problem in verify_components(folder)] == [None]


def test_a_policy_of_training_reads_floats(stored):
    folder, _ = stored
    module = components.load_component(folder, "dit", Policy("bfloat16", "float32"))
    assert module.blocks.ffn.up.kernel.dtype == jnp.float32


def test_nan_is_found_while_weights_are_rounded(kernels, tmp_path):
    def broken():
        array = kernels[f"{LAYER}.kernel"]().copy()
        array[1, 3, 5] = np.nan
        return array

    components.write_sampling(tmp_path, SamplingConfig())
    params = {**kernels, f"{LAYER}.kernel": broken}
    components.save_component(tmp_path, "dit", CONFIG, params, "bfloat16")
    with pytest.raises(UserError, match=r"NaN or infinity in blocks\.ffn\.up\.weight_scale"):
        components.load_component(tmp_path, "dit", "float32", "int8")


def test_convolutions_stay_floats():
    encoder = components.abstract_module("text_encoder", TextEncoderConfig(), "int8")
    assert encoder.token_embedding.weight.dtype == jnp.int8
    vae = components.abstract_module("vae", VAEConfig(), "int8")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(vae)} <= {"bfloat16", "float32"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "int4"}, "weights='int4'; expected one of int8, fp8, float32, bfloat16"),
        ({"dtype": "int8"}, "dtype='int8'; expected one of float32, bfloat16"),
        ({"weights": "fp8"}, "fp8 on cpu, which has no matmul of float8; use weights in int8"),
    ],
)
def test_what_a_device_cannot_multiply(options, message):
    with pytest.raises(UserError, match=message):
        Pipeline.from_pretrained(**options)


@pytest.mark.parametrize(
    ("platform", "kind", "capability", "runs"),
    [
        ("gpu", "NVIDIA A100-SXM4-80GB", "8.0", False),
        ("gpu", "NVIDIA L4", "8.9", True),
        ("gpu", "NVIDIA H200", "9.0", True),
        ("gpu", "NVIDIA B200", "10.0", True),
        ("tpu", "TPU v6 lite", "", False),
        ("tpu", "TPU7x", "", True),
    ],
)
def test_which_devices_multiply_float8(monkeypatch, platform, kind, capability, runs):
    device = types.SimpleNamespace(
        platform=platform, device_kind=kind, compute_capability=capability
    )
    monkeypatch.setattr(jax, "devices", lambda: [device])
    require_matmuls("int8")
    if runs:
        require_matmuls("fp8")
    else:
        with pytest.raises(UserError, match=f"fp8 on {kind}"):
            require_matmuls("fp8")
