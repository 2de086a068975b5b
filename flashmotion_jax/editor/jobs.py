"""Jobs and their history: a folder each, which says what was asked and holds what came of it.

    HOME/<id>/job.json, trajectory.json, image.*, project.json        what was asked
    HOME/<id>/video.mp4, map.mp4, boxes.json                          what came of it

A server that ended in mid-work leaves jobs behind that say "running"; the next one finds them by
the lock that every server holds on a file of its own as long as it lives.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flashmotion_jax.runtime.atomic import replacing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: Of a job that has not ended.
ACTIVE = ("queued", "running")
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
#: What a request may ask for of a job, and the file it gets.
FILES = {
    "result": "video.mp4",
    "map": "map.mp4",
    "trajectory": "trajectory.json",
    "boxes": "boxes.json",
    "project": "project.json",
}


@dataclass
class Job:
    """A video that was asked for.

    Attributes:
      id: name of its folder.
      session: of the page that asked.
      settings: what was chosen, see `generator.read_settings`.
      name: of its project, for people.
      image: name of the first frame's file in the folder, or None.
      server: that runs it.
      state: queued, running, done, failed, cancelled or interrupted.
      created: seconds since 1970, as are `started` and `finished`.
      started: when its turn came.
      finished: when it ended, however it did.
      progress: stage -> [steps done, steps], in the order of the stages.
      error: why it failed.
      video: height, width, frames and fps, once they are known.
      seconds: stage -> what it took.
    """

    id: str
    session: str
    settings: dict[str, Any]
    name: str
    image: str | None
    server: str
    state: str = "queued"
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    progress: dict[str, list[int]] = field(default_factory=dict)
    error: str | None = None
    video: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class History:
    """All jobs of a folder, in memory and on disk. Safe to use from several threads.

    Args:
      home: the folder; made if need be.
    """

    def __init__(self, home: Path):
        self._home = home
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._server = secrets.token_hex(8)
        self._alive = home / ".servers" / self._server
        self._alive.parent.mkdir(parents=True, exist_ok=True)
        self._held = self._alive.open("w")
        if fcntl:
            fcntl.flock(self._held, fcntl.LOCK_EX)
        self._read()

    def close(self) -> None:
        """Lets the folder go: unfinished jobs are interrupted ones."""
        with self._lock:
            for job in self._jobs.values():
                if job.state in ACTIVE:
                    self.end(job, "interrupted")
            self._held.close()
            self._alive.unlink(missing_ok=True)

    def new(
        self, session: str, name: str, settings: dict[str, Any], inputs: dict[str, Path]
    ) -> Job:
        """Puts down a job.

        Args:
          session: of the page that asks.
          name: of the project.
          settings: see `Job`.
          inputs: what it needs: "trajectory", "image", "project" -> a file, which is copied.
        """
        job_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        folder = self._home / job_id
        folder.mkdir(parents=True)
        image = inputs.get("image")
        for kind, source in inputs.items():
            shutil.copyfile(source, folder / self._input_name(kind, source))
        image_name = self._input_name("image", image) if image else None
        job = Job(job_id, session, settings, name, image_name, self._server)
        with self._lock:
            self._jobs[job_id] = job
            self.save(job)
        return job

    def again(self, job: Job, session: str) -> Job:
        """A new job that asks for the same."""
        inputs = {kind: self.path(job, FILES[kind]) for kind in ("trajectory", "project")}
        if job.image:
            inputs["image"] = self.path(job, job.image)
        there = {kind: path for kind, path in inputs.items() if path.is_file()}
        return self.new(session, job.name, job.settings, there)

    def get(self, job_id: str) -> Job | None:
        """A job by its id."""
        with self._lock:
            return self._jobs.get(job_id)

    def all_jobs(self, session: str | None = None) -> list[Job]:
        """The jobs, newest first; only those of a session, or all."""
        with self._lock:
            jobs = [job for job in self._jobs.values() if session in (None, job.session)]
        return sorted(jobs, key=lambda job: job.created, reverse=True)

    def path(self, job: Job, name: str) -> Path:
        """The path of a job's file, there or not."""
        return self._home / job.id / name

    def end(self, job: Job, state: str, error: str | None = None) -> None:
        """Says how a job ended."""
        with self._lock:
            job.state, job.error, job.finished = state, error, time.time()
            self.save(job)

    def save(self, job: Job) -> None:
        """Writes what the disk shall know of a job."""
        with self._lock, replacing(self.path(job, "job.json")) as scratch:
            scratch.write_text(json.dumps(asdict(job), indent=1), encoding="utf-8")

    def remove(self, job: Job) -> None:
        """Deletes a job and all it made."""
        with self._lock:
            del self._jobs[job.id]
            shutil.rmtree(self._home / job.id)

    def describe(self, job: Job) -> dict[str, Any]:
        """A job as the API gives it."""
        with self._lock:
            facts: dict[str, Any] = asdict(job)
            queued = [one for one in self._jobs.values() if one.state == "queued"]
        waiting = [one.id for one in sorted(queued, key=lambda one: one.created)]
        del facts["server"]
        facts["ahead"] = waiting.index(job.id) if job.id in waiting else 0
        facts["files"] = [kind for kind, name in FILES.items() if self.path(job, name).is_file()]
        return facts

    def _input_name(self, kind: str, source: Path) -> str:
        suffix = source.suffix.lower()
        if kind == "image":
            # A browser goes by the suffix: none that could be a page or a script.
            return f"image{suffix if suffix in _PICTURES else ''}"
        return FILES[kind]

    def _read(self) -> None:
        for file in sorted(self._home.glob("*/job.json")):
            if not _ID.fullmatch(file.parent.name):
                continue
            try:
                job = Job(**json.loads(file.read_text(encoding="utf-8")))
            except (ValueError, TypeError, OSError):
                continue  # of another version, or no job at all
            if job.state in ACTIVE:
                if self._is_alive(job.server):
                    continue  # another server's, which is at work on it
                self._jobs[job.id] = job
                self.end(job, "interrupted")
            self._jobs[job.id] = job

    def _is_alive(self, server: str) -> bool:
        path = self._alive.with_name(server)
        if fcntl is None or not path.is_file():
            return False
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
            path.unlink(missing_ok=True)
        return False
