"""What tests of the losses share."""

from __future__ import annotations

import pytest

from flashmotion_jax import compilation


@pytest.fixture
def reference():
    """The losses' reference in PyTorch."""
    pytest.importorskip("torch")
    import toy_torch

    return toy_torch


@pytest.fixture(scope="module")
def quick_programs():
    """Programs run once or twice here: most of their time would be LLVM's."""
    with pytest.MonkeyPatch.context() as patch:
        options = compilation.CPU_OPTIONS | {"xla_backend_optimization_level": 0}
        patch.setattr(compilation, "CPU_OPTIONS", options)
        yield
