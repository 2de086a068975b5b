"""Edited, truncated and malformed trajectory files are read, or refused in a short message.

`python -m tests.trajectory.test_hostile_json SECONDS` runs for longer and prints what it tried.
"""

from __future__ import annotations

import copy
import json
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.json_files import parse_json
from flashmotion_jax.runtime.limits import EDITOR, limited
from flashmotion_jax.trajectory import Trajectory, render
from flashmotion_jax.trajectory.formats.spline import read_spline

VALID = {
    "version": 1,
    "canvas": {"width": 64, "height": 32},
    "num_frames": 5,
    "fps": 24,
    "objects": [
        {
            "id": 1,
            "name": "a",
            "color": "#102030",
            "mask": {"size": [32, 64], "counts": [100, 48, 1900]},
            "keyframes": [
                {"frame": 0, "box": [0.1, 0.2, 0.3, 0.4], "ease": "smooth"},
                {"frame": 4, "box": [0.5, 0.2, 1.3, 0.4], "ease": "linear"},
            ],
        },
        {"id": 2, "keyframes": [{"frame": 2, "box": [0, 0, 1, 1]}]},
    ],
    "sparse_frames": [0, 1, 4],
}
ODD = [
    None, True, False, 0, -1, 1, 2, 4, 5, 9_999, 10_000, 16_384, 16_385, 2**31, 2**63, 10**19, 0.5,
    -0.0, 1e-320, 1e300, -1e300, 11.0, -10.0, "", "a", "#000000", "#FFFFFF", "x" * 5000, "\0",
    "é🚢", "../a.png", [], {}, [[]], [0] * 2000, {"size": [16_384, 16_384], "counts": [16_384**2]},
    {"size": [1, 1], "counts": [0, 1]}, [0, 0, 0, 0], {"": 0},
]  # fmt: skip
SCALARS = st.one_of(
    st.sampled_from(ODD), st.integers(-(2**64), 2**64), st.floats(allow_nan=True), st.text()
)


@st.composite
def edited(draw):
    """The text of a valid file after a few edits anywhere in it."""
    data = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(0, 4))):
        node, key = data, None
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            parent, key = node, draw(st.sampled_from(keys))
            node = parent[key]
            if draw(st.booleans()):
                break
        if key is None:
            break
        edit = draw(st.sampled_from(["set", "remove", "repeat", "rename", "swap"]))
        if edit == "set":
            parent[key] = copy.deepcopy(draw(SCALARS))
        elif edit == "remove":
            del parent[key]
        elif edit == "repeat" and isinstance(parent, list):
            parent += copy.deepcopy([node]) * draw(st.integers(1, 300))
        elif edit == "rename" and isinstance(parent, dict):
            parent[draw(st.text())] = parent.pop(key)
        elif edit == "swap":
            parent[key] = [node] if draw(st.booleans()) else {"a": node}
    text = json.dumps(data, ensure_ascii=draw(st.booleans()))
    cut = draw(st.integers(0, 20 * len(text)))
    return text[:cut].encode("utf-8", "surrogatepass")


def read(data):
    """Reads a file as the editor does, and draws it; returns whether it was valid."""
    try:
        with limited(EDITOR):
            trajectory = Trajectory.from_dict(parse_json(data, "trajectory", "write it again"))
            written = json.dumps(trajectory.to_dict(), allow_nan=False)
            assert Trajectory.from_dict(json.loads(written)) == trajectory
            maps = render(trajectory, 32, 64, "box", num_frames=5)
            assert maps.shape == (5, 32, 64, 3) and maps.dtype == np.uint8
    except UserError as error:
        assert 0 < len(str(error)) < 2000
        return False
    return True


def read_text_of_splines(data):
    """Reads text as ComfyUI's splines."""
    try:
        read_spline("[" + data.decode("utf-8", "replace"))
    except UserError as error:
        assert len(str(error)) < 500
        return False
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(edited())
@pytest.mark.filterwarnings("ignore")
def test_an_edited_trajectory_is_read_or_refused(data):
    read(data)
    read_text_of_splines(data)


def main(seconds):
    """Runs the property for some time; prints counts and the extremes."""
    counts = {"executions": 0, "valid": 0, "slowest_s": 0.0, "largest_mb": 0.0}
    end = time.monotonic() + seconds
    tracemalloc.start()

    @settings(
        max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(edited())
    def run(data):
        if time.monotonic() > end:
            return
        tracemalloc.reset_peak()
        before, start = tracemalloc.get_traced_memory()[0], time.process_time()
        counts["valid"] += read(data)
        read_text_of_splines(data)
        taken, grown = time.process_time() - start, tracemalloc.get_traced_memory()[1] - before
        assert taken < 5 and grown < 500e6, (taken, grown)
        counts["executions"] += 1
        counts["slowest_s"] = max(counts["slowest_s"], taken)
        counts["largest_mb"] = max(counts["largest_mb"], grown / 1e6)

    while time.monotonic() < end:
        run()
        print(counts, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
