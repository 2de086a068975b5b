from __future__ import annotations

import pytest

from flashmotion_jax.evaluation.bootstrap import Interval
from flashmotion_jax.evaluation.reports import published
from flashmotion_jax.evaluation.reports.tables import cell, table_of_groups, tables_of_the_paper


def numbers(mask, box):
    return {
        "mask_iou": Interval(mask, 0.1, 0.9, 7),
        "box_iou": Interval(box, 0.1, 0.9, 7),
        "fid": Interval(12.345, 11, 14, 7),
    }


def row(table, method):
    return next(line for line in table.rows if line[0] == method)


def test_flashbench_fills_three_tables_of_the_paper():
    rows = {"2": numbers(0.5, 0.625), "6+": numbers(0.1, 0.2), "all": numbers(0.25, 0.75)}
    one, seven, eight = tables_of_the_paper("flashbench", rows)
    assert one.title == "Table 1 of the paper"
    ours = row(one, "this evaluation")
    assert ours[1:4] == ("12.35 [11.00, 14.00] (N 7)", "-", "25.00/75.00 (N 7)")
    assert set(ours[4:]) == {"-"}
    best = row(one, "FlashMotion (ControlNet), published")
    assert best[1:] == (
        *("14.35", "96.08", "69.15/75.38", "12.49", "99.30", "76.92/82.17"),
        *("45.66", "690.13", "54.54/74.37", "24.44", "10.28"),
    )
    assert row(seven, "this evaluation")[4:7] == (ours[1], "-", "50.00/62.50 (N 7)")
    assert row(seven, "LeviTor, published")[1:4] == ("128.25", "1318.56", "49.63/59.73")
    assert row(eight, "this evaluation")[-1] == "10.00/20.00 (N 7)"
    assert row(eight, "Tora, published")[-3:] == ("93.60", "1073.05", "37.98/36.89")
    for table in (one, seven, eight):
        assert {len(line) for line in table.rows} == {len(table.header)}
        assert row(table, "DMD, GAN (ControlNet), published")[1] == "out of memory"
        assert table.to_markdown().startswith(f"## {table.title}\n\n| method |")


@pytest.mark.parametrize("bench", ["magicbench", "davis"])
def test_other_benchmarks_fill_their_columns_of_table_1(bench):
    (table,) = tables_of_the_paper(bench, {"all": numbers(0.25, 0.75)})
    ours = row(table, "this evaluation")
    first = 1 + 3 * published.BENCHES.index(bench)
    assert ours[first + 2] == "25.00/75.00 (N 7)"
    assert ours[1 if first > 1 else 4] == "-"


def test_a_benchmark_that_the_paper_lacks():
    assert tables_of_the_paper("sprites", {}) == []


def test_groups_have_the_measured_metrics():
    table = table_of_groups({"1": numbers(0.5, 0.25), "all": {}})
    assert table.header == ("objects", "mask IoU (%)", "box IoU (%)", "FID")
    assert table.rows[0][1] == "50.00 [10.00, 90.00] (N 7)"
    assert table.rows[1] == ("all", "-", "-", "-")
    assert cell("fvd", Interval(3, float("nan"), float("nan"), 1)) == "3.00 (N 1)"
