"""Accessibility of the page: names, contrast, focus order, narrow and touch screens."""

from __future__ import annotations

import pytest

from helpers.editor_browser import EditorPage

UNNAMED = """() => [...document.querySelectorAll("button, input, select, textarea, a, canvas")]
  .filter((element) => element.checkVisibility())
  .filter((element) => {
    const labels = [...(element.labels ?? [])].map((label) => label.textContent).join("");
    const pointed = document.getElementById(element.getAttribute("aria-labelledby"))?.textContent;
    const own = element.matches("button, a") ? element.textContent : "";
    return !(element.ariaLabel || pointed || labels || own).trim();
  })
  .map((element) => element.outerHTML)"""
CONTRAST = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const parse = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => below.map((channel, i) => i < 3
    ? top[i] * top[3] + channel * (1 - top[3]) : 1);
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) {
      layers.unshift(parse(getComputedStyle(one).backgroundColor));
    }
    return layers.reduce((below, layer) => over(layer, below), [0, 0, 0, 1]);
  };
  const light = (color) => color.slice(0, 3)
    .map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const problems = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest(":disabled, option, #status, .skip, .drop")) continue;
    const ground = behind(element);
    const ink = over(parse(getComputedStyle(element).color), ground);
    const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) problems.push(`${ratio.toFixed(2)}: ${texts.currentNode.textContent.trim()}`);
  }
  return problems;
}"""
FOCUSED = """() => {
  const element = document.activeElement;
  const sections = ["header", ".left", ".center", ".right", ".timeline"];
  const outline = getComputedStyle(element);
  return {
    section: sections.findIndex((selector) => element.closest(selector)),
    id: element.id || element.textContent,
    seen: outline.outlineStyle !== "none" && parseFloat(outline.outlineWidth) >= 2,
  };
}"""


@pytest.fixture
def editor(open_page, address):
    editor = EditorPage(open_page(address))
    editor.draw_box((0.2, 0.2), (0.5, 0.5))
    editor.page.click("#add-camera")
    editor.page.locator(".object .pick").last.click()
    return editor


def test_everything_has_a_name_and_enough_contrast(editor):
    page = editor.page
    for tab in ("preview", "generate", "history"):
        page.click(f"#tab-{tab}")
        assert page.evaluate(UNNAMED) == []
        assert page.evaluate(CONTRAST) == []
    for button in ("#help", "#import", "#export", "#more"):
        page.click(button)
        assert page.evaluate(UNNAMED) == []
        assert page.evaluate(CONTRAST) == []
        page.keyboard.press("Escape")


def test_tab_follows_the_order_of_the_page_with_a_visible_focus(editor):
    page = editor.page
    page.focus("body > :first-child")
    assert page.evaluate("document.activeElement.className") == "skip"
    places = []
    for _ in range(120):
        page.keyboard.press("Tab")
        place = page.evaluate(FOCUSED)
        if place["section"] < 0:
            break
        assert place["seen"], place
        places.append(place)
    sections = [place["section"] for place in places]
    assert sections == sorted(sections) and set(sections) == set(range(5))
    assert {"undo", "stage", "tab-preview", "play", "scrub"} <= {place["id"] for place in places}


def test_the_keyboard_alone_makes_a_motion(editor):
    page = editor.page
    page.focus("#stage")
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    assert len(editor.objects) == 2
    page.keyboard.press("Delete")
    page.keyboard.press("n")
    page.keyboard.press("End")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    keys = editor.objects[0]["keyframes"]
    assert [key["frame"] for key in keys] == [0, 8]
    assert abs(keys[1]["box"][0] - keys[0]["box"][0] - 0.15) < 1e-6
    page.keyboard.press("Home")
    page.keyboard.press(".")
    assert page.evaluate("editor.store.view.frame") == 8


def test_a_narrow_screen_and_fingers(open_page, address):
    page = open_page(
        address, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    editor = EditorPage(page)
    page.locator("[data-tool=box]").tap()
    fingers = page.context.new_cdp_session(page)

    def touch(kind, *points):
        places = [dict(zip("xy", editor.at(*point), strict=True)) for point in points]
        points = [{**place, "id": k} for k, place in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.2, 0.2))
    for step in (0.3, 0.4, 0.5):
        touch("touchMove", (step, step))
    touch("touchEnd")
    editor.until("editor.store.project.objects.length === 1")
    # A second finger zooms, and what the first one had begun is taken back.
    before = editor.objects
    touch("touchStart", (0.3, 0.3))
    touch("touchMove", (0.33, 0.33))
    touch("touchStart", (0.33, 0.33), (0.6, 0.6))
    touch("touchMove", (0.2, 0.2), (0.8, 0.8))
    touch("touchEnd")
    editor.until("editor.store.view.zoom > 1.1")
    assert editor.objects == before
    page.locator("#zoom-fit").tap()
    for tab in ("preview", "generate", "history"):
        page.locator(f"#tab-{tab}").tap()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(UNNAMED) == []
