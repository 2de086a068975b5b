"""Writes the table of docs/planning.md from the plans in docs/plans/.

PYTHONPATH=. python tools/plan_table.py
"""

from __future__ import annotations

import json
from pathlib import Path

from flashmotion_jax.perf.plan_report import HEADER, to_row
from flashmotion_jax.runtime.tables import markdown_table

DOCS = Path(__file__).parents[1] / "docs"
#: Comments of docs/planning.md around the table.
START, END = "<!-- table -->\n", "<!-- end -->"


def main():
    page = DOCS / "planning.md"
    plans = sorted((DOCS / "plans").glob("*.json"))
    rows = [to_row(plan.stem, json.loads(plan.read_text())) for plan in plans]
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}{markdown_table(HEADER, rows)}{END}{after}")
    print(f"wrote {len(rows)} plans into the table of {page}")


if __name__ == "__main__":
    main()
