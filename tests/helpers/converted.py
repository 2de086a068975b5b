"""Components straight from files of weights, without a checkpoint in between."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from flashmotion_jax.checkpoints import components
from flashmotion_jax.converters.importing import find_components
from flashmotion_jax.converters.names import Names
from flashmotion_jax.converters.planning import Known, plan_contents, read_values
from flashmotion_jax.converters.reader import read_weights


def plan_file(file, **known):
    """The plan of the only component in a file, which must fit."""
    contents = find_components(read_weights(file), "ema", None, Names())
    (plan,) = plan_contents(contents, Known(dtype="float32", values=read_values(file), **known))
    assert plan.problems() == []
    assert contents.unused == []
    return plan


def arrays_of(plan):
    """Parameter -> array."""
    return {entry.target: entry.gather(plan.source) for entry in plan.entries}


def load(plan):
    """The module with its weights."""
    module = components.abstract_module(plan.kind, plan.config, "float32", plan.dit_config)
    arrays = arrays_of(plan)
    for name, variable in components.flat_parameters(module).items():
        variable.set_value(jnp.asarray(arrays[name]))
    return module


def assert_same(plan, expected, atol=0.0):
    """Checks the arrays of a plan against those of another, within a part of their largest."""
    found = arrays_of(plan)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        error = np.abs(found[name] - array).max()
        assert error <= atol * np.abs(array).max(), (name, error)
