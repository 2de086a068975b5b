"""Samplers against diffusers' schedulers, live or as stored numbers, and against Wan2.2's.

`python tests/diffusion/test_samplers.py` stores diffusers' again, in golden/samplers.npz. Those of
golden/wan_solvers.npz are of `FlowUniPCMultistepScheduler` and `FlowDPMSolverMultistepScheduler` of
Wan2.2, commit 42bf4cf, on the same toy velocity with a shift of 5.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flashmotion_jax.config import FewStepConfig
from flashmotion_jax.diffusion import flow, samplers

GOLDEN = Path(__file__).parent / "golden" / "samplers.npz"
WAN = Path(__file__).parent / "golden" / "wan_solvers.npz"
SHAPE = (2, 2, 1, 2, 5)
MIX = np.sin(np.arange(25, dtype=np.float32) * 1.7).reshape(5, 5)
BIAS = np.cos(np.arange(5, dtype=np.float32)).reshape(1, 1, 1, 1, 5)
SOLVERS = ("unipc", "dpm++", "euler")
MULTI_STEP = [f"{solver}_{n}" for solver in SOLVERS for n in (1, 2, 3, 4, 10, 50)]
KEYS = jax.random.split(jax.random.key(7), SHAPE[0])


def toy_velocity(latents, timestep):
    return jnp.tanh(latents @ MIX + BIAS * jnp.cos(timestep / 150)) + 0.5 * latents


def start_noise():
    return jax.random.normal(jax.random.key(0), SHAPE)


def fresh_noise(step):
    return np.stack([jax.random.normal(jax.random.fold_in(key, step), SHAPE[1:]) for key in KEYS])


def run_scheduler(scheduler):
    import torch

    latents = torch.tensor(np.asarray(start_noise()))
    for timestep in scheduler.timesteps:
        angle = torch.cos(timestep.float() / 150)
        velocity = torch.tanh(latents @ torch.tensor(MIX) + torch.tensor(BIAS) * angle)
        velocity += 0.5 * latents
        latents = scheduler.step(velocity, timestep, latents).prev_sample
    return latents.numpy()


def run_diffusers(name):
    import diffusers

    solver, num_steps = name.split("_")
    if solver in ("unipc", "dpm++"):
        schedulers = {
            "unipc": diffusers.UniPCMultistepScheduler,
            "dpm++": diffusers.DPMSolverMultistepScheduler,
        }
        scheduler = schedulers[solver](
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            num_train_timesteps=1000,
            flow_shift=5.0,
        )
        scheduler.set_timesteps(int(num_steps))
    else:
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 1000, int(num_steps) + 1)[:-1])
    return run_scheduler(scheduler)


def run_diffusers_few_step():
    import torch
    from diffusers.schedulers import scheduling_flow_match_lcm as lcm

    draws = (torch.tensor(fresh_noise(step)) for step in range(4))
    scheduler = lcm.FlowMatchLCMScheduler(shift=5)
    scheduler.set_timesteps(sigmas=[1, 0.75, 0.5, 0.25])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lcm, "randn_tensor", lambda *args, **kwargs: next(draws))
        return run_scheduler(scheduler)


def few_step(velocity=toy_velocity, noise=None, keys=KEYS, progress=None, on_state=None, **config):
    noise = start_noise() if noise is None else noise
    schedule = samplers.few_step_schedule(FewStepConfig(**config))

    def advance(state, row):
        return (samplers.few_step(velocity, state[0], row, keys),)

    return samplers.sample(advance, noise, schedule, progress, on_state)


def multi_step(
    velocity=toy_velocity,
    num_steps=50,
    shift=5.0,
    solver="unipc",
    grid="wan",
    progress=None,
    on_state=None,
):
    def advance(state, row):
        return samplers.multi_step(velocity, state, row)

    schedule = samplers.multi_step_schedule(num_steps, shift, solver, grid)
    return samplers.sample(advance, start_noise(), schedule, progress, on_state)


def stored(name):
    return np.load(GOLDEN)[name]


def live(name):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    return run_diffusers_few_step() if name == "few_step" else run_diffusers(name)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
@pytest.mark.parametrize("diffusers", [stored, live])
@pytest.mark.parametrize("name", MULTI_STEP)
def test_multi_step_equals_diffusers(diffusers, name):
    solver, num_steps = name.split("_")
    ours = multi_step(num_steps=int(num_steps), solver=solver, grid="diffusers")
    np.testing.assert_allclose(ours, diffusers(name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
def test_multi_step_equals_wan(solver):
    wan = np.load(WAN)
    for num_steps in (1, 2, 3, 4, 10, 50):
        ours = multi_step(num_steps=num_steps, solver=solver)
        np.testing.assert_allclose(ours, wan[f"{solver}_{num_steps}"], rtol=0, atol=1e-5)
    schedule = samplers.multi_step_schedule(50, 5.0, solver)
    np.testing.assert_array_equal(schedule.timestep, wan[f"{solver}_timesteps"])
    np.testing.assert_array_equal(schedule.sigma, wan[f"{solver}_sigmas"][:-1])


@pytest.mark.parametrize("diffusers", [stored, live])
def test_few_step_equals_diffusers(diffusers):
    np.testing.assert_allclose(few_step(), diffusers("few_step"), rtol=0, atol=1e-5)


def test_warped_and_unchanged_steps():
    warped = samplers.few_step_sigmas()
    np.testing.assert_allclose(warped, [1, 0.9375, 0.83333, 0.625], atol=4e-6)
    np.testing.assert_array_equal(samplers.few_step_sigmas(warp=False), [1, 0.75, 0.5, 0.25])
    assert len(samplers.few_step_sigmas(range(1000, 200, -100))) == 8


@pytest.mark.parametrize(
    ("warp", "rounding", "expected"),
    [
        (True, "none", [1000, 937.5, 833.3333, 625]),
        (True, "integer", [1000, 937, 833, 625]),
        (True, "bfloat16", [1000, 936, 832, 624]),
        (False, "none", [1000, 750, 500, 250]),
        (False, "integer", [1000, 750, 500, 250]),
        (False, "bfloat16", [1000, 752, 500, 250]),
    ],
)
def test_models_are_told_rounded_timesteps_and_noise_levels_stay_exact(warp, rounding, expected):
    config = FewStepConfig(warp_denoising_steps=warp, timestep_rounding=rounding)
    schedule = samplers.few_step_schedule(config)
    np.testing.assert_allclose(schedule.timestep, expected, rtol=1e-7)
    np.testing.assert_array_equal(
        schedule.sigma, samplers.few_step_sigmas(warp=warp).astype(np.float32)
    )
    told = []
    few_step(
        lambda latents, timestep: told.append(float(timestep)) or toy_velocity(latents, timestep),
        warp_denoising_steps=warp,
        timestep_rounding=rounding,
    )
    np.testing.assert_allclose(told, expected, rtol=1e-7)


@pytest.mark.parametrize(
    "steps",
    [[], [1000, 1000], [500, 750], [1001], [500, 0], [float("nan")], range(900, 0, -100), [[1000]]],
)
def test_invalid_denoising_steps_raise(steps):
    with pytest.raises(ValueError, match="denoising steps"):
        samplers.few_step_sigmas(steps)


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan"), float("inf")])
def test_invalid_shifts_raise(shift):
    with pytest.raises(ValueError, match="shift"):
        samplers.few_step_sigmas(shift=shift)
    with pytest.raises(ValueError, match="shift"):
        samplers.multi_step_sigmas(4, shift)


@pytest.mark.parametrize("num_steps", [0, -3, 1001])
def test_invalid_numbers_of_steps_raise(num_steps):
    with pytest.raises(ValueError, match="sampling steps"):
        samplers.multi_step_sigmas(num_steps, 5.0)


def test_unknown_solver_raises():
    with pytest.raises(ValueError, match=r"'dpm': expected one of unipc, dpm\+\+, euler"):
        samplers.multi_step_schedule(solver="dpm")


@pytest.mark.parametrize(
    "steps", [[1000], [1000, 500], [1000, 750, 500, 250], range(1000, 200, -100)]
)
def test_fresh_noise_enters_at_every_level_but_the_last(steps):
    sigmas = samplers.few_step_sigmas(steps)
    expected = start_noise()
    for index, sigma in enumerate(sigmas[1:]):
        expected = (1 - sigma) * expected + sigma * fresh_noise(index)
    still = few_step(
        lambda latents, timestep: jnp.zeros_like(latents), denoising_steps=tuple(steps)
    )
    np.testing.assert_allclose(still, expected, atol=1e-6)


def test_euler_step_differs_from_few_step():
    levels = np.append(samplers.few_step_sigmas(), 0.0)
    latents = start_noise()
    for sigma, next_sigma in itertools.pairwise(levels):
        latents += (next_sigma - sigma) * toy_velocity(latents, 1000.0 * sigma)
    assert np.abs(few_step() - latents).max() > 0.1


def test_same_keys_same_bits_other_keys_other_bits():
    sample = jax.jit(lambda keys: few_step(keys=keys))
    first = np.asarray(sample(KEYS))
    np.testing.assert_array_equal(sample(KEYS), first)
    assert np.abs(sample(KEYS[::-1]) - first).max() > 0.1


def test_a_video_does_not_depend_on_its_batch():
    alone = few_step(noise=start_noise()[1:], keys=KEYS[1:])
    np.testing.assert_allclose(alone, few_step()[1:], atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_straight_paths_are_solved_exactly_in_any_number_of_steps(solver, num_steps):
    noise = start_noise()
    straight = lambda latents, timestep: noise - 3.0  # noqa: E731
    # With Wan's levels, UniPC takes pure noise to be of level 0.9998.
    grid = "diffusers" if solver == "unipc" else "wan"
    sample = multi_step(straight, num_steps, solver=solver, grid=grid)
    np.testing.assert_allclose(sample, jnp.full(SHAPE, 3.0), atol=1e-5)


def gaussian_velocity(latents, timestep, mean=1.5, std=0.4):
    """The exact velocity of Gaussian data: the flow carries noise to `mean + std * noise`."""
    sigma = timestep / flow.TIMESTEP_SCALE
    variance = ((1 - sigma) * std) ** 2 + sigma**2
    slope = (sigma - (1 - sigma) * std**2) / variance
    return slope * (latents - (1 - sigma) * mean) - mean


def gaussian_error(solver, num_steps):
    noise = start_noise()
    sample = multi_step(gaussian_velocity, num_steps, 1.0, solver)
    return float(jnp.abs(sample - (1.5 + 0.4 * noise)).max())


def test_solvers_converge_to_the_exact_flow():
    coarse, fine = gaussian_error("euler", 50), gaussian_error("euler", 100)
    assert 1.8 < coarse / fine < 2.2
    assert gaussian_error("unipc", 50) < coarse / 5
    assert gaussian_error("dpm++", 50) < coarse / 5


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_compiled_step_for_all_schedules(solver):
    traced = []

    @jax.jit
    def advance(state, row):
        traced.append(1)
        return samplers.multi_step(toy_velocity, state, row)

    for num_steps in (4, 7):
        schedule = samplers.multi_step_schedule(num_steps, solver=solver)
        jitted = samplers.sample(advance, start_noise(), schedule)
        np.testing.assert_allclose(
            jitted, multi_step(num_steps=num_steps, solver=solver), atol=1e-5
        )
    assert len(traced) == 1


def test_gradients_flow_through_few_steps():
    def loss(gain):
        return jnp.mean(few_step(lambda x, t: gain * toy_velocity(x, t)) ** 2)

    derivative = jax.grad(loss)(1.0)
    difference = (loss(1.01) - loss(0.99)) / 0.02
    np.testing.assert_allclose(derivative, difference, rtol=1e-2)


def test_bfloat16_model_keeps_float32_latents():
    def velocity(latents, timestep):
        assert latents.dtype == jnp.float32 and timestep.dtype == jnp.float32
        assert latents.shape == SHAPE and timestep.shape == ()
        return toy_velocity(latents, timestep).astype(jnp.bfloat16)

    assert few_step(velocity).dtype == jnp.float32
    assert multi_step(velocity, 3).dtype == jnp.float32


@pytest.mark.parametrize("solver", [None, *samplers.SOLVERS])
def test_predictions_of_x0_are_those_of_the_model(solver):
    seen, states = [], {}

    def velocity(latents, timestep):
        # As a model does, from the noise level that its timestep says.
        seen.append(latents - timestep / 1000 * toy_velocity(latents, timestep))
        return toy_velocity(latents, timestep)

    if solver is None:
        few_step(velocity, on_state=states.__setitem__)
        schedule = samplers.few_step_schedule(FewStepConfig())
    else:
        multi_step(velocity, 6, solver=solver, on_state=states.__setitem__)
        schedule = samplers.multi_step_schedule(6, 5.0, solver)
    assert list(states) == list(range(1, len(schedule.sigma) + 1))
    for step, state in states.items():
        row = jax.tree.map(lambda rows, i=step - 1: rows[i], schedule)
        found = samplers.predicted_x0(state, row, KEYS)
        np.testing.assert_allclose(found, seen[step - 1], atol=2e-2 if solver else 1e-5)


def test_progress_counts_steps_and_can_cancel():
    few, many = [], []
    few_step(progress=few.append)
    multi_step(num_steps=6, progress=many.append)
    assert few == [1, 2, 3, 4] and many == [1, 2, 3, 4, 5, 6]

    def cancel(done):
        few.append(done)
        if done == 2:
            raise KeyboardInterrupt

    few.clear()
    with pytest.raises(KeyboardInterrupt):
        few_step(progress=cancel)
    assert few == [1, 2]


def test_all_64_bits_of_a_seed_count():
    seeds = [0, 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, -1, -(2**63)]
    data = jax.random.key_data(samplers.noise_keys(seeds))
    assert len({tuple(row.tolist()) for row in data}) == len(seeds)
    small = [0, 1, 2**31 - 1]
    expected = [jax.random.key_data(jax.random.key(seed)) for seed in small]
    np.testing.assert_array_equal(jax.random.key_data(samplers.noise_keys(small)), expected)


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    numbers = {name: live(name) for name in ["few_step", *MULTI_STEP]}
    np.savez_compressed(GOLDEN, **numbers)
