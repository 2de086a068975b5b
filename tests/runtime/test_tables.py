from __future__ import annotations

import pytest

from flashmotion_jax.runtime.tables import markdown_table


def test_rows_under_a_header():
    assert markdown_table(("run", "seconds"), [("a", "1"), ("b", "-")]) == (
        "| run | seconds |\n| --- | --- |\n| a | 1 |\n| b | - |\n"
    )


def test_a_row_of_another_length_raises():
    with pytest.raises(ValueError, match="a row of 1 cells; expected 2"):
        markdown_table(("run", "seconds"), [("a",)])
