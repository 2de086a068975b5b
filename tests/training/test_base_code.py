"""Sampling and distribution matching as in the code that FlashMotion builds on.

golden/base_code.npz holds what Wan2.2-TI2V-5B-Turbo, commit 26d5995, computes from the inputs below
with the weights of the same tiny models, in float32 on a CPU: its sampling loop of training
(`BidirectionalTrainingPipeline`) and of inference (`Wan22FewstepInferencePipeline`), and its
gradient of distribution matching (`DMD.compute_distribution_matching_loss`). Two things were
changed there: attention is PyTorch's, and a table of noise levels has the exact level of each step,
because its default shift of 8 looks levels up in a table that lacks them.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.config import FewStepConfig, MatchingConfig, SamplingConfig
from flashmotion_jax.diffusion import samplers
from flashmotion_jax.diffusion.generate import Conditions, conditioned_velocity, inject_image
from flashmotion_jax.training.stages import distribution_matching as matching
from helpers import tiny

GOLDEN = Path(__file__).parent / "golden" / "base_code.npz"
SHAPE = (1, 2, 2, 4, 48)
KEYS = jax.random.split(jax.random.key(3), 1)
#: Name in the file -> the conventions that it stands for.
LOOPS = {
    "warped_float32": FewStepConfig(timestep_rounding="integer"),
    "warped_bfloat16": SamplingConfig().with_conventions("flashmotion").few_step,
    "raw_bfloat16": SamplingConfig().with_conventions("turbo").few_step,
}
#: Timesteps of the table of noise levels whose shift is 5, and one that bfloat16 rounds.
TIMESTEPS = (937.5, 625.0, 691.9642857142857)


def inputs():
    """Latents, noise, image, text and negative text."""
    return (
        tiny.normal(10, *SHAPE),
        tiny.normal(11, *SHAPE),
        tiny.normal(12, 1, 1, *SHAPE[2:]),
        tiny.normal(13, 1, 16, 32),
        tiny.normal(14, 1, 16, 32),
    )


def fresh_noise(step):
    """The noise after a step of the sampler."""
    return samplers.draw_noise(jax.vmap(jax.random.fold_in, (0, None))(KEYS, step), SHAPE[1:])


def sample(config):
    _, noise, image, text, _ = inputs()
    conditions = Conditions(text, image_latents=image)
    velocity = conditioned_velocity(tiny.make_dit(), None, conditions)

    @jax.jit
    def advance(state, row):
        return (samplers.few_step(velocity, state[0], row, KEYS),)

    latents = samplers.sample(advance, noise, samplers.few_step_schedule(config))
    return inject_image(latents, image)


@pytest.mark.parametrize("name", LOOPS)
def test_sampling_loop_is_the_base_codes(name):
    expected = np.load(GOLDEN)[name]
    error = np.abs(sample(LOOPS[name]) - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()


def test_other_conventions_give_other_videos():
    """What is at stake: told other timesteps, or on the other grid, the same weights differ."""
    golden = np.load(GOLDEN)
    exact = sample(FewStepConfig())
    assert np.abs(exact - golden["warped_bfloat16"]).max() > 1e-4
    assert np.abs(golden["raw_bfloat16"] - golden["warped_bfloat16"]).max() > 0.1


def gradient(timestep, rounding):
    """The gradient of the loss by the student's latents, and the noise level that it is at."""
    x0, noise, image, text, negative = inputs()
    x0 = inject_image(x0, image)
    roles = matching.Roles(
        student=lambda models: (None, None),
        real_score=lambda models: (tiny.make_dit(seed=1), None),
        fake_score=lambda models: (tiny.make_dit(seed=2), None),
    )
    config = MatchingConfig(student=FewStepConfig(timestep_rounding=rounding))
    conditions = Conditions(text, image_latents=image)
    loss, _ = matching.distribution_matching_losses(config, roles, lambda batch: conditions)

    class Batch:
        text = inputs()[3]
        latents = x0

    class Keys:
        def split(self, count):
            return [self] * count

    with pytest.MonkeyPatch.context() as patch:
        drawn = (noise, jnp.full((1,), timestep, jnp.float32))
        patch.setattr(matching, "draw_noise_and_timesteps", lambda *_: drawn)

        def total(x0):
            patch.setattr(matching, "sample_student", lambda *_: x0)
            models = {"negative_text": negative[0]}
            terms, _ = loss(models, Batch, Keys(), 0)
            return terms["distribution_matching"].value

        return jax.jit(jax.grad(total))(x0)


@pytest.mark.parametrize("timestep", TIMESTEPS)
@pytest.mark.parametrize("rounding", ["integer", "bfloat16"])
def test_gradient_of_distribution_matching_is_the_base_codes(timestep, rounding):
    expected = np.load(GOLDEN)[f"dmd_{rounding}_{int(timestep)}"]
    found = gradient(timestep, rounding)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
