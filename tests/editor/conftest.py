"""A server in a thread, a small checkpoint that draws Sprites (badly), and Debian's Chromium."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from flashmotion_jax import SamplingConfig
from flashmotion_jax.data.sprites import VOCABULARY
from flashmotion_jax.editor.generator import Generator
from flashmotion_jax.text.word_tokenizer import write_word_tokenizer
from helpers import tiny
from helpers.editor_server import serving

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SAMPLING = SamplingConfig(
    height=64, width=64, num_frames=9, fps=8, map_kind="filled_box", negative_prompt=""
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Random weights, with the sizes and the vocabulary of the included model."""
    folder = tiny.save_checkpoint(tmp_path_factory.mktemp("checkpoint"), SAMPLING)
    write_word_tokenizer(folder / "tokenizer", VOCABULARY)
    return folder


@pytest.fixture(scope="session")
def address(checkpoint, tmp_path_factory):
    """The address of a server that all tests of a process share."""
    with serving(tmp_path_factory.mktemp("history"), Generator(checkpoint)) as url:
        yield url


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=240_000
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Opens pages with a profile each; their errors fail the test."""
    contexts, errors = [], []

    def open_one(url, context=None, **options):
        if context is None:
            options = {"viewport": {"width": 1280, "height": 800}, **options}
            context = browser.new_context(**options)
            context.set_default_timeout(90_000)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not errors


@pytest.fixture
def picture(tmp_path):
    """A red disc and a blue square on gray, with another aspect ratio than the model's video."""
    pixels = np.full((90, 120, 3), 128, np.uint8)
    y, x = np.mgrid[:90, :120]
    pixels[(y - 40) ** 2 + (x - 40) ** 2 < 15**2] = 225, 35, 40
    pixels[50:75, 70:95] = 45, 80, 230
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    return path
