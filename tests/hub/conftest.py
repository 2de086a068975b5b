from __future__ import annotations

import huggingface_hub
import pytest

from flashmotion_jax.hub import transfer
from helpers.hub_server import HubServer


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server that huggingface_hub takes for the Hub, for a user without a token."""
    with HubServer() as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(transfer, "DELAY", 0.001)
        yield server
        huggingface_hub.close_session()
