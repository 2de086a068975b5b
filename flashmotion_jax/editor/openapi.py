"""The HTTP API as an OpenAPI document."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from flashmotion_jax.config import ADAPTERS
from flashmotion_jax.editor.jobs import FILES
from flashmotion_jax.trajectory.formats import FORMATS

_TEXT, _INTEGER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_FILE = {"type": "string", "format": "binary"}


def document() -> dict[str, Any]:
    """Builds the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flashmotion edit",
            "version": version("flashmotion_jax"),
            "description": "Trajectories, and jobs that generate videos.",
        },
        "paths": {**_job_paths(), **_exchange_paths(), **_page_paths()},
        "components": {"schemas": _schemas()},
    }


def _job_paths() -> dict[str, Any]:
    job, no_job = _json("the job", "Job"), _failure("no such job")
    ended = {"409": _failure("the job is in another state")}
    full = {"429": _failure("too many jobs are waiting")}
    by_id = [_parameter("id", "path", "id of the job")]
    return {
        "/api/jobs": {
            "get": _operation(
                "Lists jobs, newest first",
                {"200": _json("the jobs", "Jobs")},
                [_parameter("session", "query", "only jobs of this session")],
            ),
            "post": _operation(
                "Submits a job: image, prompt and trajectory to a video",
                {
                    "201": job,
                    "400": _failure("an input does not fit the model"),
                    **_too_large(),
                    **full,
                },
                form=_SUBMIT,
            ),
        },
        "/api/jobs/{id}": {
            "get": _operation("Status and progress", {"200": job, "404": no_job}, by_id),
            "delete": _operation(
                "Deletes an ended job and its files",
                {"204": {"description": "deleted"}, "404": no_job, **ended},
                by_id,
            ),
        },
        "/api/jobs/{id}/cancel": {
            "post": _operation(
                "Cancels a queued job at once, a running job at its next step",
                {"200": job, "404": no_job, **ended},
                by_id,
            )
        },
        "/api/jobs/{id}/again": {
            "post": _operation(
                "Submits a job with the same inputs",
                {"201": job, "404": no_job, **full},
                [*by_id, _parameter("session", "query", "session of the new job")],
            )
        },
        "/api/jobs/{id}/{file}": {
            "get": _operation(
                "A file of the job: `result` is the video, `preview` what is known of it so far",
                {
                    "200": _bytes("the file"),
                    "404": _failure("the job has no such file, or not yet"),
                },
                [*by_id, _parameter("file", "path", "name of the file", [*FILES, "image"])],
            )
        },
    }


def _exchange_paths() -> dict[str, Any]:
    size_or_png = _json("its size, or the PNG", "Size")
    size_or_png["content"]["image/png"] = {"schema": _FILE}
    wrong = {
        "400": _failure("the input is damaged, or does not fit the format"),
        **_too_large(),
    }
    return {
        "/api/import": {
            "post": _operation(
                "Reads a trajectory in any format of /api/formats",
                {"200": _json("the trajectory", "Imported"), **wrong},
                form=_IMPORT,
            )
        },
        "/api/export": {
            "post": _operation(
                "Writes a trajectory in a format of /api/formats",
                {"200": _bytes("a file, or a zip of several"), **wrong},
                form=_EXPORT,
            )
        },
        "/api/camera": {
            "post": _operation(
                "Moves the objects of a trajectory as a camera would",
                {"200": _json("the trajectory", "Trajectory"), **wrong},
                form={
                    "trajectory": _FILE,
                    "camera": _described(_TEXT, "as of `flashmotion sample --camera`, by spaces"),
                },
            )
        },
        "/api/select": {
            "post": _operation(
                "Selects an object by a point (x, y, tolerance) or a box (x0, y0, x1, y1)",
                {"200": _json("the mask as run lengths", "Mask"), **wrong},
                form=_SELECT,
            )
        },
        "/api/image": {
            "post": _operation(
                "Checks an image, or with `?as=png` converts it to PNG",
                {"200": size_or_png, **wrong},
                [_parameter("as", "query", "convert it", ["png"])],
                form={"image": _FILE},
            )
        },
    }


def _page_paths() -> dict[str, Any]:
    sides = [
        _parameter(name, "query", "of the image, in pixels", schema=_INTEGER)
        for name in ("height", "width")
    ]
    return {
        "/api/model": {
            "get": _operation(
                "Sizes and adapters of the model", {"200": _json("the facts", "Model")}
            )
        },
        "/api/formats": {
            "get": _operation("Formats of trajectories", {"200": _json("the table", "Formats")})
        },
        "/api/size": {
            "get": _operation(
                "The size of the video of an image",
                {"200": _json("the size", "Size"), "400": _failure("no size fits")},
                sides,
            )
        },
        "/api/start": {
            "get": _operation("First image of the page", {"200": _json("its name", "Start")})
        },
        "/api/start/image": {
            "get": _operation(
                "The image of --image", {"200": _bytes("the image"), "404": _failure("no --image")}
            )
        },
    }


def _described(schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {**schema, "description": text}


_SUBMIT = {
    "image": _described(_FILE, "first frame; without it: text-to-video"),
    "trajectory": _described(_FILE, "trajectory.json, masks as run lengths"),
    "prompt": _TEXT,
    "seed": _described(_INTEGER, "seed of the noise, default 0"),
    "adapter": _described(_TEXT, f"{', '.join(ADAPTERS)} or none; default: the model's first"),
    "num_inference_steps": _INTEGER,
    "height": _described(_INTEGER, "in pixels; default: fits the model and the image"),
    "width": _described(_INTEGER, "in pixels, given with height"),
    "num_frames": _INTEGER,
    "guidance_scale": _NUMBER,
    "adapter_scale": _described(_NUMBER, "weight of the trajectory, default 1"),
    "map_kind": _described(_TEXT, "box, filled_box, mask or points; default: the model's"),
    "session": _described(_TEXT, "any name; jobs can be listed by session"),
    "name": _described(_TEXT, "name of the job"),
    "project": _described(_FILE, "any file; stored as the file `project`"),
}
_IMPORT = {
    "files": {"type": "array", "items": _FILE},
    "canvas_width": _described(_INTEGER, "width of the image of point tracks, default 1280"),
    "canvas_height": _described(_INTEGER, "height of the image of point tracks, default 704"),
    "box_width": _described(_INTEGER, "of boxes around point tracks, in pixels"),
    "box_height": _INTEGER,
    "num_frames": _described(_INTEGER, "length for a label image, default 121"),
    "fps": _NUMBER,
    "map_kind": _described(_TEXT, "what map videos show, default box"),
    "id": _described(_TEXT, "row of a MagicData folder, default the first"),
}
_EXPORT = {
    "trajectory": _FILE,
    "format": {"type": "string", "enum": [one.name for one in FORMATS.values() if one.write]},
    "name": _TEXT,
    "height": _described(_INTEGER, "of maps, in pixels; default: the canvas's"),
    "width": _INTEGER,
    "num_frames": _INTEGER,
    "fps": _NUMBER,
    "map_kind": _described(_TEXT, "what maps show, default the model's"),
    "prompt": _TEXT,
    "image": _described(_FILE, "first frame, for MagicData"),
    "job": _described(_TEXT, "a finished job whose video is included, for MagicData"),
}
_FORMAT = {
    "name": _TEXT,
    "title": _TEXT,
    "suffixes": {"type": "array", "items": _TEXT},
    "limits": _described(_TEXT, "what it cannot express"),
    "reads": {"type": "boolean"},
    "writes": {"type": "boolean"},
    "writes_maps": _described({"type": "boolean"}, "whether export depends on size and map_kind"),
}
_SELECT = {
    "image": _FILE,
    **dict.fromkeys(("x", "y", "tolerance", "x0", "y0", "x1", "y1"), _NUMBER),
}


def _schemas() -> dict[str, Any]:
    steps = {"type": "object", "additionalProperties": {"type": "array", "items": _INTEGER}}
    states = ["queued", "running", "done", "failed", "cancelled", "interrupted"]
    maybe = {"type": ["number", "null"]}
    job = {
        "id": _TEXT,
        "session": _TEXT,
        "name": _TEXT,
        "state": {"type": "string", "enum": states},
        "ahead": _described(_INTEGER, "queued jobs before it"),
        "progress": _described(steps, "stage -> [steps done, all steps]"),
        "seconds": {"type": "object", "additionalProperties": _NUMBER},
        "preview": _described(
            {"type": ["integer", "null"]},
            "denoising steps that the file `preview` shows; null without one",
        ),
        "settings": {"type": "object"},
        "video": _described({"type": "object"}, "height, width, num_frames, fps, resize"),
        "files": {"type": "array", "items": _TEXT},
        "error": {"type": ["string", "null"]},
        "created": _NUMBER,
        "started": maybe,
        "finished": maybe,
    }
    run_lengths = {"type": "array", "items": _INTEGER}
    return {
        "Job": _object(job),
        "Jobs": _object({"jobs": {"type": "array", "items": _reference("Job")}}),
        "Error": _object({"error": _TEXT}),
        "Start": _object({"image": {"type": ["string", "null"]}}),
        "Size": _object({"height": _INTEGER, "width": _INTEGER}),
        "Mask": _object({"size": run_lengths, "counts": run_lengths}),
        "Model": {"type": "object", "description": "sizes, `resize`, steps, adapters, `map_kind`"},
        "Trajectory": {"type": "object", "description": "a trajectory.json"},
        "Formats": _object({"formats": {"type": "array", "items": _object(_FORMAT)}}),
        "Imported": _object(
            {
                "format": _TEXT,
                "title": _TEXT,
                "trajectory": _reference("Trajectory"),
                "image": {"type": ["string", "null"], "description": "PNG in base64"},
                "prompt": _TEXT,
                "notices": {"type": "array", "items": _TEXT},
            }
        ),
    }


def _operation(
    summary: str,
    responses: dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
    form: dict[str, Any] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "responses": responses}
    if parameters:
        operation["parameters"] = parameters
    if form:
        content = {"multipart/form-data": {"schema": _object(form)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(
    name: str,
    place: str,
    description: str,
    values: list[str] | None = None,
    schema: dict[str, Any] = _TEXT,
) -> dict[str, Any]:
    facts = {
        "name": name,
        "in": place,
        "description": description,
        "schema": {**schema, "enum": values} if values else schema,
    }
    return {**facts, "required": place == "path" or schema is _INTEGER}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _json(description: str, schema: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": _reference(schema)}},
    }


def _bytes(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"*/*": {"schema": _FILE}}}


def _failure(description: str) -> dict[str, Any]:
    return _json(description, "Error")


def _too_large() -> dict[str, Any]:
    return {"413": _failure("the upload is too large")}
