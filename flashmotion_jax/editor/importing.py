"""Uploaded files to a trajectory, in any format of `trajectory.formats`."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from flashmotion_jax.editor.uploads import unpack
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats import (
    ImportOptions,
    files_of,
    find_format,
    read_trajectory,
)


def import_files(folder: Path, options: ImportOptions) -> dict[str, Any]:
    """Reads the trajectory that was uploaded.

    Args:
      folder: Holds the uploaded files, or one zip of them, which is unpacked there.
      options: What the files may leave open.

    Returns:
      JSON for the page: `format` and its `title`, the `trajectory`, the `image` as a PNG in base64
      or None, the `prompt`, and `notices` of what was left out.

    Raises:
      UserError: No file is there, no format recognizes the files, or they are damaged.
      ImportError: An ATI file without torch.
    """
    files = files_of(folder)
    if len(files) == 1 and files[0].suffix.lower() == ".zip":
        archive, folder = files[0], folder / "unpacked"
        unpack(archive, folder)
        files = files_of(folder)
    if not files:
        raise UserError("no file was sent: choose one")
    # A single image is a label image, an image in a folder is a frame.
    path = files[0] if len(files) == 1 else folder
    form, imported = find_format(path), read_trajectory(path, options)
    encoded = None
    if imported.image is not None:
        png = io.BytesIO()
        Image.fromarray(imported.image).save(png, "PNG")
        encoded = base64.b64encode(png.getvalue()).decode()
    return {
        "format": form.name,
        "title": form.title,
        "trajectory": imported.trajectory.to_dict(),
        "image": encoded,
        "prompt": imported.prompt,
        "notices": list(imported.notices),
    }
