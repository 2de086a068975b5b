"""The report, as Markdown and as one page of HTML that needs no other file and no network."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from html import escape
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from flashmotion_jax.config import Resize
from flashmotion_jax.evaluation.benchmarks.base import Item, label_colors, object_masks
from flashmotion_jax.evaluation.bootstrap import Interval, interval
from flashmotion_jax.evaluation.conditions import trajectory_of
from flashmotion_jax.evaluation.metrics import METRICS
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.reports.plots import bars, curves
from flashmotion_jax.evaluation.reports.tables import (
    Table,
    explanations,
    table_of_groups,
    tables_of_the_paper,
)
from flashmotion_jax.evaluation.results import Results
from flashmotion_jax.evaluation.scoring import Score, sampled_frames
from flashmotion_jax.media.frames import find_video, iterate_frames
from flashmotion_jax.media.geometry import Fit
from flashmotion_jax.media.videos import write_video
from flashmotion_jax.runtime.atomic import replacing
from flashmotion_jax.trajectory.drawing import paint_masks
from flashmotion_jax.trajectory.render import render

#: Number of best and of worst videos that are shown, and their height in pixels.
_SHOWN, _SHOWN_HEIGHT = 3, 192

#: Resamples for each frame of a curve, whose band needs no more.
_RESAMPLES = 300

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#222;
overflow-wrap:anywhere}
table{border-collapse:collapse;font-size:13px;margin:1em 0;display:block;overflow-x:auto}
td,th{border:1px solid #ccc;padding:3px 7px;text-align:left;white-space:nowrap}
td:first-child,th:first-child{position:sticky;left:0;background:#fff;white-space:normal;
min-width:6em;max-width:11em;overflow-wrap:normal}
tr.ours{background:#eef5ee;font-weight:600}tr.section{background:#f3f3f3;font-style:italic}
dl{display:grid;grid-template-columns:minmax(7em,16em) 1fr;gap:.3em 1em;font-size:14px}
dt{font-weight:600}dd{margin:0}small{font-size:12px;color:#555}
@media(max-width:700px){dl{display:block}dd{margin:0 0 .5em}small{display:block}}
svg{width:49%;background:#fff}@media(max-width:700px){svg{width:100%}}
svg .title{font-weight:600;font-size:13px}
svg .tick{font-size:11px}svg .grid{stroke:#e3e3e3}
figure{display:inline-block;margin:.5em 1em .5em 0;max-width:100%}
video{height:192px;max-width:100%;object-fit:contain;image-rendering:pixelated;background:#000}figcaption{font-size:13px}
.note{color:#555;font-size:13px}code{background:#f3f3f3;padding:0 3px}
"""


def write_report(results: Results, out: Path, predictions: Path) -> None:
    """Writes `report.md` and `report.html`.

    Args:
      results: What is reported.
      out: The folder.
      predictions: Folder of the generated videos.
    """
    tables = all_tables(results)
    for name, text in (
        ("report.md", to_markdown(results, tables)),
        ("report.html", to_html(results, tables, predictions)),
    ):
        with replacing(out / name) as scratch:
            scratch.write_text(text, encoding="utf-8")


def all_tables(results: Results) -> list[Table]:
    """Tables of the groups, of the paper's layout, and of the videos without scores."""
    tables = [
        table_of_groups(results.groups),
        *tables_of_the_paper(results.protocol.bench, results.groups),
    ]
    if results.problems:
        rows = tuple((problem.id, problem.reason) for problem in results.problems)
        tables.append(Table(f"Not scored: {_videos_of(len(rows))}", ("video", "reason"), rows))
    return tables


def to_markdown(results: Results, tables: Sequence[Table]) -> str:
    """The tables, and the protocol."""
    meanings = explanations(results.groups)
    parts = [
        f"# {_title(results)}",
        _left_out(results),
        tables[0].to_markdown(),
        "## What the metrics mean",
        "".join(f"- {name}: {text}\n" for name, text in meanings),
        *(table.to_markdown() for table in tables[1:]),
        "## Protocol",
        "".join(f"- {name}: {value}\n" for name, value in results.settings()),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def to_html(results: Results, tables: Sequence[Table], predictions: Path) -> str:
    """Tables, plots, and the best and worst videos beside their maps."""
    title = _title(results)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(_left_out(results))}</p>",
        _html_table(tables[0].transposed()),
        "<h2>What the metrics mean</h2>",
        _html_list(explanations(results.groups)),
        "<h2>Plots</h2>",
        *_plots(results),
        *_videos(results, predictions),
        *(_html_table(table) for table in tables[1:]),
        "<h2>Protocol</h2>",
        _html_list(results.settings()),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def over_time(scores: Sequence[Score], name: str) -> list[Interval]:
    """A metric at each frame: the mean over videos of their objects' mean, with its interval."""
    length = max((s.values[name].shape[-1] for s in scores if name in s.values), default=0)
    columns = []
    for f in range(length):
        of_videos = [
            np.nanmean(values[..., f])
            for score in scores
            if name in score.values
            and f < (values := score.values[name]).shape[-1]
            and np.isfinite(values[..., f]).any()
        ]
        columns.append(interval(np.array(of_videos, np.float64), resamples=_RESAMPLES))
    return columns


def _plots(results: Results) -> list[str]:
    headings = {"mask_iou": "mask", "box_iou": "box", "requested_box_iou": "requested box"}
    lines = {
        heading: found
        for name, heading in headings.items()
        if (found := over_time(results.scores, name))
    }
    count = len(results.scores)
    plots = [curves(f"IoU over time (%), bands of 95 % over videos, N {count}", lines, 100)]
    by_group = {
        group: over_time([s for s in results.scores if s.group == group], "mask_iou")
        for group in results.groups
        if group != "all"
    }
    if len(by_group) > 1:
        plots.append(curves("Mask IoU over time by number of objects (%)", by_group, 100))
    for name, metric in METRICS.items():
        found = {group: rows[name] for group, rows in results.groups.items() if name in rows}
        if not metric.of_truth:
            plots.append(bars(metric.heading, found, metric.scale))
    return [plot for plot in plots if plot]


def _videos(results: Results, predictions: Path) -> list[str]:
    """The best and worst videos by mask IoU, or by requested box IoU if masks are missing."""
    for name in ("mask_iou", "requested_box_iou"):
        ranked = [
            (float(np.nanmean(counted)), score)
            for score in results.scores
            if name in score.values and np.isfinite(counted := score.values[name][..., 1:]).any()
        ]
        if ranked:
            break
    else:
        return []
    ranked.sort(key=lambda one: (-one[0], one[1].id))
    by_id = {item.id: item for item in results.items}
    count = min(_SHOWN, max(len(ranked) // 2, 1))
    worst = ranked[len(ranked) - count :][::-1] if len(ranked) > count else []
    parts = []
    for heading, some in (("Best", ranked[:count]), ("Worst", worst)):
        if some:
            parts.append(f"<h2>{heading} videos by {METRICS[name].heading}, beside their maps</h2>")
        for value, score in some:
            frames = beside_maps(by_id[score.id], predictions, results.protocol)
            source = _as_data(frames)
            parts.append(
                f'<figure><video src="{source}" autoplay loop muted playsinline controls></video>'
                f"<figcaption>{escape(score.id)}: {100 * value:.1f} %</figcaption></figure>"
            )
    return parts


def beside_maps(item: Item, predictions: Path, protocol: Protocol) -> np.ndarray:
    """The requested maps on the left, the generated video on the right.

    Returns:
      uint8 `[F, H, W, 3]` of the displayed height, with even sides.
    """
    wanted = sampled_frames(item.num_frames, protocol.method_frames)
    path = find_video(predictions, item.id)
    pictures = []
    maps = None
    for index, frame in zip(wanted, islice(iterate_frames(path), len(wanted)), strict=False):
        width = max(2, round(frame.shape[1] * _SHOWN_HEIGHT / frame.shape[0] / 2) * 2)
        if maps is None:
            maps = _maps(item, (_SHOWN_HEIGHT, width), protocol.resize)
        shown = [_scaled(maps[index], width), _scaled(frame, width)]
        pictures.append(np.concatenate(shown, axis=1))
    return np.stack(pictures)


class _PaintedMasks:
    """The masks of a benchmark in the colors of their objects, painted when they are needed."""

    def __init__(self, item: Item, size: tuple[int, int], resize: Resize):
        self._item, self._size, self._resize = item, size, resize
        self._colors = label_colors(item.labels)

    def __getitem__(self, index: int) -> np.ndarray:
        masks = object_masks(self._item.masks[index], self._item.labels)
        fit = Fit.of(masks.shape[1:], self._size, self._resize)
        return paint_masks(fit.masks(masks), self._colors, self._size)


def _maps(item: Item, size: tuple[int, int], resize: Resize) -> np.ndarray | _PaintedMasks:
    """Frames of the maps: the requested boxes, or else the masks of the benchmark."""
    if item.trajectory is None and item.tracks is None:
        return _PaintedMasks(item, size, resize)
    trajectory = trajectory_of(item)
    return render(trajectory, *size, "box", num_frames=item.num_frames, resize=resize)


def _scaled(frame: np.ndarray, width: int) -> np.ndarray:
    small = frame.shape[0] < _SHOWN_HEIGHT
    how = Image.Resampling.NEAREST if small else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(frame).resize((width, _SHOWN_HEIGHT), how))


def _as_data(frames: np.ndarray, fps: float = 12) -> str:
    """An mp4 as a data URL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, frames, fps)
        return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in table.header)
    rows = []
    for row in table.rows:
        kind = "section" if row[0].startswith("*") else "ours" * (row[0] == "this evaluation")
        cells = "".join(f"<td>{_html_cell(one)}</td>" for one in row)
        rows.append(f'<tr class="{kind}">{cells}</tr>')
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f"<h2>{escape(table.title)}</h2><table><tr>{head}</tr>{''.join(rows)}</table>{note}"


def _html_cell(text: str) -> str:
    """A cell; its interval and N are in small letters, on a phone below the number."""
    number, bracket, interval_text = text.strip("*").partition(" [")
    if not bracket:
        return escape(number)
    return f"{escape(number)} <small>[{escape(interval_text)}</small>"


def _html_list(items: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in items)
    return f"<dl>{rows}</dl>"


def _title(results: Results) -> str:
    return f"{results.protocol.bench}: {_videos_of(len(results.scores))}"


def _left_out(results: Results) -> str:
    count = len(results.problems)
    if not count:
        return "All videos were scored."
    return f"{_videos_of(count)} could not be scored and {'is' if count == 1 else 'are'} left out."


def _videos_of(count: int) -> str:
    return f"{count} video{'' if count == 1 else 's'}"
