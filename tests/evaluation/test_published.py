from __future__ import annotations

import pytest

from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.evaluation.published import beside_published


def figures(mask, box):
    return {"mask_iou": Interval(mask, 0.1, 0.9, 7), "box_iou": Interval(box, 0.1, 0.9, 7)}


def test_flashbench_has_a_column_for_each_group():
    rows = {"2": figures(0.5, 0.625), "all": figures(0.25, 0.75)}
    lines = beside_published("flashbench", rows).splitlines()
    assert lines[0] == "| M/B IoU (%) | all | 1 | 2 | 3 | 4 | 5 | 6+ |"
    ours = "| this evaluation | 25.00/75.00 (N 7) | - | 50.00/62.50 (N 7) | - | - | - | - |"
    assert lines[2] == ours
    assert (
        "| FlashMotion (ControlNet), published | 69.15/75.38 | 68.44/84.51 | 63.87/76.99 | "
        "66.45/73.91 | 71.81/75.49 | 74.94/76.98 | 69.43/64.50 |" in lines
    )
    assert {line.count("|") for line in lines if line.startswith("|")} == {9}


@pytest.mark.parametrize(
    "bench, published", [("magicbench", "76.61/81.45"), ("davis", "53.94/72.84")]
)
def test_other_benches_have_one_column(bench, published):
    lines = beside_published(bench, {"all": figures(0.25, 0.75)}).splitlines()
    assert f"| MagicMotion, published | {published} |" in lines


def test_a_bench_that_the_paper_has_not():
    assert beside_published("sprites", {}) == ""
