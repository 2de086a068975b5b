"""The paper's own IoUs, to stand beside those of an evaluation."""

from __future__ import annotations

from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.evaluation.report import Rows

_BENCHES = ("flashbench", "magicbench", "davis")
_GROUPS = ("all", "1", "2", "3", "4", "5", "6+")

#: Method -> mask/box IoU in % on each of `_BENCHES`; on FlashBench in the order of `_GROUPS`.
#: Source: FlashMotion (CVPR 2026), tables 1, 7 and 8.
_PUBLISHED = {
    "MagicMotion": (
        "68.10/73.68 67.93/83.46 61.05/73.47 66.13/72.92 70.29/73.21 73.86/76.93 69.29/62.35",
        "76.61/81.45",
        "53.94/72.84",
    ),
    "Wan2.2 (ResNet)": (
        "52.19/57.76 61.10/76.34 51.49/62.07 50.06/56.75 50.89/53.93 55.56/56.98 44.31/41.03",
        "62.09/67.85",
        "31.22/42.74",
    ),
    "Wan2.2 (ControlNet)": (
        "65.41/71.28 66.07/83.98 59.64/73.18 62.64/70.01 66.15/68.65 70.70/70.94 67.27/61.05",
        "72.80/78.46",
        "52.76/71.20",
    ),
    "DragAnything": (
        "58.54/61.72 62.70/74.88 53.34/63.06 54.01/57.55 59.97/60.23 62.92/61.48 56.95/49.51",
        "66.30/70.85",
        "40.13/53.60",
    ),
    "SG-I2V": (
        "50.20/55.72 64.09/76.45 47.16/57.04 48.31/54.25 50.87/55.46 54.21/55.83 36.75/35.52",
        "68.78/74.39",
        "37.36/50.96",
    ),
    "Tora": (
        "48.17/53.70 58.24/69.00 46.45/57.47 46.80/52.66 46.28/51.05 52.76/54.55 37.98/36.89",
        "58.95/64.03",
        "37.98/50.90",
    ),
    "LeviTor": (
        "36.36/39.81 49.63/59.73 38.09/44.82 35.65/39.08 35.10/34.02 33.33/30.34 24.23/23.41",
        "39.96/46.36",
        "25.24/31.42",
    ),
    "DMD (ResNet)": (
        "43.24/52.61 55.34/74.30 45.21/59.62 43.08/53.14 41.38/48.44 42.02/47.94 32.74/32.74",
        "49.69/59.44",
        "33.08/49.78",
    ),
    "GAN (ResNet)": (
        "43.78/49.99 54.58/66.52 41.38/51.34 41.46/48.80 45.87/50.43 48.67/52.49 31.00/30.78",
        "56.60/63.10",
        "30.49/42.80",
    ),
    "LCM (ResNet)": (
        "55.31/60.80 64.61/80.06 56.40/68.58 53.52/59.67 57.30/57.89 56.78/58.98 43.51/40.21",
        "64.98/70.83",
        "42.56/58.52",
    ),
    "FlashMotion (ResNet)": (
        "63.96/70.01 68.02/84.86 60.27/73.08 63.40/71.59 66.58/67.87 68.67/79.78 56.92/52.02",
        "72.34/77.92",
        "46.74/64.00",
    ),
    "LCM (ControlNet)": (
        "61.29/64.83 62.83/76.15 56.68/66.79 57.86/63.51 63.18/63.38 66.48/65.66 60.79/53.62",
        "70.55/74.57",
        "45.94/61.27",
    ),
    "FlashMotion (ControlNet)": (
        "69.15/75.38 68.44/84.51 63.87/76.99 66.45/73.91 71.81/75.49 74.94/76.98 69.43/64.50",
        "76.92/82.17",
        "54.54/74.37",
    ),
}


def beside_published(bench: str, rows: Rows) -> str:
    """A table in the layout of the paper's tables 1, 7 and 8: a line for each method.

    Args:
      bench: of the evaluation.
      rows: group by number of objects, or "all" -> figures with `mask_iou` and `box_iou`.

    Returns:
      Markdown that ends with a line break; empty for a bench that the paper has not.
    """
    if bench not in _BENCHES:
        return ""
    groups = _GROUPS if bench == "flashbench" else ("all",)
    lines = [["M/B IoU (%)", *groups], ["---"] * (len(groups) + 1)]
    lines.append(["this evaluation", *(_cell(rows, group) for group in groups)])
    for method, cells in _PUBLISHED.items():
        lines.append([f"{method}, published", *cells[_BENCHES.index(bench)].split()])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return (
        f"{table}\nThe paper states neither the version of its segmenter, nor how it averages, nor "
        "whether frame 0 counts: compare with care.\n"
    )


def _cell(rows: Rows, group: str) -> str:
    if group not in rows:
        return "-"
    mask, box = (rows[group][name] for name in ("mask_iou", "box_iou"))
    return f"{_percent(mask)}/{_percent(box)} (N {mask.count})"


def _percent(figure: Interval) -> str:
    return f"{100 * figure.estimate:.2f}" if figure.count else "-"
