from __future__ import annotations

import pytest

from flashmotion_jax.config import CacheConfig, TrainConfig, load_config

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
    with pytest.raises(ValueError, match=r"no configuration at .*there are .*cache\.py"):
        load_config(str(file.with_name("cash.py")), CacheConfig)


@pytest.mark.parametrize("text", ["get_config = 3", "", "def get_config(:", "import not_there"])
def test_what_is_no_configuration(tmp_path, text):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"broken\.py is no configuration"):
        load_config(str(file), TrainConfig)
