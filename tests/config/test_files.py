from __future__ import annotations

import pytest

from flashmotion_jax.config import CacheConfig, TrainConfig, load_config
from flashmotion_jax.config.files import installed_names
from flashmotion_jax.runtime.errors import UserError

CACHE = """
from flashmotion_jax.config import CacheConfig

def get_config(output="somewhere"):
    return CacheConfig(output=output)
"""


def test_a_file_and_its_argument(tmp_path):
    file = tmp_path / "configs" / "cache.py"
    file.parent.mkdir()
    file.write_text(CACHE)
    assert load_config(str(file), CacheConfig).output == "somewhere"
    assert load_config(f"{file}:elsewhere", CacheConfig).output == "elsewhere"
    with pytest.raises(ValueError, match="builds a CacheConfig; expected a TrainConfig"):
        load_config(str(file), TrainConfig)
    with pytest.raises(
        ValueError, match=r"no configuration at .*cash\.py; .*configs has cache\.py"
    ):
        load_config(str(file.with_name("cash.py")), CacheConfig)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("get_config = 3", "defines no function get_config"),
        ("", "defines no function get_config"),
        ("def get_config(:", "SyntaxError"),
        (
            "import not_there",
            r"broken\.py, line 1: ModuleNotFoundError: No module named 'not_there'",
        ),
        ("def get_config():\n    return missing", r"line 2: NameError: name 'missing'"),
        ("def get_config():\n    return {}['key']", r"line 2: KeyError: 'key'"),
        ("from ..common import x", "ImportError"),
    ],
)
def test_a_file_that_is_not_a_configuration(tmp_path, text, message):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"broken\.py is not a configuration.*{message}"):
        load_config(str(file), TrainConfig)


def test_a_configuration_without_an_argument_rejects_one():
    with pytest.raises(UserError, match="stage2:resnet: this configuration takes no text after"):
        load_config("stage2:resnet", TrainConfig)


def test_values_that_a_configuration_rejects_keep_their_message(tmp_path):
    file = tmp_path / "rejected.py"
    file.write_text(
        "from flashmotion_jax import SamplingConfig\n"
        "get_config = lambda: SamplingConfig(guidance_scale=0)"
    )
    with pytest.raises(UserError, match=r"^guidance_scale=0; expected a number of at least 1"):
        load_config(str(file), TrainConfig)


#: A configuration that reads a value from the file beside it.
IMPORTING = """
from flashmotion_jax.config import CacheConfig
from .common import OUTPUT

def get_config():
    return CacheConfig(output=OUTPUT)
"""


@pytest.mark.parametrize("folder", ["configs", "experiments"])
def test_two_folders_of_one_name_in_a_process_keep_their_own_modules(tmp_path, folder):
    checkouts = ("first", "second")
    for checkout in checkouts:
        root = tmp_path / checkout / folder
        root.mkdir(parents=True)
        (root / "common.py").write_text(f"OUTPUT = {checkout!r}")
        (root / "run.py").write_text(IMPORTING)
    for checkout in checkouts * 2:
        config = load_config(f"{tmp_path}/{checkout}/{folder}/run.py", CacheConfig)
        assert config.output == checkout


def test_a_file_that_has_changed_is_read_again(tmp_path):
    (tmp_path / "run.py").write_text(IMPORTING)
    for output in ("a", "longer"):  # Python compares sizes, and times in whole seconds
        (tmp_path / "common.py").write_text(f"OUTPUT = {output!r}")
        assert load_config(f"{tmp_path}/run.py", CacheConfig).output == output


def test_installed_configurations_have_names(monkeypatch, tmp_path):
    (tmp_path / "configs").mkdir()  # a folder of the user's, which changes nothing
    monkeypatch.chdir(tmp_path)
    assert load_config("stage2", TrainConfig).workdir == "runs/stage2"
    assert load_config("sprites/stage2", TrainConfig).workdir == "runs/sprites/stage2"
    assert load_config("stage3:controlnet", TrainConfig) == load_config(
        "stage3_controlnet", TrainConfig
    )
    assert {"cache_magicdata", "stage2", "sprites/model"} <= set(installed_names())
    assert not {"common", "sprites/common", "__init__"} & set(installed_names())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stage4", "no configuration is called stage4; the nearest are .*stage3"),
        ("sprites/stag2", "the nearest are sprites/stage2"),
        ("xyz", "there are cache_magicdata, .*stage2"),
        ("configs/stage2", "a path that ends in .py"),
        ("nowhere/run.py", "no configuration at nowhere/run.py; nowhere has none"),
    ],
)
def test_a_name_that_does_not_exist(name, message):
    with pytest.raises(UserError, match=message):
        load_config(name, TrainConfig)
