"""ATI's tracks: a `.pth` with the bytes of an npz file, 121 samples per point.

The layout is that of ATI's editor: `array` is float32 [N, 121, 1, 3], (x, y, visible) in pixels of
the image, all multiplied by 8, at 24 samples per second.

Source: ATI `tools/trajectory_editor/app.py`, `wan/utils/motion.py`.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np

from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.trajectory.formats.base import (
    ExportRequest,
    Format,
    Imported,
    ImportOptions,
    as_numbers,
    files_of,
    imported_tracks,
)
from flashmotion_jax.trajectory.tracks import Tracks, tracks_from_boxes

_SUFFIXES = (".pth", ".pt")

_SAMPLES = 121
_QUANTIZATION = 8
#: Of a file, unpacked: 46,000 tracks.
_MAX_BYTES = 2**26


def read_ati(path: str | Path) -> Tracks:
    """Reads ATI tracks of 121 frames, without executing code in the file.

    Raises:
      ImportError: torch is not installed.
      UserError: The file is missing or has another content.
    """
    torch = _torch()
    _check_size(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        _check_size(io.BytesIO(content), path)
        array = np.load(io.BytesIO(content), allow_pickle=False)["array"]
    except UserError:
        raise
    except Exception as error:  # torch's unpickler can raise anything on other files
        raise UserError(f"{path} is not an ATI track file: {str(error)[:300]}") from error
    samples = as_numbers(np.asarray(array), path) / _QUANTIZATION
    if samples.ndim != 4 or samples.shape[2:] != (1, 3) or _SAMPLES not in samples.shape[:2]:
        raise UserError(f"{path}: array {list(samples.shape)}, expected [N, 121, 1, 3]")
    # The editor writes points first, but files with time first exist.
    if samples.shape[1] == _SAMPLES:
        samples = samples.swapaxes(0, 1)
    return Tracks(samples[:, :, 0, :2], samples[:, :, 0, 2] > 0.5)


def write_ati(tracks: Tracks, path: str | Path) -> None:
    """Writes ATI tracks, resampled in time to 121 samples.

    Raises:
      ImportError: torch is not installed.
    """
    torch = _torch()
    times = np.linspace(0, len(tracks.points_FN2) - 1, _SAMPLES)
    before, after = np.floor(times).astype(int), np.ceil(times).astype(int)
    part = (times - before)[:, None, None]
    points = (1 - part) * tracks.points_FN2[before] + part * tracks.points_FN2[after]
    visible = tracks.visible_FN[before] & tracks.visible_FN[after]
    samples = np.concatenate([np.nan_to_num(points), visible[..., None]], axis=-1)
    content = io.BytesIO()
    array = _QUANTIZATION * samples.swapaxes(0, 1)[:, :, None].astype(np.float32)
    np.savez_compressed(content, array=array)
    with replacing(path) as scratch:
        torch.save(content.getvalue(), scratch)


def _check_size(file: str | Path | io.BytesIO, name: object = None) -> None:
    """Checks what a zip unpacks to; other files hold what their size says."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > _MAX_BYTES:
        raise UserError(
            f"{name or file} unpacks to {size / 2**20:.0f} MB, expected at most "
            f"{_MAX_BYTES / 2**20:.0f} MB: leave some tracks out"
        )


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ImportError("ATI's .pth files need torch: pip install torch") from error
    return torch


def _read(path: Path, options: ImportOptions) -> Imported:
    return imported_tracks(read_ati(files_of(path, _SUFFIXES)[0]), options)


def _write(request: ExportRequest, folder: Path) -> Path:
    file = folder / f"{request.stem}-ati.pth"
    write_ati(tracks_from_boxes(request.trajectory), file)
    return file


ATI = Format(
    name="ati",
    title="ATI tracks",
    suffixes=_SUFFIXES,
    limits="sizes of boxes, masks, names and other lengths than 121 frames",
    read=_read,
    write=_write,
)
