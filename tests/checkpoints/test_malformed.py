"""Configurations that hold anything: one short line, and never another exception."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from flashmotion_jax.checkpoints import components
from flashmotion_jax.checkpoints.verification import verify_components
from flashmotion_jax.config import SamplingConfig
from flashmotion_jax.runtime.errors import UserError
from helpers import tiny

DEEP = b"[" * 100_000 + b"]" * 100_000
BAD_DOCUMENTS = {
    "a list": b"[1]",
    "a number": b"3",
    "nothing": b"",
    "binary": b"\xff\xfe\0",
    "deep": DEEP,
    "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "not a number": b'{"format": NaN}',
    "half a surrogate": b'{"format": "\\ud800"}',
    "repeated": b'{"format": 1, "format": 2}',
}
BAD_MODELS = {
    "format": [1],
    "version": "1",
    "checksum": [5],
    "sampling": [[1], None, 3, {"num_frames": "x"}],
}
BAD_FIELDS = {
    "dim": ["x", 160.0, True, 10**30, -1, 0, None, [160]],
    "num_layers": [10**9, "3"],
    "eps": ["1e-6", 0, -1],
    "patch_size": [[1], [1, 1, 1], 2, ["a", "b"]],
}
BAD_COMPONENTS = {
    "kind": [["dit"], "vae"],
    "key": [3, None],
    "num_bytes": ["x", 1.5],
    "dtype": ["int8", ["float32"]],
    "config": [None, [1], "x"],
    "dit_config": [[1], {"dim": "x"}, 5],
    "more": [1],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return tiny.save_checkpoint(tmp_path_factory.mktemp("small") / "model", SamplingConfig())


@pytest.fixture
def model(small, tmp_path):
    """A copy of the configurations; the weights are links."""

    def link(source, target):
        os.link(source, target) if "params" in str(source) else shutil.copy2(source, target)

    return shutil.copytree(small, tmp_path / "model", copy_function=link)


def require_short_error(model, match=None):
    with pytest.raises(UserError, match=match) as error:
        for kind in ("dit", "adapters/resnet"):
            components.load_component(model, kind, "float32")
        components.open_checkpoint(model)
        pytest.fail("it loads")
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.json", "dit/config.json", "dit/checksums.json"])
@pytest.mark.parametrize("case", BAD_DOCUMENTS)
def test_documents(model, name, case):
    (model / name).write_bytes(BAD_DOCUMENTS[case])
    require_short_error(model, name)


def read_without_checksum(file):
    values = json.loads(file.read_text())
    values.pop("checksum", None)
    return values


@pytest.mark.parametrize("key", BAD_MODELS)
def test_values_of_the_model(model, key):
    values = read_without_checksum(model / "model.json")
    for value in [BAD_MODELS[key]] if key != "sampling" else BAD_MODELS[key]:
        (model / "model.json").write_text(json.dumps({**values, key: value}))
        require_short_error(model, r"model\.json")


@pytest.mark.parametrize("key", BAD_FIELDS)
def test_sizes_of_a_component(model, key):
    (model / "dit" / "checksums.json").unlink()
    file = model / "dit" / "config.json"
    values = read_without_checksum(file)
    for value in BAD_FIELDS[key]:
        config = {**values["config"], key: value}
        file.write_text(json.dumps({**values, "config": config}))
        require_short_error(model, key)


@pytest.mark.parametrize("key", BAD_COMPONENTS)
def test_values_of_a_component(model, key):
    kind = "adapters/resnet" if key == "dit_config" else "dit"
    (model / kind / "checksums.json").unlink()
    values = read_without_checksum(model / kind / "config.json")
    for value in BAD_COMPONENTS[key]:
        (model / kind / "config.json").write_text(json.dumps({**values, key: value}))
        require_short_error(model)
        problem = dict(verify_components(model))[kind]
        assert problem and len(problem) < 500


@pytest.mark.parametrize(
    "files", [[1], {"config.json": 1}, {"../../x": {}}, {"a\0b": {}}, {"a" * 5000: {}}, None]
)
def test_values_of_checksums(model, files):
    (model / "dit" / "checksums.json").write_text(json.dumps({"files": files}))
    require_short_error(model)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file(model, make):
    (model / "model.json").unlink()
    make(model / "model.json")
    require_short_error(model)
