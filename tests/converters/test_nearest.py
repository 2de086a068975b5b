"""Files that fit nothing: what they are nearest to, and a table of names that reads them."""

from __future__ import annotations

import json

import pytest

from flashmotion_jax.converters.names import read_names
from flashmotion_jax.converters.nearest import describe_nearest
from flashmotion_jax.converters.planning import Known, plan_contents
from flashmotion_jax.converters.recognition import recognize
from flashmotion_jax.runtime.errors import UserError

from .test_recognition import DIT, FILES, tensor


def suggested(text, file):
    """The table of names at the end of a description."""
    file.write_text(text[text.index("\n{\n") :])
    return read_names(file)


KNOWN = Known(dtype="float32", dit=DIT)


@pytest.mark.parametrize("kind", ["adapters/controlnet", "adapters/resnet"])
def test_a_suggested_table_reads_the_file(tmp_path, kind):
    """Projections under an unknown name, below an unknown prefix."""
    source = {
        f"gizmo.inner.{key}".replace("zero_convs.", "exits.")
        .replace("out_projectors.", "exits.")
        .replace("conv2.", "second."): shape
        for key, shape in FILES[kind].items()
    }
    with pytest.raises(UserError, match="no known component"):
        recognize(source)
    text = describe_nearest(source, KNOWN)
    assert f"nearest: {kind} under 'gizmo.inner', whose names " in text
    assert "missing (" in text
    assert "left over (" in text
    assert "exits.0.weight" in text
    assert f"--component {kind.removeprefix('adapters/')}" in text
    names = suggested(text, tmp_path / "map.json")
    contents = recognize(source, component=kind, prefix=names.prefix)
    (plan,) = plan_contents(contents, Known(dtype="float32", dit=DIT, names=names))
    assert plan.problems() == []


def test_a_file_of_something_else():
    assert describe_nearest({"a.b": tensor((2, 3))}, KNOWN) == (
        "no tensor has the name of one of a known component"
    )


def test_long_lists_are_cut():
    source = {f"blocks.0.self_attn.q.{i}": tensor((1,)) for i in range(99)}
    text = describe_nearest({**source, "blocks.0.norm3.weight": tensor((16,))}, KNOWN)
    assert "and 87 more" in text
    assert json.loads(text[text.index("\n{\n") :])["prefix"] == ""
