"""What an evaluation leaves: figures with all that they depend on, and every score.

OUT/result.json     protocol, folders, versions, figures of groups and videos, faults
OUT/scores.npz      <id>/mask_iou, <id>/box_iou, <id>/centroid_error, each float32 [K, F]
OUT/table.md        groups by number of objects, in the layout of the paper's tables
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from flashmotion_jax.data.frames import find_video, image_files
from flashmotion_jax.evaluation.benchmarks import Fault
from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.evaluation.published import beside_published
from flashmotion_jax.evaluation.report import Rows, to_plain
from flashmotion_jax.evaluation.scoring import FIGURES, Protocol, Score, summarise
from flashmotion_jax.files import replacing

_HEADINGS = {"mask_iou": "mask IoU (%)", "box_iou": "box IoU (%)", "centroid_error": "centroid (%)"}


def figures_of_groups(scores: Sequence[Score], protocol: Protocol) -> Rows:
    """The figures of each group by number of objects, and of "all" videos."""
    groups = {
        name: [score for score in scores if score.group == name]
        for name in sorted({score.group for score in scores})
    }
    return {
        name: summarise(some, protocol) for name, some in (groups | {"all": list(scores)}).items()
    }


def to_table(protocol: Protocol, rows: Rows, num_faults: int) -> str:
    """A line for each group, centroids off by a share of the diagonal; then the paper's rows.

    Args:
      protocol: of the scores.
      rows: of `figures_of_groups`.
      num_faults: how many videos are not in it.

    Returns:
      Markdown that ends with a line break.
    """
    published = beside_published(protocol.bench, rows)
    lines = [["objects", *_HEADINGS.values(), "N"], ["---"] * (len(_HEADINGS) + 2)]
    for group, figures in rows.items():
        cells = [_percent(figures[name]) for name in _HEADINGS]
        lines.append([group, *cells, str(figures["mask_iou"].count)])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return (
        f"{table}\n95 % intervals over videos; {num_faults} videos could not be scored. "
        "Blur raises IoU: look at the videos, too.\n" + f"\n{published}" * bool(published)
    )


def write_results(
    out: Path,
    protocol: Protocol,
    folders: Mapping[str, str | None],
    scores: Sequence[Score],
    faults: Sequence[Fault],
) -> Rows:
    """Writes the three files, each whole or not at all.

    Args:
      out: the folder; made if it is not there.
      protocol: of the scores.
      folders: what was read, "pred" being that of the generated videos.
      scores: one or more.
      faults: the videos without scores.

    Returns:
      `figures_of_groups`.
    """
    rows = figures_of_groups(scores, protocol)
    videos = [
        {
            "id": score.id,
            "group": score.group,
            "sha256": _digest(find_video(Path(str(folders["pred"])), score.id)),
            **to_plain({"video": summarise([score], protocol)})["video"],
        }
        for score in scores
    ]
    result = {
        "protocol": asdict(protocol),
        "folders": dict(folders),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("flashmotion_jax", "numpy", "av", "pillow")},
        },
        "groups": to_plain(rows),
        "videos": videos,
        "faults": [fault._asdict() for fault in faults],
    }
    arrays = {
        f"{score.id}/{name}": getattr(score, name).astype(np.float32)
        for score in scores
        for name in FIGURES
    }
    with replacing(out / "scores.npz") as scratch, scratch.open("wb") as file:
        np.savez_compressed(file, **cast(Any, arrays))
    for name, text in (
        ("table.md", to_table(protocol, rows, len(faults))),
        ("result.json", json.dumps(result, indent=1) + "\n"),
    ):
        with replacing(out / name) as scratch:
            scratch.write_text(text, encoding="utf-8")
    return rows


def _percent(figure: Interval) -> str:
    estimate, low, high = (100 * value for value in figure[:3])
    return f"{estimate:.2f}" if np.isnan(low) else f"{estimate:.2f} [{low:.2f}, {high:.2f}]"


def _digest(video: Path) -> str:
    """sha256 of a file, or of the images of a folder one after the other."""
    digest = hashlib.sha256()
    for path in image_files(video) if video.is_dir() else [video]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
