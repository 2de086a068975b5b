"""Plots as inline SVG: curves with bands, and bars with intervals. No script, no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from flashmotion_jax.evaluation.bootstrap import Interval

_COLORS = ("#2f6fb0", "#c2571a", "#3c8a4a", "#8a4a9e", "#a08020", "#4a4a4a", "#b03050")
#: Drawn at about this width on a phone and a desktop alike, so that its text stays readable.
_WIDTH, _HEIGHT = 420, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 8, 40, 48


class _Frame:
    """The coordinates of a plot: values of two axes to pixels."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float]):
        self.xs, self.ys = xs, (ys[0], ys[1] if ys[1] > ys[0] else ys[0] + 1)

    def x(self, value: float) -> float:
        share = (value - self.xs[0]) / max(self.xs[1] - self.xs[0], 1e-12)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.ys[0]) / (self.ys[1] - self.ys[0])
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)

    def axes(self, title: str, x_title: str, ticks: Sequence[tuple[float, str]]) -> str:
        parts = [f'<text x="{_LEFT}" y="16" class="title">{escape(title)}</text>']
        for value in np.linspace(*self.ys, 5):
            y = self.y(value)
            parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
            )
            label = f"{value:.3g}"
            parts.append(
                f'<text class="tick" x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{label}</text>'
            )
        for value, label in ticks:
            for i, line in enumerate(label.split("\n")):
                parts.append(
                    f'<text class="tick" x="{self.x(value)}" y="{_HEIGHT - 32 + 13 * i}" '
                    f'text-anchor="middle">{escape(line)}</text>'
                )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(
            f'<text class="tick" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">'
            f"{escape(x_title)}</text>"
        )
        return "".join(parts)


def curves(title: str, lines: Mapping[str, Sequence[Interval]], scale: float = 1) -> str:
    """Lines over frames with bands for their intervals.

    Args:
      title: Title above the plot.
      lines: Name of a line -> a number for each frame; frames without one are left out.
      scale: Factor of the displayed values.

    Returns:
      An `<svg>`; empty if no line has two points.
    """
    shown = {
        name: [(f, *one.scaled(scale)) for f, one in enumerate(values) if one.count]
        for name, values in lines.items()
    }
    shown = {name: points for name, points in shown.items() if len(points) > 1}
    if not shown:
        return ""
    values = np.array([point[1:] for points in shown.values() for point in points])
    last = max(points[-1][0] for points in shown.values())
    frame = _Frame((0, last), (min(0, np.nanmin(values)), max(scale, np.nanmax(values))))
    ticks = [
        (value, str(value)) for value in sorted({0, last // 4, last // 2, 3 * last // 4, last})
    ]
    parts = [frame.axes(title, "frame", ticks)]
    for i, (name, points) in enumerate(shown.items()):
        color = _COLORS[i % len(_COLORS)]
        banded = [point for point in points if np.isfinite(point[2:]).all()]
        upper = [f"{frame.x(f)},{frame.y(high)}" for f, _, _, high in banded]
        lower = [f"{frame.x(f)},{frame.y(low)}" for f, _, low, _ in reversed(banded)]
        if banded:
            parts.append(
                f'<polygon points="{" ".join(upper + lower)}" fill="{color}" opacity="0.18"/>'
            )
        points_text = " ".join(f"{frame.x(f)},{frame.y(middle)}" for f, middle, _, _ in points)
        parts.append(
            f'<polyline points="{points_text}" fill="none" stroke="{color}" stroke-width="2"/>'
        )
        x = round(_LEFT + min(130, (_WIDTH - _LEFT) / len(shown)) * i, 1)
        parts.append(
            f'<text x="{x}" y="{_TOP - 8}" fill="{color}" class="tick">{escape(name)}</text>'
        )
    return _svg(parts, title)


def bars(title: str, numbers: Mapping[str, Interval], scale: float = 1) -> str:
    """A bar for each group with its interval, and N below it.

    Args:
      title: Title above the plot.
      numbers: Group -> number; groups without one are left out.
      scale: Factor of the displayed values.

    Returns:
      An `<svg>`; empty if no group has a number.
    """
    shown = {
        name: (*one.scaled(scale), one.count)
        for name, one in numbers.items()
        if one.count and np.isfinite(one.estimate)
    }
    if not shown:
        return ""
    top = max(np.nanmax(values[:3]) for values in shown.values())
    frame = _Frame((-0.5, len(shown) - 0.5), (0.0, _round_up(float(top))))
    ticks = [(i, f"{name}\nN {values[3]}") for i, (name, values) in enumerate(shown.items())]
    parts = [frame.axes(title, "objects", ticks)]
    half = min(0.3 * (frame.x(1) - frame.x(0)), 40)
    for i, (estimate, low, high, _) in enumerate(shown.values()):
        x, y = frame.x(i), frame.y(estimate)
        height = round(frame.y(0) - y, 1)
        parts.append(
            f'<rect x="{x - half:.1f}" y="{y}" width="{2 * half:.1f}" height="{height}" '
            f'fill="{_COLORS[0]}" opacity="0.75"/>'
        )
        if np.isfinite(low) and np.isfinite(high):
            ends = f'x1="{x}" x2="{x}" y1="{frame.y(low)}" y2="{frame.y(high)}"'
            parts.append(f'<line {ends} stroke="#222" stroke-width="2"/>')
    return _svg(parts, title)


def _round_up(top: float) -> float:
    """The next number whose quarters are short, for the labels of an axis."""
    if top <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(top))
    return next(
        unit * part for part in (1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10) if unit * part >= top
    )


def _svg(parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )
