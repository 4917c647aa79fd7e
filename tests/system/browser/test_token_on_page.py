"""A server with tokens: the page asks for one, keeps it in memory, and forgets it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.running_server import RunningServer
from tests.system.browser.conftest import Watched, watching
from tests.system.browser.test_try_an_image import choose, expect_result

STORED = "JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])"
EMPTY = '[{},{},""]'


class Guarded(NamedTuple):
    """A server that asks for a token, and one that it accepts."""

    server: RunningServer
    token: str


@pytest.fixture(scope="module")
def guarded(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:  # noqa: ARG001
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    token = new_token(tokens)
    with RunningServer("--ops-listen", "127.0.0.1:0", "--workers", "1", "--tokens", str(tokens)) as server:
        yield Guarded(server, token)


def new_token(tokens: Path) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "vipsrv", "token", "new", "shop", "--tokens", str(tokens)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return made.stdout.strip()


@pytest.fixture
def watched(browser: Browser, guarded: Guarded) -> Iterator[Watched]:
    with watching(browser, guarded.server.ops) as watched:
        watched.forgiven.append("401")  # the browser's own note about the status
        yield watched


def answer(page: Page, token: str) -> None:
    expect(page.locator("#token-dialog")).to_be_visible()
    expect(page.locator("#token")).to_be_focused()
    page.keyboard.type(token)
    page.keyboard.press("Enter")


def test_the_figures_need_no_token(watched: Watched) -> None:
    page = watched.open()
    expect(page.locator(".worker")).to_have_count(1)
    expect(page.locator("#token-dialog")).to_be_hidden()


def test_it_asks_for_a_token_and_keeps_it_in_memory_only(
    watched: Watched, guarded: Guarded, image: bytes
) -> None:
    page = watched.open()
    choose(page, image)
    answer(page, "vips_wrong")
    expect(page.locator("#token-fault")).to_have_text("The server does not accept this token.")
    answer(page, guarded.token)
    expect_result(page)
    assert page.evaluate(STORED) == EMPTY
    assert guarded.token not in page.content()
    assert page.input_value("#token") == ""
    assert 'Authorization: Bearer $VIPSRV_TOKEN"' in page.inner_text("#commands")
    # The next request does not ask again.
    page.select_option("#format", "webp")
    expect(page.locator("#fig-result")).to_contain_text("webp")
    expect(page.locator("#token-dialog")).to_be_hidden()


def test_a_reload_and_a_click_forget_it(watched: Watched, guarded: Guarded, image: bytes) -> None:
    page = watched.open()
    choose(page, image)
    answer(page, guarded.token)
    expect_result(page)
    page.click("#forget-token")
    page.locator("#quality").fill("33")
    answer(page, guarded.token)
    expect(page.locator("#fig-result")).to_contain_text("jpeg")
    page.reload()
    choose(page, image)
    answer(page, guarded.token)
    expect_result(page)


def test_who_has_none_is_told_so(watched: Watched, image: bytes) -> None:
    page = watched.open()
    choose(page, image)
    expect(page.locator("#token-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#token-dialog")).to_be_hidden()
    expect(page.locator("#message")).to_contain_text("401")
    expect(page.locator("body")).to_have_attribute("data-lab", "refused")
