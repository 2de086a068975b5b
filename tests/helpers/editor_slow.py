"""A fake model that makes gray videos and waits for the test before each step."""

from __future__ import annotations

import threading

import numpy as np

from flashmotion_jax.config import Grid, SamplingConfig
from flashmotion_jax.editor.generator import Facts, Generator
from flashmotion_jax.inference.request import make_request

SAMPLING = SamplingConfig(height=64, width=64, num_frames=9, fps=8)


class Slow(Generator):
    """Waits for `step` before each of four steps; the prompt "fail" raises an error."""

    def __init__(self):
        super().__init__(None)
        self.step = threading.Semaphore(0)
        self.seeds = []

    def facts(self):
        return Facts(SAMPLING, Grid(32, 32, 4), ("resnet",), None)

    def request(self, settings, image, trajectory):
        return make_request(
            image,
            settings["prompt"],
            trajectory,
            settings["seed"],
            sampling=SAMPLING,
            grid=Grid(32, 32, 4),
            has_adapter=settings["adapter"] != "none",
            height=settings["height"],
            width=settings["width"],
        )

    def run(self, adapter, request, progress, on_preview):
        self.seeds.append(request.seeds[0])
        for done in range(4):
            progress("denoise", done, 4)
            self.step.acquire()
            if request.prompts[0] == "fail":
                raise RuntimeError("out of memory")
            on_preview(
                done + 1,
                np.full((1, request.num_frames, request.height, request.width, 3), 50, np.uint8),
            )
        progress("denoise", 4, 4)
        return np.full((request.num_frames, request.height, request.width, 3), 99, np.uint8)
