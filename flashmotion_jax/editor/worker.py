"""A thread that generates the videos of the queue, one at a time."""

from __future__ import annotations

import json
import logging
import queue
import threading
import time

import numpy as np

from flashmotion_jax.config import Resize
from flashmotion_jax.data.sprites import is_of_sprites
from flashmotion_jax.editor.generator import Generator
from flashmotion_jax.editor.jobs import ACTIVE, FILES, History, Job
from flashmotion_jax.editor.measure import report
from flashmotion_jax.inference.previews import PreviewWriter
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.limits import EDITOR, limited
from flashmotion_jax.trajectory import Trajectory

_LOGGER = logging.getLogger(__name__)
#: Seconds that a stopping server waits for the current step.
_STOP_TIMEOUT = 10
#: Characters of an error that the page shows.
_MAX_ERROR = 1000


class _CancelledError(Exception):
    pass


class Worker:
    """The queue and its thread.

    Args:
      history: Keeps jobs and results.
      generator: Generates the videos.
    """

    def __init__(self, history: History, generator: Generator):
        self._history, self._generator = history, generator
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._start_lock = threading.Lock()  # a job either starts or is cancelled before
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="generate", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread; the running job is interrupted at its next step."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join(_STOP_TIMEOUT)

    def submit(self, job: Job) -> None:
        """Puts a job at the end of the queue."""
        self._queue.put(job)

    def cancel(self, job: Job) -> bool:
        """Cancels a queued job at once, a running one at its next step; False if it has ended."""
        with self._start_lock:
            if job.state == "queued":
                self._history.end(job, "cancelled")
            elif job.state in ACTIVE:
                self._cancelled.add(job.id)
            else:
                return False
        return True

    def _work(self) -> None:
        while (job := self._queue.get()) is not None and not self._stopping:
            with self._start_lock:
                if job.state != "queued":
                    continue
                job.state, job.started = "running", time.time()
                self._history.save(job)
            try:
                with limited(EDITOR):
                    self._generate(job)
            except _CancelledError:
                state = "interrupted" if self._stopping else "cancelled"
                self._history.end(job, state)
            except Exception as error:  # of any type: the page shows it, and the next job runs
                _LOGGER.exception("job %s failed", job.id)
                self._history.end(job, "failed", f"{type(error).__name__}: {error}"[:_MAX_ERROR])
            else:
                self._history.end(job, "done")
            self._cancelled.discard(job.id)

    def _generate(self, job: Job) -> None:
        began: dict[str, float] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if job.id in self._cancelled or self._stopping:
                raise _CancelledError
            began.setdefault(stage, time.perf_counter())
            # Dictionaries are replaced, not changed, because other threads read them.
            job.progress = {**job.progress, stage: [done, total]}
            if done == total:
                taken = round(time.perf_counter() - began[stage], 3)
                job.seconds = {**job.seconds, stage: taken}

        def path(name: str):
            return self._history.path(job, name)

        has_trajectory = path("trajectory.json").is_file()
        trajectory = Trajectory.load(path("trajectory.json")) if has_trajectory else None
        image = path(job.image) if job.image else None
        request = self._generator.request(job.settings, image, trajectory)
        fps = request.sampling.fps
        job.video = {
            "height": request.height,
            "width": request.width,
            "num_frames": request.num_frames,
            "fps": fps,
            "resize": request.sampling.resize,
        }

        def previewed(step: int) -> None:
            job.preview = step

        with PreviewWriter(path(FILES["preview"]), fps, on_written=previewed) as on_preview:
            video = self._generator.run(job.settings["adapter"], request, progress, on_preview)
        progress("save", 0, 1)
        if request.maps is not None:
            write_video(path(FILES["map"]), request.maps[0], fps)
        if trajectory is not None:
            self._measure(job, trajectory, video, request.sampling.resize)
        write_video(path(FILES["result"]), video, fps)
        progress("save", 1, 1)

    def _measure(self, job: Job, trajectory: Trajectory, video: np.ndarray, resize: Resize) -> None:
        of_sprites = is_of_sprites(self._generator.facts().words)
        with replacing(self._history.path(job, FILES["boxes"])) as scratch:
            boxes = report(trajectory, video, of_sprites, resize)
            scratch.write_text(json.dumps(boxes), encoding="utf-8")
