from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flashmotion_jax.trajectory.formats import FORMATS

GUIDE = Path(__file__).parents[2] / "docs" / "trajectories.md"


def test_every_block_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```(json|python)\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.S | re.M
    )
    assert [language for language, _ in blocks] == ["json"] + 3 * ["python"]
    names: dict[str, Any] = {}
    for language, block in blocks:
        if language == "json":
            Path("trajectory.json").write_text(block, encoding="utf-8")
        else:
            exec(block, names)
    assert names["maps"].shape == (121, 320, 480, 3)
    assert names["short"].shape == (49, 480, 720, 3)
    assert [item.name for item in names["trajectory"].objects] == ["boat", "moon"]


def test_the_guide_lists_every_format():
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \| .* \|", GUIDE.read_text(encoding="utf-8"), re.M)
    assert set(FORMATS) <= set(rows)
