"""The HTTP API as an OpenAPI document, for scripts and for tools that read such documents."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from flashmotion_jax.config import ADAPTERS
from flashmotion_jax.editor.exporting import FORMATS
from flashmotion_jax.editor.jobs import FILES

_TEXT, _WHOLE, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_FILE = {"type": "string", "format": "binary"}


def document() -> dict[str, Any]:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "flashmotion edit",
            "version": version("flashmotion_jax"),
            "description": "Draw trajectories, generate videos: submit, status, cancel, result.",
        },
        "paths": {**_job_paths(), **_exchange_paths(), **_page_paths()},
        "components": {"schemas": _schemas()},
    }


def _job_paths() -> dict[str, Any]:
    job, no_job = _json("the job", "Job"), _refused("there is no such job")
    ended = {"409": _refused("it has ended, or has not")}
    by_id = [_parameter("id", "path", "of the job")]
    return {
        "/api/jobs": {
            "get": _operation(
                "Lists jobs, newest first",
                {"200": _json("the jobs", "Jobs")},
                [_parameter("session", "query", "only those of a session")],
            ),
            "post": _operation(
                "Submits a job: image, prompt and trajectory to a video",
                {"201": job, "400": _refused("something does not fit"), **_too_large()},
                form=_SUBMIT,
            ),
        },
        "/api/jobs/{id}": {
            "get": _operation("Status and progress", {"200": job, "404": no_job}, by_id),
            "delete": _operation(
                "Deletes an ended job and its files",
                {"204": {"description": "gone"}, "404": no_job, **ended},
                by_id,
            ),
        },
        "/api/jobs/{id}/cancel": {
            "post": _operation(
                "Cancels: at once if it waits, else at its next step",
                {"200": job, "404": no_job, **ended},
                by_id,
            )
        },
        "/api/jobs/{id}/again": {
            "post": _operation(
                "Submits the same once more",
                {"201": job, "404": no_job},
                [*by_id, _parameter("session", "query", "of the new job")],
            )
        },
        "/api/jobs/{id}/{file}": {
            "get": _operation(
                "A file of the job: `result` is the video",
                {"200": _bytes("the file"), "404": _refused("it is not there (yet)")},
                [*by_id, _parameter("file", "path", "which", [*FILES, "image"])],
            )
        },
    }


def _exchange_paths() -> dict[str, Any]:
    wrong = {"400": _refused("it cannot be read or said"), **_too_large()}
    return {
        "/api/import": {
            "post": _operation(
                "Reads trajectory.json, MagicMotion, Wan-Move, ATI, ComfyUI, MagicData, labels",
                {"200": _json("what was read", "Imported"), **wrong},
                form=_IMPORT,
            )
        },
        "/api/export": {
            "post": _operation(
                "Writes a trajectory in another format",
                {"200": _bytes("a file, or a zip of several"), **wrong},
                form=_EXPORT,
            )
        },
        "/api/select": {
            "post": _operation(
                "Selects by a click (x, y, tolerance) or in a box (x0, y0, x1, y1)",
                {"200": _json("run lengths", "Mask"), **wrong},
                form=_SELECT,
            )
        },
        "/api/image": {
            "post": _operation(
                "Checks an image; with `?as=png` gives it back as PNG",
                {"200": _json("its size", "Size"), **wrong},
                [_parameter("as", "query", "give it back", ["png"])],
                form={"image": _FILE},
            )
        },
    }


def _page_paths() -> dict[str, Any]:
    sides = [_parameter(name, "query", "of the image", kind=_WHOLE) for name in ("height", "width")]
    return {
        "/api/model": {
            "get": _operation("What the model takes", {"200": _json("its facts", "Model")})
        },
        "/api/size": {
            "get": _operation(
                "The size of the video of an image",
                {"200": _json("of the video", "Size"), "400": _refused("no such size")},
                sides,
            )
        },
        "/api/start": {"get": _operation("What the page begins with", {"200": _bytes("JSON")})},
        "/api/start/image": {
            "get": _operation(
                "The image of --image", {"200": _bytes("it"), "404": _refused("there is none")}
            )
        },
    }


def _described(kind: dict[str, Any], text: str) -> dict[str, Any]:
    return {**kind, "description": text}


_SUBMIT = {
    "image": _described(_FILE, "first frame; left out: text-to-video"),
    "trajectory": _described(_FILE, "trajectory.json, masks as run lengths"),
    "prompt": _TEXT,
    "seed": _described(_WHOLE, "of the noise, default 0"),
    "adapter": _described(_TEXT, f"{', '.join(ADAPTERS)} or none; default: the model's first"),
    "steps": _WHOLE,
    "size": _described(_TEXT, "HxW in pixels; default: fits the model and the image"),
    "frames": _WHOLE,
    "guidance": _NUMBER,
    "adapter_scale": _described(_NUMBER, "weight of the trajectory, default 1"),
    "map_kind": _described(_TEXT, "box, filled_box or mask; default: the model's"),
    "session": _described(_TEXT, "any name; lists can be limited to it"),
    "name": _described(_TEXT, "of the job, for people"),
    "project": _described(_FILE, "kept, and given back as the file `project`"),
}
_IMPORT = {
    "files": {"type": "array", "items": _FILE},
    "canvas_width": _described(_WHOLE, "pixels that point tracks are in, default 1280"),
    "canvas_height": _described(_WHOLE, "likewise, default 704"),
    "box_width": _described(_WHOLE, "of the boxes around point tracks, in pixels"),
    "box_height": _WHOLE,
    "frames": _described(_WHOLE, "of what is a picture only, default 121"),
    "fps": _NUMBER,
    "map_kind": _described(_TEXT, "what map videos show, default box"),
    "id": _described(_TEXT, "row of a MagicData folder, default its first"),
}
_EXPORT = {
    "trajectory": _FILE,
    "format": {"type": "string", "enum": list(FORMATS)},
    "name": _TEXT,
    "size": _described(_TEXT, "HxW of maps, default the canvas's"),
    "frames": _WHOLE,
    "fps": _NUMBER,
    "map_kind": _described(_TEXT, "what maps show, default the model's"),
    "prompt": _TEXT,
    "image": _described(_FILE, "first frame, for MagicData"),
    "job": _described(_TEXT, "a finished job whose video goes along, for MagicData"),
}
_SELECT = {
    "image": _FILE,
    **dict.fromkeys(("x", "y", "tolerance", "x0", "y0", "x1", "y1"), _NUMBER),
}


def _schemas() -> dict[str, Any]:
    steps = {"type": "object", "additionalProperties": {"type": "array", "items": _WHOLE}}
    states = ["queued", "running", "done", "failed", "cancelled", "interrupted"]
    maybe = {"type": ["number", "null"]}
    job = {
        "id": _TEXT,
        "session": _TEXT,
        "name": _TEXT,
        "state": {"type": "string", "enum": states},
        "ahead": _described(_WHOLE, "jobs that come before it"),
        "progress": _described(steps, "stage -> [steps done, steps]"),
        "seconds": {"type": "object", "additionalProperties": _NUMBER},
        "settings": {"type": "object"},
        "video": _described({"type": "object"}, "height, width, frames, fps"),
        "files": {"type": "array", "items": _TEXT},
        "error": {"type": ["string", "null"]},
        "created": _NUMBER,
        "started": maybe,
        "finished": maybe,
    }
    run_lengths = {"type": "array", "items": _WHOLE}
    return {
        "Job": _object(job),
        "Jobs": _object({"jobs": {"type": "array", "items": _reference("Job")}}),
        "Error": _object({"error": _TEXT}),
        "Size": _object({"height": _WHOLE, "width": _WHOLE}),
        "Mask": _object({"size": run_lengths, "counts": run_lengths}),
        "Model": {"type": "object", "description": "sizes, steps, adapters, `map_kind`"},
        "Imported": _object(
            {
                "format": _TEXT,
                "trajectory": {"type": "object", "description": "a trajectory.json"},
                "image": {"type": ["string", "null"], "description": "PNG in base64"},
                "prompt": _TEXT,
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
    kind: dict[str, Any] = _TEXT,
) -> dict[str, Any]:
    schema = {**kind, "enum": values} if values else kind
    facts = {"name": name, "in": place, "description": description, "schema": schema}
    return {**facts, "required": place == "path" or kind is _WHOLE}


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


def _refused(description: str) -> dict[str, Any]:
    return _json(description, "Error")


def _too_large() -> dict[str, Any]:
    return {"413": _refused("the upload is too large")}
