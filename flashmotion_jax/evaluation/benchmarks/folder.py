"""A folder of the user's own in the layout of MagicData, with or without its CSV."""

from __future__ import annotations

from pathlib import Path

from flashmotion_jax.evaluation.benchmarks.base import Problem
from flashmotion_jax.evaluation.benchmarks.magicdata import MagicDataLayout


class Folder(MagicDataLayout):
    """All frames of each video. Without a CSV, videos have the names of the folders of masks."""

    def rows(self, root: Path) -> list[tuple[str, str] | Problem]:
        """Ids with captions; without a CSV, the names of the folders of masks."""
        if (root / "MagicData.csv").is_file():
            return super().rows(root)
        return [(path.name, "") for path in sorted((root / "masks").glob("*")) if path.is_dir()]
