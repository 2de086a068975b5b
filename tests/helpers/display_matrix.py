"""Display matrices of mp4 files, as phones write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def set_display_matrix(path: Path, a: float, b: float, c: float, d: float) -> None:
    """Makes players show each pixel (x, y) at (a x + c y, b x + d y)."""
    data = path.read_bytes()
    start = data.index(b"tkhd") + 4 + 40  # the matrix is at byte 40 of a track header, version 0
    matrix = np.array([[a, b, 0], [c, d, 0], [0, 0, 2**14]]) * 2**16
    path.write_bytes(data[:start] + matrix.astype(">i4").tobytes() + data[start + 36 :])
