from __future__ import annotations

import numpy as np

from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.evaluation.reports.plots import bars, curves
from flashmotion_jax.evaluation.reports.report import over_time
from flashmotion_jax.evaluation.scoring import Score

NOTHING = Interval(np.nan, np.nan, np.nan, 0)


def test_curves_leave_out_frames_without_a_number():
    values = [NOTHING, Interval(0.5, 0.4, 0.6, 3), Interval(0.7, np.nan, np.nan, 1)]
    picture = curves("IoU <%>", {"mask": values}, 100)
    assert picture.startswith("<svg") and picture.endswith("</svg>")
    assert "IoU &lt;%&gt;" in picture and "nan" not in picture
    assert picture.count("<polyline") == 1 and picture.count("<polygon") == 1
    assert curves("empty", {"mask": [NOTHING, NOTHING]}) == ""


def test_bars_show_n_and_leave_out_groups_without_a_number():
    groups = {"1": Interval(0.5, 0.4, 0.6, 3), "4": NOTHING, "all": Interval(2, np.nan, np.nan, 1)}
    picture = bars("FID", groups)
    assert picture.count("<rect") == 2 and ">N 3<" in picture and ">4<" not in picture
    assert "nan" not in picture
    assert bars("FID", {"1": NOTHING}) == ""


def test_a_metric_over_time_is_a_mean_over_videos_of_any_length():
    long = np.array([[1.0, 0.5, np.nan], [0.0, 0.5, np.nan]])
    short = np.array([[1.0, 1.0]])
    scores = [Score("a", "2", {"mask_iou": long}), Score("b", "1", {"mask_iou": short})]
    first, second, third = over_time(scores, "mask_iou")
    assert (first.estimate, second.estimate) == (0.75, 0.75)
    assert first.count == 2 and third.count == 0
    assert over_time(scores, "box_iou") == []
