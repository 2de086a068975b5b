"""How tests compile: quickly, and each program once in a run, whichever process needs it.

Most programs run once in tests, on small arrays, so that compiling them takes most of the time.
"""

from __future__ import annotations

from importlib import metadata

#: XLA's flags: LLVM does not optimize, and a program's code is in one piece, since other tests
#: keep the other cores busy. XLA refuses flags that it does not know; the last is of 0.10.
FLAGS = "--xla_backend_optimization_level=0"
if metadata.version("jaxlib").startswith("0.10."):
    FLAGS += ""


def keep_programs(folder):
    """Variables of the environment with which processes share a folder of compiled programs."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
