"""The web application: the page, and the HTTP API for the page and for scripts.

`openapi.py` documents the routes.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from flashmotion_jax.editor.generator import Generator, read_settings
from flashmotion_jax.editor.guard import MAX_UPLOAD, Guard
from flashmotion_jax.editor.importing import import_files
from flashmotion_jax.editor.jobs import ACTIVE, FILES, MAX_ACTIVE, History, Job, QueueFullError
from flashmotion_jax.editor.openapi import document
from flashmotion_jax.editor.uploads import Form, number, received, whole
from flashmotion_jax.editor.worker import Worker
from flashmotion_jax.media.images import read_image
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import parse_json
from flashmotion_jax.trajectory import Camera, Canvas, Trajectory, apply_camera
from flashmotion_jax.trajectory.formats import (
    FORMATS,
    ExportRequest,
    ImportOptions,
    write_trajectory,
)

STATIC = Path(__file__).parent / "static"
_MAX_NAME = 200
#: Requests whose files are read or written at the same time.
_AT_A_TIME = 4


class Editor:
    """The state of a server, and its routes.

    Args:
      generator: Generates the videos.
      home: Folder of the history.
      image: File that the page opens at first, or None.
    """

    def __init__(self, generator: Generator, home: Path, image: Path | None = None):
        self._generator, self._home, self._image = generator, home, image

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncGenerator[None, None]:
        """Opens the history and starts the queue; closes both when the server ends."""
        self._at_a_time = asyncio.Semaphore(_AT_A_TIME)
        self._history = History(self._home)
        self._worker = Worker(self._history, self._generator)
        self._worker.start()
        yield
        await run_in_threadpool(self._worker.stop)
        self._history.close()

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        """Reads or writes files in a thread; others wait, as each may take 0.5 GB."""
        async with self._at_a_time:
            return await run_in_threadpool(work, *args)

    def routes(self) -> list[Route | Mount]:
        """All routes."""
        return [
            Route("/", self._page),
            Route("/openapi.json", self._openapi),
            Route("/api/model", self._model),
            Route("/api/formats", self._formats),
            Route("/api/size", self._size),
            Route("/api/start", self._start),
            Route("/api/start/image", self._start_image),
            Route("/api/image", self._check_image, methods=["POST"]),
            Route("/api/select", self._select, methods=["POST"]),
            Route("/api/import", self._import, methods=["POST"]),
            Route("/api/export", self._export, methods=["POST"]),
            Route("/api/camera", self._camera, methods=["POST"]),
            Route("/api/jobs", self._list_jobs, methods=["GET"]),
            Route("/api/jobs", self._submit, methods=["POST"]),
            Route("/api/jobs/{id}", self._status, methods=["GET"]),
            Route("/api/jobs/{id}", self._remove, methods=["DELETE"]),
            Route("/api/jobs/{id}/cancel", self._cancel, methods=["POST"]),
            Route("/api/jobs/{id}/again", self._again, methods=["POST"]),
            Route("/api/jobs/{id}/{file}", self._file, methods=["GET"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]

    def _page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    def _openapi(self, request: Request) -> Response:
        return JSONResponse(document())

    def _model(self, request: Request) -> Response:
        return JSONResponse(self._generator.describe() | {"max_upload": MAX_UPLOAD})

    def _formats(self, request: Request) -> Response:
        formats = [
            {
                "name": one.name,
                "title": one.title,
                "suffixes": list(one.suffixes),
                "limits": one.limits,
                "reads": one.read is not None,
                "writes": one.write is not None,
                "writes_maps": one.writes_maps,
            }
            for one in FORMATS.values()
        ]
        return JSONResponse({"formats": formats})

    def _size(self, request: Request) -> Response:
        height, width = (whole(request.query_params, name) for name in ("height", "width"))
        size = self._generator.video_size(height, width)
        return JSONResponse({"height": size[0], "width": size[1]})

    def _start(self, request: Request) -> Response:
        return JSONResponse({"image": self._image and self._image.name})

    def _start_image(self, request: Request) -> Response:
        if self._image is None:
            raise HTTPException(404, "the editor was started without --image")
        return FileResponse(self._image)

    async def _check_image(self, request: Request) -> Response:
        kind = request.query_params.get("as")
        if kind not in (None, "png"):
            raise UserError(f"as={kind!r:.40}; expected png, or nothing")
        async with received(request) as form:
            return await self._in_thread(_checked_image, form, kind == "png")

    async def _select(self, request: Request) -> Response:
        async with received(request) as form:
            return await self._in_thread(_selected, form)

    async def _import(self, request: Request) -> Response:
        async with received(request) as form:
            options = _import_options(form.fields)
            return JSONResponse(await self._in_thread(import_files, form.folder, options))

    async def _export(self, request: Request) -> Response:
        async with received(request) as form:
            return await self._in_thread(self._exported, form)

    async def _camera(self, request: Request) -> Response:
        async with received(request) as form:
            return await self._in_thread(_seen_by_camera, form)

    def _exported(self, form: Form) -> Response:
        request = self._export_request(form)
        folder = Path(tempfile.mkdtemp(prefix="flashmotion-"))
        try:
            file = write_trajectory(form.fields.get("format", ""), request, folder)
        except BaseException:
            shutil.rmtree(folder)
            raise
        cleanup = BackgroundTask(shutil.rmtree, folder)
        return FileResponse(file, filename=file.name, background=cleanup)

    def _export_request(self, form: Form) -> ExportRequest:
        fields = form.fields
        trajectory = _required_trajectory(form)
        settings = read_settings({**fields, "adapter": "none"}, ())
        model = self._generator.describe()
        shape: dict[str, Any] = {
            "height": settings["height"] or trajectory.canvas.height,
            "width": settings["width"] or trajectory.canvas.width,
            "num_frames": settings["num_frames"] or trajectory.num_frames,
            "fps": trajectory.fps,
            "resize": model["resize"],
        }
        video = None
        if job_id := fields.get("job"):
            if (job := self._job(job_id)).state != "done":
                raise UserError(f"job {job.id} is {job.state}: only a finished job has a video")
            video = self._history.path(job, FILES["result"])
            shape = job.video
        return ExportRequest(
            trajectory=trajectory,
            name=fields.get("name", ""),
            map_kind=settings["map_kind"] or model["map_kind"],
            point_sigma=model["point_sigma"],
            prompt=settings["prompt"],
            image=form.file("image"),
            video=video,
            resize=shape.get("resize", "crop"),
            fps=number(fields, "fps", shape["fps"]),
            **{name: shape[name] for name in ("height", "width", "num_frames")},
        )

    def _list_jobs(self, request: Request) -> Response:
        jobs = self._history.all_jobs(request.query_params.get("session"))
        return JSONResponse({"jobs": [self._history.describe(job) for job in jobs]})

    async def _submit(self, request: Request) -> Response:
        async with received(request) as form:
            job = await self._in_thread(self._new_job, form)
        self._worker.submit(job)
        return JSONResponse(self._history.describe(job), 201)

    def _new_job(self, form: Form) -> Job:
        settings = read_settings(form.fields, self._generator.facts().adapters)
        trajectory = _read_trajectory(form)
        image = form.file("image")
        # Inputs that do not fit are rejected now, not when the job runs.
        self._generator.request(settings, image, trajectory)
        inputs = {}
        if trajectory is not None:
            inputs["trajectory"] = form.folder / ".trajectory.json"
            trajectory.save(inputs["trajectory"])
        for name, path in (("image", image), ("project", form.file("project"))):
            if path is not None:
                inputs[name] = path
        session, name = (form.fields.get(key, "")[:_MAX_NAME] for key in ("session", "name"))
        return self._history.new(session, name, settings, inputs)

    def _status(self, request: Request) -> Response:
        return JSONResponse(self._history.describe(self._job(request.path_params["id"])))

    def _remove(self, request: Request) -> Response:
        job = self._job(request.path_params["id"])
        if job.state in ACTIVE:
            raise HTTPException(409, f"the job is {job.state}: cancel it first")
        self._history.remove(job)
        return Response(status_code=204)

    def _cancel(self, request: Request) -> Response:
        job = self._job(request.path_params["id"])
        if not self._worker.cancel(job):
            raise HTTPException(409, f"the job has already ended: it is {job.state}")
        return JSONResponse(self._history.describe(job))

    def _again(self, request: Request) -> Response:
        job = self._job(request.path_params["id"])
        again = self._history.again(job, request.query_params.get("session", job.session))
        self._worker.submit(again)
        return JSONResponse(self._history.describe(again), 201)

    def _file(self, request: Request) -> Response:
        job, wanted = self._job(request.path_params["id"]), request.path_params["file"]
        name = job.image if wanted == "image" else FILES.get(wanted)
        path = None if name is None else self._history.path(job, name)
        if path is None or not path.is_file():
            raise HTTPException(404, f"the job has no {wanted!r}; it is {job.state}")
        if wanted == "preview":  # read at once: the next preview may replace the file
            return Response(path.read_bytes(), media_type="video/mp4")
        # Anything may have been sent as a project; it is not promised to be JSON.
        kind = "application/octet-stream" if wanted == "project" else None
        return FileResponse(
            path, filename=path.name, media_type=kind, content_disposition_type="inline"
        )

    def _job(self, job_id: str) -> Job:
        job = self._history.get(job_id)
        if job is None:
            raise HTTPException(404, f"no job {job_id!r}")
        return job


def make_app(
    generator: Generator,
    home: Path,
    *,
    image: Path | None = None,
    token: str | None = None,
) -> Starlette:
    """Builds the application.

    Args:
      generator: Generates the videos.
      home: Folder of the history.
      image: File that the page opens at first, or None.
      token: Token that every request must carry; None: only this machine is served.
    """
    editor = Editor(generator, home, image)
    return Starlette(
        routes=editor.routes(),
        lifespan=editor.lifespan,
        middleware=[Middleware(Guard, token=token)],
        exception_handlers={
            HTTPException: _http_error,
            UserError: _bad_input,
            QueueFullError: _full,
            Exception: _failed,
        },
    )


async def _http_error(request: Request, error: Any) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _bad_input(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _failed(request: Request, error: Exception) -> Response:
    # Its text may hold paths of this machine.
    return JSONResponse({"error": f"{type(error).__name__}; the server's log says more"}, 500)


async def _full(request: Request, error: Exception) -> Response:
    message = f"{MAX_ACTIVE} jobs are waiting: cancel one, or try again later"
    return JSONResponse({"error": message}, 429, headers={"Retry-After": "10"})


def _checked_image(form: Form, as_png: bool) -> Response:
    path = form.file("image")
    if path is None:
        raise UserError("image: missing, expected a file")
    pixels = read_image(path)
    if as_png:
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG", compress_level=1)
        return Response(png.getvalue(), media_type="image/png")
    return JSONResponse({"height": pixels.shape[0], "width": pixels.shape[1]})


def _selected(form: Form) -> Response:
    try:
        from flashmotion_jax.editor.selection import select_in_box, select_region
    except ImportError as error:
        install = 'pip install "flashmotion_jax[edit]"'
        raise UserError(f"selection needs OpenCV ({error}): {install}") from error

    path = form.file("image")
    if path is None:
        raise UserError("image: missing, expected a file")
    pixels = read_image(path)
    numbers = {
        name: number(form.fields, name, 0.0)
        for name in ("x", "y", "x0", "y0", "x1", "y1", "tolerance")
        if name in form.fields
    }
    if "x0" in numbers:
        x0, y0, x1, y1 = (numbers.get(name, 0.0) for name in ("x0", "y0", "x1", "y1"))
        mask = select_in_box(pixels, (x0, y0, x1, y1))
    else:
        x, y = numbers.get("x", -1.0), numbers.get("y", -1.0)
        mask = select_region(pixels, x, y, numbers.get("tolerance", 24.0))
    return JSONResponse({"size": list(mask.size), "counts": list(mask.counts)})


def _import_options(fields: dict[str, str]) -> ImportOptions:
    default = ImportOptions()
    canvas = Canvas(
        whole(fields, "canvas_width", default.canvas.width),
        whole(fields, "canvas_height", default.canvas.height),
    )
    has_box = "box_width" in fields or "box_height" in fields
    return ImportOptions(
        canvas=canvas,
        num_frames=whole(fields, "num_frames", default.num_frames),
        fps=number(fields, "fps", default.fps),
        box_size=(whole(fields, "box_width"), whole(fields, "box_height")) if has_box else None,
        map_kind=fields.get("map_kind") or default.map_kind,  # type: ignore[arg-type]
        id=fields.get("id", ""),
    )


def _seen_by_camera(form: Form) -> Response:
    camera = Camera.parse(form.fields.get("camera", "").split() or [""])
    return JSONResponse(apply_camera(_required_trajectory(form), camera).to_dict())


def _required_trajectory(form: Form) -> Trajectory:
    if (trajectory := _read_trajectory(form)) is None:
        raise UserError("trajectory: missing, expected a trajectory.json")
    return trajectory


def _read_trajectory(form: Form) -> Trajectory | None:
    """The trajectory of a form, sent as a file or a field, with masks as run lengths only."""
    path, text = form.file("trajectory"), form.fields.get("trajectory", "")
    content = text.encode() if path is None else path.read_bytes()
    if not content.strip():
        return None
    return Trajectory.from_dict(parse_json(content, "trajectory", "format: docs/trajectories.md"))
