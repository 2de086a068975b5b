"""A model says what it was trained on, and warns of what it does not know."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

from examples.own_trajectory import IMAGE
from flashmotion_jax import Pipeline, SamplingConfig
from flashmotion_jax.checkpoints.components import read_sampling
from flashmotion_jax.cli.main import main
from flashmotion_jax.inference.domain import Domain, shipped_model
from flashmotion_jax.runtime.errors import UserError
from helpers import tiny

SAMPLING = SamplingConfig(height=32, width=64, num_frames=5)
PROMPT = "a yellow triangle moves down"
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pipe():
    return Pipeline.from_pretrained(adapter=None)


def test_the_shipped_model_says_what_it_knows(pipe):
    assert "colored shapes only" in pipe.domain.notice and "--model DIR" in pipe.domain.notice
    assert len(pipe.domain.notice) < 200 and "\n" not in pipe.domain.notice


def test_its_own_words_and_pictures_do_not_warn(pipe):
    pipe.request(str(IMAGE), PROMPT)
    pipe.request([str(IMAGE)] * 2, [PROMPT, ""])


def test_unknown_words_are_named(pipe):
    expected = "the model does not know 'dog', 'boat' in the prompt"
    with pytest.warns(UserWarning, match=expected):
        pipe.request([str(IMAGE)] * 2, ["a dog moves", "a boat, a dog"])


def test_a_photograph_warns_and_names_the_option(pipe):
    with pytest.warns(UserWarning, match=r"does not look like .* --model DIR"):
        pipe.request(NOISE, PROMPT)
    with pytest.warns(UserWarning, match="does not look like"):
        pipe.request([str(IMAGE), NOISE], [PROMPT, PROMPT])


def test_text_alone_is_refused_by_a_model_that_needs_an_image(pipe):
    assert read_sampling(shipped_model()).needs_image
    with pytest.raises(UserError, match=r"cannot make a video from text alone; .* --image F"):
        pipe.request(None, PROMPT)
    with pytest.raises(UserError, match="text alone"):
        pipe.request([str(IMAGE), None], [PROMPT, PROMPT])


def test_other_models_take_anything(tmp_path):
    folder = tiny.save_checkpoint(tmp_path / "model", SAMPLING)
    pipe = Pipeline.from_pretrained(folder, None)
    assert pipe.domain.notice is None
    pipe.request(NOISE, "an astronaut rides a horse")
    pipe.request(None, "an astronaut rides a horse")


def test_a_tokenizer_may_be_any_function(pipe):
    request = pipe.request(str(IMAGE), PROMPT)
    domain = Domain(lambda prompts, length: None)
    assert domain.notice is None and domain.check(request) is request


def test_the_command_line_says_it_in_one_line_each(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Pipeline, "run", lambda self, request, *_: request.images)
    empty = tmp_path / "empty.json"
    empty.write_text(
        '{"version": 1, "canvas": {"width": 64, "height": 64}, "num_frames": 17, "fps": 8, '
        '"objects": []}'
    )
    command = ["sample", "--image", str(IMAGE), "--prompt", "a dog", "--out", f"{tmp_path}/v.npy"]

    def show(message, category, filename, line, *_):
        sys.stderr.write(warnings.formatwarning(message, category, filename, line))

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        monkeypatch.setattr(warnings, "showwarning", show)  # pytest records them instead
        assert main([*command, "--trajectory", str(empty)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("The model knows colored shapes only")
    assert "flashmotion: warning: the model does not know 'dog' in the prompt" in lines
    assert "flashmotion: warning: the trajectory has no objects, so its maps are black" in lines
    assert not any(".py" in line or "UserWarning" in line for line in lines)


def test_the_command_line_refuses_text_alone(capsys):
    assert main(["sample", "--prompt", PROMPT]) == 2
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 2 and "from text alone" in printed[1]
