"""Plots the FLOPs of a video by its size and number of frames, stage by stage; nothing is run.

JAX_PLATFORMS=cpu PYTHONPATH=. python tools/measure_cost.py docs/cost.svg     # needs matplotlib
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
from tqdm import tqdm

from flashmotion_jax.perf.sampling import SampleSpec, sampling_programs
from flashmotion_jax.perf.sizes import VideoSize, published_checkpoint
from flashmotion_jax.runtime import sharding
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.devices import COMPILE_TARGETS

FRAMES = (17, 33, 49, 65, 81, 97, 121)
SIZES = ((480, 832), (704, 1280))
#: Stage of the pipeline by the beginning of a program's name; all others decode.
STAGES = {"text": "text", "encode": "encode", "prepare": "denoise", "denoising": "denoise"}
COLORS = {"denoise": "#3b6fb6", "decode": "#d98032", "encode": "#5a9e6f", "text": "#8c8c8c"}


def cost(folder: Path, adapter: str | None, size: VideoSize) -> dict[str, float]:
    """FLOPs of each stage of a video."""
    stages = dict.fromkeys(COLORS, 0.0)
    _, programs = sampling_programs(SampleSpec(folder, adapter, size))
    for program in programs:
        found = [stage for name, stage in STAGES.items() if program.name.startswith(name)]
        stages[found[0] if found else "decode"] += program.runs * program.model_flops
    return stages


def plot(costs: dict[tuple[int, int], list[dict[str, float]]], peak: float, out: Path) -> None:
    """Plots the stacked stages, a panel for each size, with seconds at an H200's peak at right."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(costs), figsize=(9, 3.6), sharey=True)
    for panel, (size, rows) in zip(panels, costs.items(), strict=True):
        values = [[row[stage] / 1e15 for row in rows] for stage in COLORS]
        panel.stackplot(FRAMES, values, labels=list(COLORS), colors=list(COLORS.values()))
        panel.set_title(f"{size[0]} x {size[1]}, ResNet adapter", fontsize=10)
        panel.set_xlabel("frames")
        panel.set_xticks(FRAMES)
        panel.margins(x=0)
        panel.grid(alpha=0.3)
        seconds = panel.secondary_yaxis(
            "right", functions=(lambda x: x * 1e15 / peak, lambda s: s * peak / 1e15)
        )
        seconds.set_ylabel("seconds at an H200's peak" if panel is panels[-1] else "")
    panels[0].set_ylabel("PFLOP per video")
    panels[0].legend(loc="upper left", fontsize=9)
    figure.tight_layout()
    with replacing(out) as scratch:
        figure.savefig(scratch, format=out.suffix[1:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    peak = COMPILE_TARGETS["h200"].peak_flops
    costs = {}
    with published_checkpoint() as folder, jax.set_mesh(sharding.make_mesh()):
        for adapter in ("resnet", "controlnet"):
            for size in SIZES:
                bar = tqdm(FRAMES, desc=f"{adapter} {size}", file=sys.stderr)
                rows = [cost(folder, adapter, VideoSize(frames, *size)) for frames in bar]
                if adapter == "resnet":
                    costs[size] = rows
                for frames, row in zip(FRAMES, rows, strict=True):
                    parts = ", ".join(f"{stage} {x / 1e12:,.0f}" for stage, x in row.items())
                    total = sum(row.values())
                    print(
                        f"{adapter} {frames} x {size[0]} x {size[1]}: {parts}; {total / 1e12:,.0f}"
                    )
    plot(costs, peak, out)
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
