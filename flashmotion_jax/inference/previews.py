"""Previews: the video as it is predicted after a denoising step, while the next ones run.

After each step, the model's prediction of x_0 is decoded by the tiny VAE. It is blurred at first,
and the video itself after the last step, but for the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from flashmotion_jax.media.videos import write_video

OnPreview = Callable[[int, np.ndarray], None]
"""Called with the number of finished denoising steps and the videos as they are predicted then,
uint8 `[B, F, H, W, 3]`."""

#: Most previews of a video. Those of a sampler with more steps are spread evenly.
MAX_PREVIEWS = 10
#: Height in pixels that files of previews are brought to, about.
PREVIEW_HEIGHT = 256


def has_preview(step: int, num_steps: int) -> bool:
    """Whether there is a preview after a step, counted from 1; there is one after the last."""
    count = min(num_steps, MAX_PREVIEWS)
    return step * count // num_steps > (step - 1) * count // num_steps


class PreviewWriter:
    """Writes each preview to a file, in the place of the one before.

    A thread writes, while the device computes the next step. A preview is left out if the one
    before it is still being written. Leaving the context waits for the thread.

    Args:
      path: File of a video, see `media.videos.write_video`.
      fps: Frames per second.
      arrange: Maps the video, uint8 `[F, H, W, 3]`, to what is written.
      on_written: Called by the thread with the number of finished steps, once a preview of them is
        in the file.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float,
        *,
        arrange: Callable[[np.ndarray], np.ndarray] = lambda video: video,
        on_written: Callable[[int], None] = lambda step: None,
    ):
        self._path, self._fps, self._arrange = path, fps, arrange
        self._on_written = on_written
        self._thread = ThreadPoolExecutor(1, "preview")
        self._writing: Future[None] | None = None

    def __enter__(self) -> PreviewWriter:
        """Returns the writer, an `OnPreview`."""
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Waits for the thread, and raises its error unless there is another."""
        self._thread.shutdown()
        if self._writing is not None and error is None:
            self._writing.result()

    def __call__(self, step: int, videos: np.ndarray) -> None:
        """Writes the first video of a batch.

        Raises:
          OSError: An earlier preview could not be written.
        """
        if self._writing is not None:
            if not self._writing.done():
                return
            self._writing.result()
        self._writing = self._thread.submit(self._write, step, videos[0])

    def _write(self, step: int, video: np.ndarray) -> None:
        write_video(self._path, to_screen(self._arrange(video)), self._fps)
        self._on_written(step)


def to_screen(video: np.ndarray, height: int = PREVIEW_HEIGHT) -> np.ndarray:
    """Repeats or drops pixels, so that a video has about `height` rows and even sides."""
    larger, smaller = max(1, height // video.shape[1]), max(1, video.shape[1] // height)
    video = video[:, ::smaller, ::smaller]
    video = video[:, : video.shape[1] // 2 * 2, : video.shape[2] // 2 * 2]
    return video.repeat(larger, axis=1).repeat(larger, axis=2)
