from __future__ import annotations

import json

import numpy as np
import pytest

from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.evaluation.reports.json_tables import to_json, to_markdown

ROWS = {
    "real": {
        "mask_iou": Interval(0.95678, 0.94, 0.97, 96),
        "sharpness": Interval(1.0, np.nan, np.nan, 1),
        "video_distance": Interval(0.0912, 0.08, 0.1, 96),
    },
    "none": {"mask_iou": Interval(np.nan, np.nan, np.nan, 0)},
}


def test_a_table():
    assert to_markdown(ROWS).splitlines() == [
        "| system | mask_iou | sharpness | video_distance |",
        "| --- | --- | --- | --- |",
        "| real | 0.957 [0.94, 0.97] (N 96) | 1 (N 1) | 0.0912 [0.08, 0.1] (N 96) |",
        "| none | - | - | - |",
    ]


@pytest.mark.parametrize("left_out", ["sharpness", "video_distance"])
def test_iou_needs_sharpness_and_video_distance_beside_it(left_out):
    row = {name: figure for name, figure in ROWS["real"].items() if name != left_out}
    with pytest.raises(ValueError, match=f"lacks {left_out}: blur raises IoU"):
        to_markdown({"real": row})


def test_no_rows():
    with pytest.raises(ValueError, match="no rows"):
        to_markdown({})


def test_json_has_no_nan():
    read = json.loads(to_json(ROWS))
    assert read["real"]["mask_iou"] == {"estimate": 0.95678, "low": 0.94, "high": 0.97, "count": 96}
    assert read["none"]["mask_iou"]["estimate"] is None
