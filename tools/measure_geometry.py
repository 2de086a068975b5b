"""Mask IoU of a perfect video that was cropped, at several sizes of the true video.

    python tools/measure_geometry.py

Found masks are compared with the true ones in two ways: stretched to the whole frame, and taken
back through the crop, as `flashmotion evaluate` does.
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


def main() -> None:
    """Prints a row for each size."""
    print("true video     video        stretched  through the crop")
    for size in SIZES:
        target = best_size(*size, 704 * 1280, (32, 32))
        true = random_discs(size)
        fit = Fit.of(size, target, "crop")
        found = fit.masks(true)
        rows, columns = fit.visible_pixels
        stretched = mean_iou(Fit.of(size, target, "stretch").masks_back(found), true)
        cropped = mean_iou(fit.masks_back(found)[:, rows, columns], true[:, rows, columns])
        sizes = f"{size[0]} x {size[1]}".ljust(15) + f"{target[0]} x {target[1]}".ljust(13)
        print(f"{sizes}{stretched:.4f}     {cropped:.4f}")


if __name__ == "__main__":
    main()
