"""Mask IoU of a perfect video that was cropped, at several sizes of the true video.

    python tools/measure_geometry.py

Found masks are compared with the true ones in three ways: stretched to the whole frame; taken back
through the crop; and, as `flashmotion evaluate` does, on the pixels of the true video or the video,
whichever has fewer.
"""

from __future__ import annotations

import numpy as np

from flashmotion_jax.media.geometry import Fit, best_size

SIZES = [(480, 854), (600, 800), (1024, 1024), (1080, 1920)]


def random_discs(size: tuple[int, int], count: int = 40) -> np.ndarray:
    """Masks of discs all over a picture, bool `[K, H, W]`."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices(size)
    discs = []
    for _ in range(count):
        y, x = rng.uniform(0.1, 0.9, 2) * size
        discs.append(np.hypot(rows - y, columns - x) < rng.uniform(0.05, 0.25) * min(size))
    return np.stack(discs)


def mean_iou(found_KHW: np.ndarray, true_KHW: np.ndarray) -> float:
    """Mean intersection over union of the masks that can be seen."""
    visible = true_KHW.any(axis=(1, 2))
    overlap = (found_KHW & true_KHW).sum(axis=(1, 2))
    return float((overlap / np.maximum((found_KHW | true_KHW).sum(axis=(1, 2)), 1))[visible].mean())


def back_through(
    fit: Fit, found_KHW: np.ndarray, true_KHW: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Found masks on the pixels of the true ones, and these, both inside the crop."""
    (top, left), (height, width) = fit.offset, fit.target
    enlarged = np.zeros((len(found_KHW), *fit.resized), bool)
    enlarged[:, top : top + height, left : left + width] = found_KHW
    x0, y0, x1, y1 = np.ceil(fit.visible * np.tile(fit.source[::-1], 2) - 0.5).astype(int)
    back = Fit.of(fit.resized, fit.source, "stretch").masks(enlarged)
    return back[:, y0:y1, x0:x1], true_KHW[:, y0:y1, x0:x1]


def main() -> None:
    """Prints a row for each size."""
    print("true video     video        stretched  through the crop  on the fewer pixels")
    for size in SIZES:
        target = best_size(*size, 704 * 1280, (32, 32))
        true = random_discs(size)
        fit = Fit.of(size, target, "crop")
        found = fit.masks(true)
        stretched = mean_iou(Fit.of(target, size, "stretch").masks(found), true)
        cropped = mean_iou(*back_through(fit, found, true))
        compared = mean_iou(*fit.compared(true, found))
        sizes = f"{size[0]} x {size[1]}".ljust(15) + f"{target[0]} x {target[1]}".ljust(13)
        print(f"{sizes}{stretched:.4f}     {cropped:.4f}            {compared:.4f}")


if __name__ == "__main__":
    main()
