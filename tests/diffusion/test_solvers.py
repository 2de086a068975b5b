from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.diffusion import solvers
from flashmotion_jax.diffusion.samplers import multi_step_sigmas


@pytest.mark.parametrize("solver", [solvers.euler, solvers.unipc, solvers.dpm_solver])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 50])
def test_updates_are_averages_and_the_last_is_the_prediction(solver, num_steps):
    table = solver(multi_step_sigmas(num_steps, 5.0, "dpm++"))
    assert table.correct.shape == (num_steps, 4) and table.predict.shape == (num_steps, 3)
    assert {rows.dtype for rows in table} == {np.dtype(np.float32)}
    np.testing.assert_allclose(table.correct.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(table.predict.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(table.predict[-1], [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(table.correct[0], [1.0, 0.0, 0.0, 0.0])


def test_euler_corrector_repeats_the_predictor():
    table = solvers.euler(np.array([1.0, 0.8, 0.2, 0.0]))
    np.testing.assert_allclose(table.predict[:2], [[0.8, 0.2, 0.0], [0.25, 0.75, 0.0]], atol=1e-7)
    np.testing.assert_array_equal(table.correct[1:, [0, 2]], table.predict[:-1, :2])
    assert not table.correct[1:, [1, 3]].any()
    np.testing.assert_allclose(table.timestep, [1000.0, 800.0, 200.0])


def test_dpm_solver_is_the_predictor_of_unipc_with_a_corrector_that_repeats_it():
    sigmas = multi_step_sigmas(6, 5.0)
    table, unipc = solvers.dpm_solver(sigmas), solvers.unipc(sigmas)
    np.testing.assert_allclose(table.predict, unipc.predict, atol=1e-7)
    np.testing.assert_array_equal(table.correct[1:, [0, 2, 3]], table.predict[:-1])
    assert not table.correct[1:, 1].any()


def test_unipc_is_of_order_1_in_the_first_and_last_step():
    table = solvers.unipc(multi_step_sigmas(6, 5.0))
    assert (table.predict[:, 2] != 0).tolist() == [False, True, True, True, True, False]
    assert (table.correct[:, 3] != 0).tolist() == [False, False, True, True, True, True]
    assert (table.correct[1:, 1] > 0).all()


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_unipc_timesteps_equal_diffusers(shift):
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    for num_steps in range(1, 61):
        scheduler.set_timesteps(num_steps)
        table = solvers.unipc(multi_step_sigmas(num_steps, shift, grid="diffusers"))
        np.testing.assert_array_equal(table.timestep, scheduler.timesteps.numpy())
        np.testing.assert_array_equal(table.sigma, scheduler.sigmas.numpy()[:-1])
