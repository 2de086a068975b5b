"""Serves the editor with a model that makes gray videos at once, for fuzzing its HTTP API.

    python tools/serve_editor.py PORT HISTORY
    schemathesis run http://127.0.0.1:PORT/openapi.json --exclude-checks=... (docs/results.md)

On SIGTERM it prints the growth of its memory, its open files and its threads as JSON. On SIGUSR1 it
prints them, and the memory that is in use: what is allocated, without what the C library keeps.
"""

from __future__ import annotations

import ctypes
import gc
import json
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from flashmotion_jax.config import Grid, SamplingConfig
from flashmotion_jax.editor.app import make_app
from flashmotion_jax.editor.generator import Facts, Generator
from flashmotion_jax.inference.request import Request, make_request

SAMPLING = SamplingConfig(height=64, width=64, num_frames=9, fps=8)
GRID = Grid(32, 32, 4)


class GrayGenerator(Generator):
    """Checks requests as a pipeline does, and makes gray videos."""

    def facts(self) -> Facts:
        """Facts of a small model with two adapters."""
        return Facts(SAMPLING, GRID, ("resnet", "controlnet"), None)

    def request(self, settings: dict[str, Any], image: Path | None, trajectory: Any) -> Request:
        """See `Generator.request`."""
        names = ("num_inference_steps", "height", "width", "num_frames", "guidance_scale")
        options = {name: settings[name] for name in (*names, "adapter_scale", "map_kind")}
        has_adapter = settings["adapter"] != "none" and trajectory is not None
        return make_request(
            image,
            settings["prompt"],
            trajectory if has_adapter else None,
            settings["seed"],
            sampling=SAMPLING,
            grid=GRID,
            has_adapter=has_adapter,
            **options,
        )

    def run(self, adapter: str, request: Request, progress: Any, on_preview: Any) -> np.ndarray:
        """A gray video of the requested size."""
        progress("denoise", 0, 1)
        progress("denoise", 1, 1)
        return np.full((request.num_frames, request.height, request.width, 3), 99, np.uint8)


def usage() -> dict[str, int]:
    """Resident MB now and at most, open files, and threads of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "resident_mb": int(status["VmRSS"].split()[0]) // 1024,
        "peak_mb": int(status["VmHWM"].split()[0]) // 1024,
        "open_files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
    }


class MallocInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc: bytes and counts over all its arenas."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")
    _fields_ = [(name, ctypes.c_size_t) for name in (*_names, "fordblks", "keepcost")]


def in_use() -> dict[str, int]:
    """Memory that is allocated, after garbage was collected and free memory returned.

    `blocks` counts those of Python's allocator for small objects; `malloc_mb` is what the C library
    has given out, and `trimmed_mb` the resident size once it returned what it kept.
    """
    gc.collect()
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = MallocInfo
    info = library.mallinfo2()
    library.malloc_trim(0)
    return {
        "blocks": sys.getallocatedblocks(),
        "malloc_mb": (info.uordblks + info.hblkhd) // 2**20,
        "kept_mb": info.fordblks // 2**20,
        "trimmed_mb": usage()["resident_mb"],
    }


def main() -> None:
    port, home = int(sys.argv[1]), Path(sys.argv[2])
    app = make_app(GrayGenerator(), home)
    config = uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    before = usage()
    signal.signal(signal.SIGUSR1, lambda *_: print(json.dumps(usage() | in_use()), flush=True))
    server.run()
    print(json.dumps({"before": before, "after": usage()}), flush=True)


if __name__ == "__main__":
    main()
