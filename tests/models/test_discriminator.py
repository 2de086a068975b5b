from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from flashmotion_jax.checkpoints.components import flat_parameters
from flashmotion_jax.config import DiscriminatorConfig, DiTConfig
from flashmotion_jax.models.discriminator import Discriminator, position_embedding
from flashmotion_jax.models.layers import Policy
from flashmotion_jax.runtime import sharding
from helpers import tiny

CONFIG = DiscriminatorConfig(block_indices=(0, 2), dim=16, num_heads=2)
VARIANTS = {
    "all": {},
    "VC": {"semantic": False, "trajectory": False},
    "SS+VC": {"trajectory": False},
    "TC+VC": {"semantic": False},
    "extra norms": {"extra_norms": True},
}


def make_discriminator(config=CONFIG, dit_config=tiny.DIT, **policy):
    return tiny.random_module(
        lambda: Discriminator(config, dit_config, policy=Policy(**policy), rngs=nnx.Rngs(0)), 4
    )


def make_inputs(batch=2):
    latents, timesteps, text = tiny.dit_inputs(batch=batch)
    return latents, timesteps, text, tiny.normal(6, *latents[:, :1].shape), 0.5 * latents[::-1] + 1


class OutputsOnly:
    """A backbone without blocks: its outputs are given."""

    def __init__(self, outputs_KBTPD):
        self.outputs_KBTPD = outputs_KBTPD

    def block_outputs(self, latents, timesteps, text, block_indices):
        return self.outputs_KBTPD


TAPS = 5 * tiny.normal(7, 2, 2, 3, 6, 48)


@jax.jit
def forward(discriminator, outputs, *inputs):
    return discriminator(OutputsOnly(outputs), *inputs)


class Reference:
    """The discriminator in PyTorch, written from the paper: whole self-attention, no stacking."""

    def __init__(self, discriminator):
        self.torch = pytest.importorskip("torch")
        self.weights = {
            name: self.torch.tensor(np.array(param.get_value(), np.float64))
            for name, param in flat_parameters(discriminator).items()
        }

    def linear(self, x, name, index=...):
        kernel, bias = self.weights[f"{name}.kernel"], self.weights.get(f"{name}.bias")
        bias = None if bias is None else bias[index]
        return self.torch.nn.functional.linear(x, kernel[index].T, bias)

    def mlp(self, x, name, index=...):
        hidden = self.torch.nn.functional.gelu(
            self.linear(x, f"{name}.up", index), approximate="tanh"
        )
        return self.linear(hidden, f"{name}.down", index)

    def norm(self, x):
        return self.torch.nn.functional.layer_norm(x, x.shape[-1:], eps=tiny.DIT.eps)

    def extra_norm(self, x, name, index=...):
        """RMS norm, or layer norm where there is a bias, if the discriminator has it."""
        scale = self.weights.get(f"{name}.scale")
        if scale is None:
            return x
        if f"{name}.bias" in self.weights:
            return self.norm(x) * scale + self.weights[f"{name}.bias"]
        return self.torch.nn.functional.rms_norm(x, x.shape[-1:], scale[index], tiny.DIT.eps)

    def attend(self, queries, tokens, name, index):
        q = self.linear(self.norm(queries), f"{name}.q", index)
        k, v = (self.linear(self.norm(tokens), f"{name}.{part}", index) for part in "kv")
        q, k = (self.extra_norm(x, f"{name}.norm_{n}", index) for x, n in ((q, "q"), (k, "k")))
        q, k, v = (x.unflatten(-1, (CONFIG.num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = self.torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return queries + self.linear(out.transpose(1, 2).flatten(2), f"{name}.o", index)

    def patches(self, latents, name):
        """Non-overlapping 2 x 2 patches by a strided convolution, as in the published DiT."""
        kernel = self.weights[f"{name}.kernel"].unflatten(0, (2, 2, -1)).permute(3, 2, 0, 1)
        frames = latents.flatten(0, 1).permute(0, 3, 1, 2)
        out = self.torch.nn.functional.conv2d(
            frames, kernel, self.weights[f"{name}.bias"], stride=2
        )
        out = out.permute(0, 2, 3, 1).unflatten(0, latents.shape[:2])
        return out.flatten(1, 3) + self.positions(latents, out.shape[-1])

    def positions(self, latents, dim):
        """Of every token: 8 channels of time, 4 of the row, 4 of the column."""
        rows = []
        for t in range(latents.shape[1]):
            for y in range(latents.shape[2] // 2):
                for x in range(latents.shape[3] // 2):
                    row = []
                    for place, width in ((t, dim // 2), (y, dim // 4), (x, dim // 4)):
                        half = width // 2
                        angles = place * 10000.0 ** (-np.arange(half) / half)
                        row += [*np.cos(angles), *np.sin(angles)]
                    rows.append(row)
        return self.torch.tensor(rows, dtype=self.torch.float64)

    def __call__(self, outputs, text, latents, image, trajectory):
        tokens = []
        for index, output in enumerate(outputs):
            query = self.weights["classifiers.query"][index].expand(len(text), 1, -1)
            query = self.extra_norm(query, "classifiers.norm_query", index)
            if "embed_image.kernel" in self.weights:
                image_tokens = self.patches(image, "embed_image")
                row = self.torch.cat([query, image_tokens, self.linear(text, "embed_text")], 1)
                query = self.attend(row, row, "classifiers.semantic", index)[:, :1]
            if "embed_trajectory.kernel" in self.weights:
                context = self.patches(trajectory, "embed_trajectory")
                query = self.attend(query, context, "classifiers.trajectory", index)
            video = self.linear(self.norm(output.flatten(1, 2)), "classifiers.embed_video", index)
            video = video + self.positions(latents, video.shape[-1])
            query = self.attend(query, video, "classifiers.video", index)
            token = self.mlp(self.norm(query), "classifiers.mlp", index)[:, 0]
            residual = query[:, 0] if "classifiers.norm_query.scale" in self.weights else 0
            tokens.append(token + residual)
        return self.mlp(self.extra_norm(self.torch.cat(tokens, -1), "norm_tokens"), "head")[:, 0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_pytorch(variant):
    """Logits, and their gradients by outputs, conditions and every weight."""
    torch = pytest.importorskip("torch")
    config = dataclasses.replace(CONFIG, **VARIANTS[variant])
    discriminator = make_discriminator(config)
    latents, timesteps, text, image, trajectory = make_inputs()
    weight = jnp.array([1.0, -0.6])

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradient(discriminator, inputs):
        outputs, text, image, trajectory = inputs
        logits = discriminator(OutputsOnly(outputs), latents, timesteps, text, image, trajectory)
        return jnp.sum(weight * logits), logits

    (by_weights, by_inputs), logits = gradient(discriminator, (TAPS, text, image, trajectory))

    reference = Reference(discriminator)
    for tensor in reference.weights.values():
        tensor.requires_grad_()
    tensors = [
        torch.tensor(np.asarray(x, np.float64), requires_grad=True)
        for x in (TAPS, text, image, trajectory)
    ]
    expected = reference(tensors[0], tensors[1], latents, *tensors[2:])
    (torch.tensor(np.asarray(weight, np.float64)) * expected).sum().backward()

    assert logits.dtype == jnp.float32 and logits.shape == (2,)
    np.testing.assert_allclose(logits, expected.detach(), rtol=1e-5, atol=1e-5)
    pairs = list(zip(by_inputs, tensors, strict=True))
    for name, param in flat_parameters(by_weights).items():
        pairs.append((param.get_value(), reference.weights[name]))
    for actual, tensor in pairs:
        by_torch = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        assert np.linalg.norm(actual - by_torch) <= 1e-5 * np.linalg.norm(by_torch)


@jax.jit
@functools.partial(jax.grad, has_aux=True)
def classifiers_gradient(discriminator, backbone, *inputs):
    logits = discriminator(backbone, *inputs)
    return jnp.mean(jax.nn.softplus(-logits)), logits


def test_sharded_with_remat_equals_unsharded_without():
    inputs = make_inputs(batch=4)
    expected = jax.tree.leaves(classifiers_gradient(make_discriminator(), tiny.make_dit(), *inputs))
    mesh = sharding.make_mesh(2, 2)
    models = make_discriminator(remat="full"), tiny.make_dit(policy=Policy(remat="full"))
    with jax.set_mesh(mesh):
        models = sharding.place(models, mesh)
        inputs = jax.device_put(inputs, NamedSharding(mesh, sharding.BATCH))
        actual = jax.tree.leaves(classifiers_gradient(*models, *inputs))
        # That of the adapter's loss: a layout that does not fit would raise when traced.
        by_latents = jax.eval_shape(
            jax.grad(lambda latents: jnp.mean(models[0](models[1], latents, *inputs[1:]))),
            inputs[0],
        )
    assert by_latents.sharding.spec[0] == sharding.BATCH[0]
    for one, other in zip(actual, expected, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)


def test_the_gradient_reaches_the_latents_through_the_backbone():
    """Against a difference quotient along a direction."""
    models, (latents, *conditions) = (make_discriminator(), tiny.make_dit()), make_inputs()
    direction = tiny.normal(8, *latents.shape)

    @jax.jit
    def logit_and_slope(latents):
        """The slope by the backward pass, which is what the adapter's loss takes."""
        logit, gradient = jax.value_and_grad(lambda x: models[0](models[1], x, *conditions).sum())(
            latents
        )
        return logit, jnp.vdot(gradient, direction)

    _, slope = logit_and_slope(latents)
    ahead, behind = (logit_and_slope(latents + step * direction)[0] for step in (1e-2, -1e-2))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-2, rtol=1e-2)


def test_sees_the_output_of_the_configured_blocks():
    dit, inputs = tiny.make_dit(), make_inputs()
    one = dataclasses.replace(CONFIG, block_indices=(1,))
    discriminator = make_discriminator(one)

    @jax.jit
    def with_outputs(discriminator, dit, *inputs):
        return discriminator(dit, *inputs), dit.block_outputs(*inputs[:3], (0, 1, 2))

    logits, outputs = with_outputs(discriminator, dit, *inputs)
    for block, is_seen in enumerate((False, True, False)):
        alone = forward(discriminator, outputs[block : block + 1], *inputs)
        assert np.allclose(alone, logits, atol=1e-5) == is_seen


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_switched_off_has_no_weights_and_is_not_seen(variant):
    config = dataclasses.replace(CONFIG, **VARIANTS[variant])
    discriminator = make_discriminator(config)
    names = set(flat_parameters(discriminator))
    semantic = {"embed_image.kernel", "embed_text.kernel", "classifiers.semantic.q.kernel"}
    trajectory = {"embed_trajectory.kernel", "classifiers.trajectory.q.kernel"}
    assert names & semantic == (semantic if config.semantic else set())
    assert names & trajectory == (trajectory if config.trajectory else set())

    latents, timesteps, text, image, boxes = make_inputs()
    seen = forward(discriminator, TAPS, latents, timesteps, text, image, boxes)
    for moved, is_used in (
        ((text + 1, image, boxes), config.semantic),
        ((text, image + 1, boxes), config.semantic),
        ((text, image, boxes[:, :, ::-1]), config.trajectory),
    ):
        logits = forward(discriminator, TAPS, latents, timesteps, *moved)
        assert np.array_equal(logits, seen) != is_used


def test_zeros_of_the_padding_are_attended():
    latents, timesteps, text, image, trajectory = make_inputs()
    padded = jnp.pad(text, ((0, 0), (0, 8), (0, 0)))
    discriminator = make_discriminator()
    one = forward(discriminator, TAPS, latents, timesteps, text, image, trajectory)
    other = forward(discriminator, TAPS, latents, timesteps, padded, image, trajectory)
    assert np.abs(one - other).max() > 1e-5


def test_every_place_has_its_own_embedding():
    table = np.asarray(position_embedding((31, 22, 40), 48))
    assert table.shape == (31 * 22 * 40, 48) and table.dtype == np.float32
    assert len(np.unique(table.round(4), axis=0)) == len(table)


def test_bfloat16_stays_near_float32_and_gives_float32_logits():
    inputs = make_inputs()
    exact = forward(make_discriminator(), TAPS, *inputs)
    near = forward(make_discriminator(compute=jnp.bfloat16), TAPS, *inputs)
    assert near.dtype == np.float32
    assert 1e-5 < np.linalg.norm(near - exact) / np.linalg.norm(exact) < 5e-2


def test_a_fresh_discriminator_is_undecided_but_learns():
    inputs = make_inputs()

    @jax.jit
    def fresh_gradient_and_logits(outputs):
        discriminator = Discriminator(CONFIG, tiny.DIT, rngs=nnx.Rngs(0))

        def logits(outputs):
            out = discriminator(OutputsOnly(outputs), *inputs)
            return out.sum(), out

        return jax.grad(logits, has_aux=True)(outputs)

    gradient, logits = fresh_gradient_and_logits(TAPS)
    assert 0 < np.abs(logits).max() < 0.1
    assert np.all(np.any(gradient, axis=-1))


def test_full_size():
    config, dit_config = DiscriminatorConfig(), DiTConfig()
    discriminator = nnx.eval_shape(lambda: Discriminator(config, dit_config, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(discriminator)) == 80_139_265
    latents = jax.ShapeDtypeStruct((1, 31, 44, 80, 48), jnp.float32)
    outputs = jax.ShapeDtypeStruct((3, 1, 31, 880, 3072), jnp.float32)
    logits = jax.eval_shape(
        lambda discriminator, outputs, *inputs: discriminator(OutputsOnly(outputs), *inputs),
        discriminator,
        outputs,
        latents,
        jax.ShapeDtypeStruct((1, 31), jnp.float32),
        jax.ShapeDtypeStruct((1, 512, 4096), jnp.float32),
        jax.ShapeDtypeStruct((1, 1, 44, 80, 48), jnp.float32),
        latents,
    )
    assert logits.shape == (1,) and logits.dtype == jnp.float32


def test_every_parameter_names_its_axes():
    discriminator = nnx.eval_shape(
        lambda: Discriminator(DiscriminatorConfig(), DiTConfig(), rngs=nnx.Rngs(0))
    )
    for name, param in flat_parameters(discriminator).items():
        axes = param.get_metadata().get("axes")
        stacked = int(name.startswith("classifiers."))
        assert axes is not None and len(axes) + stacked == len(param.shape), name


def test_training_the_classifiers_keeps_nothing_of_the_backbone():
    """What the backward pass is handed does not grow with the blocks of the frozen DiT."""

    def kept(num_layers):
        dit_config = dataclasses.replace(tiny.DIT, num_layers=num_layers)
        dit = tiny.make_dit(dit_config)

        def residuals(discriminator):
            return jax.vjp(lambda player: player(dit, *make_inputs(batch=1)), discriminator)[1]

        leaves = jax.tree.leaves(jax.eval_shape(residuals, make_discriminator()))
        return sum(leaf.size for leaf in leaves)

    assert 0 < kept(4) == kept(12)


@pytest.mark.parametrize(
    ("image_shape", "trajectory_shape", "message"),
    [
        ((2, 3, 4, 6, 48), (2, 3, 4, 6, 48), r"image_latents have shape \(2, 3, 4, 6, 48\)"),
        ((2, 1, 4, 6, 48), (2, 3, 4, 6, 16), r"expected \(2, 3, 4, 6, 48\) for latents of shape"),
    ],
)
def test_wrong_shapes_raise(image_shape, trajectory_shape, message):
    latents, timesteps, text = tiny.dit_inputs()
    with pytest.raises(ValueError, match=message):
        make_discriminator()(
            tiny.make_dit(),
            latents,
            timesteps,
            text,
            jnp.zeros(image_shape),
            jnp.zeros(trajectory_shape),
        )


def test_block_indices_beyond_the_backbone_raise():
    discriminator = make_discriminator(dataclasses.replace(CONFIG, block_indices=(13, 21, 29)))
    with pytest.raises(ValueError, match=r"outputs of blocks \(13, 21, 29\); expected .* 0 to 2"):
        discriminator(tiny.make_dit(), *make_inputs())
