"""Metrics by their table."""

from __future__ import annotations

import numpy as np
import pytest

from flashmotion_jax.evaluation import metrics
from flashmotion_jax.evaluation.metrics.base import Frame, VideoMetric
from flashmotion_jax.evaluation.protocol import Protocol
from flashmotion_jax.evaluation.reports.tables import explanations, table_of_groups
from flashmotion_jax.evaluation.scoring import Score, score_frames, summarize


class Coverage(VideoMetric):
    """The example of docs/evaluation.md."""

    name = "coverage"
    heading = "coverage (%)"
    about = "share of the frame that the found masks cover"
    scale = 100
    needs = ("masks",)

    def measure(self, masks_KHW):
        return masks_KHW.mean(axis=(1, 2))


def frame(share, count=10):
    masks = np.zeros((1, 1, count), bool)
    masks[..., : round(share * count)] = True
    return Frame(np.zeros((1, count, 3), np.uint8), masks=masks)


def test_a_metric_is_a_class_and_a_row(monkeypatch):
    for table in (metrics.METRICS, metrics.VIDEO_METRICS):
        monkeypatch.setitem(table, "coverage", Coverage)
    values = score_frames([frame(1), frame(0.2), frame(0.4)], "folder")
    found = summarize([Score("v0", "1", values)], Protocol("folder"))
    assert found["coverage"].estimate == pytest.approx(0.3)
    rows = {"all": {"coverage": found["coverage"]}}
    table = table_of_groups(rows)
    assert table.header == ("objects", "coverage (%)") and table.rows == (("all", "30.00 (N 1)"),)
    assert [name for name, _ in explanations(rows)] == ["coverage (%)"]
    assert "share of the frame" in explanations(rows)[0][1]


def test_a_frame_that_lacks_what_a_metric_needs_is_nan():
    metric = Coverage()
    for one in (frame(1), Frame(np.zeros((1, 2, 3), np.uint8)), frame(0.5)):
        metric.add(one)
    np.testing.assert_array_equal(metric.values(), [[1, np.nan, 0.5]])


def test_every_metric_describes_itself():
    for name, metric in metrics.METRICS.items():
        assert metric.name == name and metric.heading and metric.about
