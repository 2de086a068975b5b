from __future__ import annotations

import re
from pathlib import Path

from flashmotion_jax.trajectory.formats import FORMATS

GUIDE = Path(__file__).parents[2] / "docs" / "trajectories.md"


def test_the_guide_lists_every_format():
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \| .* \|", GUIDE.read_text(encoding="utf-8"), re.M)
    assert set(FORMATS) <= set(rows)
