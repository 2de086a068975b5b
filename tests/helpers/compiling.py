"""How tests compile: quickly, and each program once in a run, whichever process needs it.

Most programs run once in tests, on small arrays, so that compiling them takes most of the time.
"""

from __future__ import annotations

from importlib import metadata

#: XLA's flags: LLVM optimizes nothing, and fusions are written without MLIR, which takes 60 % of
#: the time of the first. XLA refuses flags that it does not know; this one is known in 0.10.
FLAGS = "--xla_backend_optimization_level=0"
if metadata.version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false"


def keep_programs(folder):
    """Variables of the environment with which processes share a folder of compiled programs."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
