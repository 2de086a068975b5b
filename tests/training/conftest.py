"""Fixtures of the loss tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def reference():
    """The losses' reference in PyTorch."""
    pytest.importorskip("torch")
    from helpers import toy_torch

    return toy_torch
