"""Eight simulated CPU devices for every test, and no silent skips where parity must run."""

from __future__ import annotations

import os
import signal

# A shell's background jobs ignore Ctrl-C, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["JAX_PLATFORMS"] = "cpu"
# Most programs run once here, and LLVM's optimizations would take most of the time.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
# Arrays of different rank in one operation are more often a mistake than a broadcast.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Modules are trees without shared parameters: checkpoints, sharding and `lax.scan` rely on it.
os.environ["NNX_GRAPH_MODE"] = "false"
# Tests do not depend on earlier runs, and do not write into the user's cache.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import pytest

#: Set in CI, where torch and diffusers are installed: a skipped parity test is a failure there.
REQUIRE_PARITY = "FLASHMOTION_REQUIRE_PARITY"


def pytest_collection_modifyitems(config, items):
    if config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get(REQUIRE_PARITY):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although {REQUIRE_PARITY} is set"
    return report
