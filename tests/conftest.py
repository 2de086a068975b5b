"""Eight simulated CPU devices for every test, and no silent skips where parity must run."""

from __future__ import annotations

import functools
import gc
import os
import signal
import tempfile

# A shell's background jobs ignore Ctrl-C, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["JAX_PLATFORMS"] = "cpu"
# Arrays of different rank in one operation are more often a mistake than a broadcast.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Modules are trees without shared parameters: checkpoints, sharding and `lax.scan` rely on it.
os.environ["NNX_GRAPH_MODE"] = "false"

import pytest

from helpers import compiling

#: Set in CI, where torch and diffusers are installed: a skipped parity test is a failure there.
REQUIRE_PARITY = "FLASHMOTION_REQUIRE_PARITY"


#: Compiled programs, for all workers of a run; None in workers, which inherit the variables. Tests
#: do not depend on earlier runs, unless JAX_COMPILATION_CACHE_DIR says so.
PROGRAMS = None
if "PYTEST_XDIST_WORKER" not in os.environ:
    PROGRAMS = tempfile.TemporaryDirectory(prefix="flashmotion-tests-")
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or PROGRAMS.name
    os.environ |= compiling.keep_programs(folder)
    flags = "--xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags} {compiling.FLAGS}"


def pytest_collection_finish():
    """Collects garbage less often: it would take a fifth of the time of tracing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


def pytest_unconfigure():
    if PROGRAMS is not None:
        PROGRAMS.cleanup()


def pytest_collection_modifyitems(config, items):
    if config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if item not in slow]
    config.hook.pytest_deselected(items=slow)


@pytest.fixture
def fused_as_for_users(monkeypatch):
    """Compiles programs with `compiling.FUSED_AS_FOR_USERS`."""
    import jax

    from flashmotion_jax.runtime import jit

    options = jit.OPTIONS["cpu"] | compiling.FUSED_AS_FOR_USERS

    @functools.cache
    def jitted(self):
        return jax.jit(self.function, compiler_options=options, **self._options)

    monkeypatch.setattr(jit.Program, "_jitted", jitted)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get(REQUIRE_PARITY):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although {REQUIRE_PARITY} is set"
    return report


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A local server that stands for the Hugging Face Hub."""
    from helpers.hub_server import served_hub

    with served_hub(monkeypatch, tmp_path) as server:
        yield server
