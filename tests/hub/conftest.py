from __future__ import annotations

import pytest

from helpers.hub_server import served_hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with served_hub(monkeypatch, tmp_path) as server:
        yield server
