"""Names of topologies, and what is known of their devices."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flashmotion_jax.perf.gpu_target import target_config
from flashmotion_jax.perf.topology import open_topology
from flashmotion_jax.runtime.devices import COMPILE_TARGETS

GPUS = [name for name, target in COMPILE_TARGETS.items() if target.gpu]


@pytest.mark.parametrize("name", ["v5p", "v5p:", "v9:2x2", "v5p:2xa", "h200:8:8", "8"])
def test_unknown_names_raise_with_examples(name):
    with pytest.raises(ValueError, match=r"for instance v5p:4x4x4, v6e:8x8, h200:8 or a100:16"):
        open_topology(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h200:0", "sizes of 1 and above"),
        ("a100:12", "a multiple of 8, whole hosts"),
        ("a100:2x2x2", "hosts x GPUs per host"),
    ],
)
def test_invalid_numbers_raise(name, message):
    with pytest.raises(ValueError, match=message):
        open_topology(name)


@pytest.mark.parametrize("name", COMPILE_TARGETS)
def test_figures_are_of_the_right_size_and_have_a_source(name):
    """Bytes and bytes a second, where a factor of 8 or 1000 is soon wrong."""
    kind = COMPILE_TARGETS[name]
    assert 10e9 < kind.memory < 200e9
    assert 0.5e12 < kind.bandwidth < 10e12
    assert 100e9 < kind.link < kind.bandwidth
    assert kind.network <= kind.link
    assert kind.source


def test_a_tpu_has_no_such_configuration():
    with pytest.raises(ValueError, match="is not a GPU"):
        target_config(COMPILE_TARGETS["v5p"])


@pytest.mark.parametrize("name", GPUS)
def test_the_target_configuration_of_a_gpu(name):
    gpu, text = COMPILE_TARGETS[name].gpu, target_config(COMPILE_TARGETS[name])
    assert text.count("{") == text.count("}")
    assert f"device_memory_size: {gpu.memory}" in text
    assert COMPILE_TARGETS[name].memory < gpu.memory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "devices", "hosts"),
    [
        ("v5p:4x4x4", 64, 16),
        ("v6e:2x4", 8, 1),
        ("v6e:16x16", 256, 64),
        ("v5e:1x1", 1, 1),
        ("h200:8", 8, 1),
        ("a100:16", 16, 2),
    ],
)
def test_topologies_of_the_compilers(name, devices, hosts):
    pytest.importorskip("libtpu")
    topology = open_topology(name)
    assert (len(topology.devices), topology.num_hosts) == (devices, hosts)


def test_what_is_compiled_for_devices_elsewhere_is_not_kept():
    """JAX cannot read it back: a second plan warned of each program."""
    code = (
        "from flashmotion_jax.perf.topology import prepare_environment\n"
        "prepare_environment()\n"
        "import jax\n"
        "print(jax.devices()[0].platform, jax.config.jax_enable_compilation_cache)"
    )
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["cpu", "False"]
