"""How tests compile: quickly, and each program once in a run, whichever process needs it.

Most programs run once in tests, on small arrays, so that compiling them takes most of the time.
"""

from __future__ import annotations

from importlib import metadata

#: XLA's flags: LLVM does not optimize; fusions are written without MLIR, and a program's code in
#: one piece, since other tests keep the other cores busy. The second takes 60 % off the time of the
#: first, the third 20 % off the rest. XLA refuses flags that it does not know; these are of 0.10.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
#: Compiler options for programs that are compared bit for bit: fusions as users have them, since
#: the others may round equal sums of two programs differently.
FUSED_AS_FOR_USERS = {}
if metadata.version("jaxlib").startswith("0.10."):
    FLAGS += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    FUSED_AS_FOR_USERS = {"xla_cpu_use_fusion_emitters": True}


def keep_programs(folder):
    """Variables of the environment with which processes share a folder of compiled programs."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
