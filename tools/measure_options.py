"""Times a program of sampling with different XLA options, in one process.

PYTHONPATH=. python tools/measure_options.py "denoising step" xla_gpu_enable_triton_gemm=false
PYTHONPATH=. python tools/measure_options.py "denoising step" a=true,b=2 c=false   # several sets

The first run has no options, the others one set each. Options that help belong in `OPTIONS` of
`flashmotion_jax/runtime/jit.py`.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax

from flashmotion_jax.perf.bench import CPU_SIZE
from flashmotion_jax.perf.measure import fill, time_runs
from flashmotion_jax.perf.sampling import SampleSpec, sampling_programs
from flashmotion_jax.perf.sizes import VideoSize, published_checkpoint
from flashmotion_jax.runtime import sharding

SWITCHES = {"true": True, "false": False}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", help='name in `flashmotion bench`, such as "denoising step"')
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE,...")
    parser.add_argument("--adapter", default="resnet")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    on_cpu = jax.default_backend() == "cpu"
    size, dtype = (CPU_SIZE, "float32") if on_cpu else (VideoSize(), "bfloat16")
    with published_checkpoint() as folder, jax.set_mesh(sharding.make_mesh()):
        _, programs = sampling_programs(SampleSpec(folder, given.adapter, size, dtype))
        named = {one.name: one for one in programs}
        if given.program not in named:
            parser.error(f"no program {given.program!r}; expected one of {', '.join(named)}")
        program = named[given.program]
        args = list(fill(program.args))
        for words in ["", *given.options]:
            pairs = [word.split("=") for word in words.split(",") if word]
            options = {name: SWITCHES.get(value, value) for name, value in pairs}
            start = time.perf_counter()
            compiled = program.lower().compile(compiler_options=options)
            compiling = time.perf_counter() - start
            runs = time_runs(program, compiled, args, given.repeat)
            print(
                f"{given.program}, {words or 'no option'}: {statistics.median(runs):.4f} s "
                f"({min(runs):.4f} to {max(runs):.4f}), compiled in {compiling:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
