"""Jobs and their history: one folder for each job, with its inputs and its results.

    HOME/<id>/job.json, trajectory.json, image.*, project.json        inputs
    HOME/<id>/video.mp4, map.mp4, boxes.json                          results
    HOME/<id>/preview.mp4                                             until the job ends

Folders of jobs and their files are private to the user.

A server that was killed leaves jobs in the state "running". Every server holds a lock on a file of
its own while it lives, so the next one can tell them from jobs of a server that still works.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import reprlib
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import read_json_object

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: States of a job that has not ended.
ACTIVE = ("queued", "running")
STATES = (*ACTIVE, "done", "failed", "cancelled", "interrupted")
#: Jobs that may wait or run at a time.
MAX_ACTIVE = 20
_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
_SERVER = re.compile(r"[0-9a-f]{16}")
_LOGGER = logging.getLogger(__name__)
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
#: Name of a job's file in the API -> its file name.
FILES = {
    "result": "video.mp4",
    "map": "map.mp4",
    "trajectory": "trajectory.json",
    "boxes": "boxes.json",
    "preview": "preview.mp4",
    "project": "project.json",
}
#: Settings by the names they had until December 2026.
OLD_SETTINGS = {
    "steps": "num_inference_steps",
    "frames": "num_frames",
    "guidance": "guidance_scale",
    "kind": "map_kind",
}


@dataclass
class Job:
    """A request for a video.

    Attributes:
      id: Name of its folder.
      session: Session of the page that submitted it.
      settings: From `generator.read_settings`.
      name: Name of its project.
      image: File name of the first frame in the folder, or None.
      server: Id of the server that runs it.
      state: "queued", "running", "done", "failed", "cancelled" or "interrupted".
      created: Time of submission, in seconds since 1970.
      started: Likewise, when it left the queue.
      finished: Likewise, when it ended in any state.
      progress: Stage -> [steps done, all steps], in the order of the stages.
      error: Why it failed, or None.
      video: `height`, `width`, `num_frames` and `fps`, as soon as they are known.
      seconds: Stage -> its duration.
      preview: Number of denoising steps that the file "preview" shows; None if there is none.
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
    preview: int | None = None


class QueueFullError(Exception):
    """As many jobs wait as may."""


class History:
    """All jobs of a folder, in memory and on disk; thread-safe.

    Args:
      home: The folder, created if it is missing.
    """

    def __init__(self, home: Path):
        self._home = home
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._server = secrets.token_hex(8)
        self._alive = home / ".servers" / self._server
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._alive.parent.mkdir(mode=0o700, exist_ok=True)
        self._held = self._alive.open("w")
        if fcntl:
            fcntl.flock(self._held, fcntl.LOCK_EX)
        self._read()

    def close(self) -> None:
        """Releases the folder, and marks unfinished jobs as interrupted."""
        with self._lock:
            for job in self._jobs.values():
                if job.state in ACTIVE:
                    self.end(job, "interrupted")
            self._held.close()
            self._alive.unlink(missing_ok=True)

    def new(
        self, session: str, name: str, settings: dict[str, Any], inputs: dict[str, Path]
    ) -> Job:
        """Creates a job.

        Args:
          session: Session of the page.
          name: Name of the project.
          settings: See `Job`.
          inputs: "trajectory", "image", "project" -> a file, which is copied.

        Raises:
          QueueFullError: `MAX_ACTIVE` jobs have not ended.
        """
        job_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"
        image = inputs.get("image")
        image_name = self._file_name("image", image) if image else None
        job = Job(job_id, session, settings, name, image_name, self._server)
        with self._lock:
            if sum(one.state in ACTIVE for one in self._jobs.values()) >= MAX_ACTIVE:
                raise QueueFullError
            self._jobs[job_id] = job
        folder = self._home / job_id
        try:
            folder.mkdir(mode=0o700, parents=True)
            for input_name, source in inputs.items():
                shutil.copyfile(source, folder / self._file_name(input_name, source))
            self.save(job)
        except BaseException:
            self.remove(job)
            raise
        _make_private(folder)
        return job

    def again(self, job: Job, session: str) -> Job:
        """Creates a job with the inputs and settings of another."""
        inputs = {name: self.path(job, FILES[name]) for name in ("trajectory", "project")}
        if job.image:
            inputs["image"] = self.path(job, job.image)
        there = {name: path for name, path in inputs.items() if path.is_file()}
        return self.new(session, job.name, job.settings, there)

    def get(self, job_id: str) -> Job | None:
        """The job with an id, or None."""
        with self._lock:
            return self._jobs.get(job_id)

    def all_jobs(self, session: str | None = None) -> list[Job]:
        """The jobs of a session, or of all sessions, newest first."""
        with self._lock:
            jobs = [job for job in self._jobs.values() if session in (None, job.session)]
        return sorted(jobs, key=lambda job: job.created, reverse=True)

    def path(self, job: Job, name: str) -> Path:
        """The path of a job's file, which may not exist."""
        return self._home / job.id / name

    def end(self, job: Job, state: str, error: str | None = None) -> None:
        """Sets the final state of a job, whose preview is deleted."""
        self.path(job, FILES["preview"]).unlink(missing_ok=True)
        with self._lock:
            job.state, job.error, job.finished = state, error, time.time()
            job.preview = None
            self.save(job)
        _make_private(self._home / job.id)

    def save(self, job: Job) -> None:
        """Writes `job.json`."""
        with self._lock, replacing(self.path(job, "job.json")) as scratch:
            text = json.dumps(asdict(job), indent=1, allow_nan=False)
            scratch.write_text(text, encoding="utf-8")

    def remove(self, job: Job) -> None:
        """Deletes a job and its files."""
        with self._lock:
            self._jobs.pop(job.id, None)
            shutil.rmtree(self._home / job.id, ignore_errors=True)

    def describe(self, job: Job) -> dict[str, Any]:
        """A job as JSON for the API."""
        with self._lock:
            facts: dict[str, Any] = asdict(job)
            queued = [one for one in self._jobs.values() if one.state == "queued"]
        waiting = [one.id for one in sorted(queued, key=lambda one: one.created)]
        del facts["server"]
        facts["ahead"] = waiting.index(job.id) if job.id in waiting else 0
        facts["files"] = [key for key, name in FILES.items() if self.path(job, name).is_file()]
        return facts

    def _file_name(self, name: str, source: Path) -> str:
        suffix = source.suffix.lower()
        if name == "image":
            # Browsers judge files by their suffix: only those of images, never of pages or scripts.
            return f"image{suffix if suffix in _SUFFIXES else ''}"
        return FILES[name]

    def _read(self) -> None:
        for file in sorted(self._home.glob("*/job.json")):
            if not _ID.fullmatch(file.parent.name):
                continue
            try:
                job = read_job(file)
            except (UserError, OSError) as error:
                _LOGGER.warning("left out of the history: %s", error)
                continue
            _make_private(file.parent)
            if job.state in ACTIVE:
                if self._is_alive(job.server):
                    continue  # another server is working on it
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


def _make_private(folder: Path) -> None:
    """Takes the permissions of other users away."""
    with contextlib.suppress(OSError):  # a folder of another user, or one just removed
        folder.chmod(0o700)
        for file in folder.iterdir():
            file.chmod(0o600)


def read_job(file: Path) -> Job:
    """Reads a `job.json`, which anything may have written or cut short.

    Raises:
      UserError: It is not that of a job in this folder.
    """
    fix = "move the folder away"
    values = read_json_object(file, fix)
    for name in ("settings", "video"):
        if not isinstance(values.get(name), dict):
            raise UserError(f"{file} is not a job: it has no {name}; {fix}")
    try:
        job = Job(**_with_current_names(values))
    except (TypeError, ValueError) as error:
        raise UserError(f"{file} is not a job ({str(error)[:200]}); {fix}") from error
    for name, is_valid in _FIELDS.items():
        if not is_valid(getattr(job, name)):
            value = reprlib.repr(getattr(job, name))
            raise UserError(f"{file} is not a job: its {name} is {value}; {fix}")
    if job.id != file.parent.name:
        raise UserError(f"{file} is of another job, {job.id!r:.100}; {fix}")
    return job


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_progress(value: Any) -> bool:
    def counts(one: Any) -> bool:
        return isinstance(one, list) and len(one) == 2 and all(type(n) is int for n in one)

    return isinstance(value, dict) and all(map(counts, value.values()))


def _is_seconds(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_time, value.values()))


#: Whether the value of a field that was read from a file can be used.
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "id": _is_text,
    "session": _is_text,
    "name": _is_text,
    "image": lambda value: value is None or value in ("image", *map("image{}".format, _SUFFIXES)),
    "server": lambda value: _is_text(value) and _SERVER.fullmatch(value) is not None,
    "state": lambda value: value in STATES,
    "created": _is_time,
    "started": lambda value: value is None or _is_time(value),
    "finished": lambda value: value is None or _is_time(value),
    "progress": _is_progress,
    "error": lambda value: value is None or _is_text(value),
    "seconds": _is_seconds,
    "preview": lambda value: value is None or type(value) is int,
}


def _with_current_names(job: dict[str, Any]) -> dict[str, Any]:
    """The data of a `job.json`, with the names used until December 2026 replaced by today's."""
    settings, video = dict(job["settings"]), dict(job["video"])
    for old, new in OLD_SETTINGS.items():
        if old in settings:
            settings[new] = settings.pop(old)
    if "size" in settings:
        settings["height"], settings["width"] = settings.pop("size") or (None, None)
    if "frames" in video:
        video["num_frames"] = video.pop("frames")
    return {**job, "settings": settings, "video": video}
