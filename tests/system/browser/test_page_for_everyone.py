"""The page on a phone, in the dark, by keyboard, and for a screen reader."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.support.running_server import RunningServer
from tests.system.browser.conftest import Watched, load, watching
from tests.system.browser.test_try_an_image import choose, expect_result

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

SERIOUS = {"serious", "critical"}


def filled(page: Page, image: bytes) -> None:
    """Let everything that the page can show be there."""
    choose(page, image)
    expect_result(page)
    expect(page.locator("#error-list li").first).to_be_visible()
    for summary in page.locator("summary").all():
        summary.click()


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']]}"
        for one in found
        if one["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_serious(
    browser: Browser, server: RunningServer, image: bytes, scheme: str, device: dict[str, Any]
) -> None:
    with load(server, image), watching(browser, server.ops, color_scheme=scheme, **device) as watched:
        page = watched.open()
        filled(page, image)
        assert violations(page) == []


def test_axe_finds_nothing_serious_when_the_figures_are_old(browser: Browser, image: bytes) -> None:
    with (
        RunningServer("--ops-listen", "127.0.0.1:0", "--workers", "1") as server,
        watching(browser, server.ops) as watched,
    ):
        watched.forgiven += ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING"]
        page = watched.open()
        choose(page, image)
        expect_result(page)
        server.stop()
        expect(page.locator("#banner")).to_be_visible()
        assert violations(page) == []


def test_axe_can_find_something(watched: Watched) -> None:
    page = watched.open()
    page.evaluate(
        "document.getElementById('width').closest('label').replaceWith(document.getElementById('width'))"
    )
    assert any("label" in violation for violation in violations(page))


def test_a_phone_never_scrolls_sideways(browser: Browser, server: RunningServer, image: bytes) -> None:
    with load(server, image), watching(browser, server.ops, **PHONE) as watched:
        page = watched.open()
        filled(page, image)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        beyond = page.evaluate(
            "[...document.querySelectorAll('main *')].filter((one) => !one.closest('svg, .unseen, table')"
            " && one.getBoundingClientRect().right > 361).map((one) => one.className || one.tagName)"
        )
        assert beyond == []


def background(page: Page) -> int:
    """How light the background is: 0 to 765."""
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(int(part) for part in colour.strip("rgb()").split(",")[:3])


@pytest.mark.parametrize(("scheme", "is_light"), [("light", True), ("dark", False)])
def test_light_and_dark_follow_the_system_until_they_are_chosen(
    browser: Browser, server: RunningServer, scheme: str, *, is_light: bool
) -> None:
    with watching(browser, server.ops, color_scheme=scheme) as watched:
        page = watched.open()
        theme = page.locator("#theme")
        assert (background(page) > 380) == is_light
        theme.click()
        expect(theme).to_have_text("Theme: light")
        assert background(page) > 380
        theme.click()
        expect(theme).to_have_text("Theme: dark")
        assert background(page) < 380
        theme.click()
        expect(theme).to_have_text("Theme: auto")
        assert (background(page) > 380) == is_light


FOCUSED = """() => {
  const one = document.activeElement;
  const ring = one.id === "file" ? one.closest(".drop") : one;
  const place = [...document.querySelectorAll("*")].indexOf(one);
  return [`${one.id || one.getAttribute("href") || one.tagName} ${place}`, one === document.body ||
    getComputedStyle(ring).outlineStyle !== "none" && parseFloat(getComputedStyle(ring).outlineWidth) >= 2];
}"""


def test_everything_can_be_reached_by_keyboard_and_shows_the_focus(watched: Watched, image: bytes) -> None:
    page = watched.open()
    choose(page, image)
    expect_result(page)
    page.evaluate("document.activeElement.blur()")
    reached = {}
    for _ in range(60):
        page.keyboard.press("Tab")
        name, is_visible = page.evaluate(FOCUSED)
        if name in reached and not name.startswith("BODY"):  # once around
            break
        reached[name] = is_visible
    assert [name for name, is_visible in reached.items() if not is_visible] == []
    wanted = {"#live", "#workers", "#errors", "#try", "theme", "file", "width", "height", "format", "cut"}
    assert wanted - {name.split()[0] for name in reached} == set()
    # Links, theme, the file, its options, the slider: in the order in which they are read.
    places = {name: int(place) for name, place in map(str.split, reached)}
    assert places["#try"] < places["theme"] < places["file"] < places["width"] < places["cut"]


def test_the_skip_link_leads_to_the_figures(watched: Watched) -> None:
    page = watched.open()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#live")).to_be_focused()


def test_a_screen_reader_hears_what_the_charts_show(
    watched: Watched, server: RunningServer, image: bytes
) -> None:
    with load(server, image):
        page = watched.open()
        chart = page.get_by_role("img", name="Requests that ended, per second. Now: answered")
        expect(chart).to_have_count(1)
        expect(page.locator("#announcer")).to_have_attribute("aria-live", "polite")
        # What changes every second is no live region, which would be read out without an end.
        regions = page.locator("[aria-live], [role=status], [role=alert]").all()
        assert {one.get_attribute("id") for one in regions} == {"announcer", "message", "token-fault"}
