"""The sparse adapter against diffusers, and what it must not look at."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flashmotion_jax.config.adapters import SparseCtrlConfig
from flashmotion_jax.converters import dit as names
from flashmotion_jax.converters.mapping import Row
from flashmotion_jax.models.adapters.condition import sparse_condition
from flashmotion_jax.models.adapters.sparsectrl import SparseCtrl
from helpers import tiny
from helpers.parity import channels_first, channels_last, state_dict

KNOWN = np.array([[True, False, True], [False, True, False]])


@jax.jit
def residuals(adapter, trajectory, latents, timesteps, text):
    """Residuals of all blocks, `[L, B, T, P, D]`."""
    stream = adapter(adapter.prepare(trajectory, text), latents, timesteps, 1.0)
    return jax.lax.scan(stream.step, stream.carry, stream.layers)[1]


@pytest.fixture(scope="module")
def adapter():
    make = lambda: SparseCtrl(SparseCtrlConfig(), tiny.DIT, rngs=nnx.Rngs(0))  # noqa: E731
    return tiny.random_module(make, 1)


def condition(seed=3, shape=(2, 3, 4, 6, 48)):
    return sparse_condition(tiny.normal(seed, *shape), jnp.asarray(KNOWN))


def test_equals_sparse_control_of_diffusers(adapter):
    """Its input layers around diffusers' blocks.

    `SparseControlNetModel.forward`: `sample = zeros_like(sample)`, then
    `conv_in(sample) + controlnet_cond_embedding(cat([condition, mask], dim=1))`.
    """
    torch = pytest.importorskip("torch")
    config = tiny.DIT
    reference = tiny.diffusers_dit(config)
    rows = [*names.table(config, "diffusers"), Row("projections", "projections.{layer}")]
    tensors = state_dict(adapter, rows)
    copied = {
        key: tensor
        for key, tensor in tensors.items()
        if not key.startswith(("patch_embedding", "projections"))
    }
    missing = reference.load_state_dict(copied, strict=False).missing_keys
    assert {key.split(".")[0] for key in missing} == {
        "patch_embedding",
        "proj_out",
        "scale_shift_table",
    }

    class SparseInput(torch.nn.Module):
        def __init__(self):
            super().__init__()
            patch = (1, *config.patch_size)
            self.conv_in = torch.nn.Conv3d(48, config.dim, patch, patch)
            self.controlnet_cond_embedding = torch.nn.Conv3d(49, config.dim, patch, patch)
            self.controlnet_cond_embedding.weight.data = tensors["patch_embedding.weight"]
            self.controlnet_cond_embedding.bias.data.zero_()
            self.conv_in.bias.data = tensors["patch_embedding.bias"]

        def forward(self, sample):
            sample = torch.zeros_like(sample)
            return self.conv_in(sample) + self.controlnet_cond_embedding(self.condition)

    reference.patch_embedding = SparseInput()
    masked = channels_first(condition())
    reference.patch_embedding.condition = masked
    outputs = []
    for block in reference.blocks:
        block.register_forward_hook(lambda *arguments: outputs.append(arguments[-1]))
    latents, timesteps, text = tiny.dit_inputs()
    per_token = torch.tensor(np.repeat(np.asarray(timesteps), 6, axis=1))
    with torch.no_grad():
        reference.eval()(channels_first(latents), per_token, torch.tensor(np.asarray(text)))
    kernels, biases = (np.asarray(leaf[...]) for leaf in (
        adapter.projections.kernel, adapter.projections.bias
    ))  # fmt: skip
    expected = [
        output.numpy() @ kernel + bias
        for output, kernel, bias in zip(outputs, kernels, biases, strict=True)
    ]
    actual = residuals(adapter, condition(), latents, timesteps, text)
    for one, other in zip(actual, expected, strict=True):
        one = np.asarray(one).reshape(other.shape)
        np.testing.assert_allclose(one, other, rtol=0, atol=5e-5)
    assert channels_last(masked).shape[-1] == 49 and np.abs(expected).max() > 0.1


def test_neither_noise_nor_unknown_frames_change_a_bit(adapter):
    latents, timesteps, text = tiny.dit_inputs()
    maps = tiny.normal(3, *latents.shape)
    other = jnp.where(KNOWN[..., None, None, None], maps, jnp.nan)
    known = jnp.asarray(KNOWN)
    one = residuals(adapter, sparse_condition(maps, known), latents, timesteps, text)
    two = residuals(adapter, sparse_condition(other, known), -latents, timesteps, text)
    np.testing.assert_array_equal(one, two)


def test_a_known_frame_of_zeros_is_no_unknown_one(adapter):
    latents, timesteps, text = tiny.dit_inputs()
    zeros = jnp.zeros(latents.shape)
    results = [
        residuals(
            adapter, sparse_condition(zeros, jnp.full((2, 3), known)), latents, timesteps, text
        )
        for known in (True, False)
    ]
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_known_frames_reach_the_others(adapter):
    """The blocks attend to all frames: a condition on frame 0 changes the residuals of frame 2."""
    latents, timesteps, text = tiny.dit_inputs()
    known = jnp.asarray([[True, False, False]] * 2)
    one, two = (
        residuals(adapter, sparse_condition(maps, known), latents, timesteps, text)
        for maps in (tiny.normal(3, *latents.shape), tiny.normal(4, *latents.shape))
    )
    assert np.abs(one - two)[1:, :, 2].max() > 1e-4


def test_it_starts_as_a_copy_that_sees_no_condition():
    dit, (latents, timesteps, text) = tiny.make_dit(), tiny.dit_inputs()
    fresh = SparseCtrl(SparseCtrlConfig(), tiny.DIT, rngs=nnx.Rngs(1))
    copied = fresh.copy_from_dit(dit)
    np.testing.assert_array_equal(copied.blocks.ffn.up.kernel[...], dit.blocks.ffn.up.kernel[...])
    assert not copied.patch_embedding.kernel[...].any()
    np.testing.assert_array_equal(copied.patch_embedding.bias[...], dit.patch_embedding.bias[...])
    assert not residuals(copied, condition(), latents, timesteps, text).any()


def test_the_condition_is_the_same_with_numpy_and_with_jax():
    maps = np.asarray(tiny.normal(3, 3, 4, 6, 48))
    by_numpy = sparse_condition(maps, KNOWN[0])
    assert isinstance(by_numpy, np.ndarray) and by_numpy.shape == (3, 4, 6, 49)
    np.testing.assert_array_equal(
        by_numpy, sparse_condition(jnp.asarray(maps), jnp.asarray(KNOWN[0]))
    )
    np.testing.assert_array_equal(by_numpy[..., -1].max(axis=(1, 2)), KNOWN[0])


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_what_is_no_probability_raises(value):
    with pytest.raises(ValueError, match=r"none_known=.*; expected a probability, from 0 to 1"):
        SparseCtrlConfig(none_known=value)
