from __future__ import annotations

import dataclasses
import threading

import pytest

from flashmotion_jax.runtime.errors import UserError
from flashmotion_jax.runtime.limits import EDITOR, check_image_size, limited
from flashmotion_jax.runtime.read_ahead import read_ahead


def test_items_keep_their_order_and_are_few_ahead():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    for number in read_ahead(items(), count=3):
        assert len(made) <= number + 5
    assert made == list(range(20)) and number == 19
    assert list(read_ahead([])) == []


def test_an_error_is_raised_in_its_place():
    def items():
        yield 1
        raise UserError("the second is damaged")

    found = read_ahead(items())
    assert next(found) == 1
    with pytest.raises(UserError, match="the second"):
        next(found)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    found = read_ahead(iter(int, 1))
    assert next(found) == 0
    found.close()
    assert threading.active_count() == before


def test_limits_of_the_caller_hold():
    def items():
        yield check_image_size(10, 10, "a.png")

    few = dataclasses.replace(EDITOR, image_pixels=50)
    with limited(few), pytest.raises(UserError, match=r"a\.png"):
        next(read_ahead(items()))
