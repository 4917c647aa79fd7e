"""The live figures in a browser: charts move, show what is so, and tell when they have stopped."""

import os
import signal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.running_server import RunningServer
from tests.system.browser.conftest import WAIT_MS, Watched, changes, load, watching
from vipsrv import Client, VipsrvError

expect.set_options(timeout=WAIT_MS)


def number(page: Page, selector: str) -> float:
    return float(page.inner_text(selector).split()[0].replace(",", ""))


def test_charts_move_while_requests_come(watched: Watched, server: RunningServer, image: bytes) -> None:
    with load(server, image):
        page = watched.open()
        expect(page.locator("#statuses")).to_contain_text("200 ok")
        for chart in ("throughput", "latency", "bytes", "load"):
            paths = changes(page, f"#chart-{chart} > svg .trace", "d", 3)
            assert len(set(paths)) == 3, chart
        assert number(page, "#tile-rate") > 0
        assert number(page, "#tile-p50") > 0
        assert number(page, "#tile-ratio") > 1
        expect(page.locator("#error-list li .code").first).to_have_text("415 unsupported_format")
        expect(page.locator("#stages tr")).to_have_count(5)


def test_errors_alike_are_one_entry(watched: Watched, server: RunningServer) -> None:
    with Client(host=server.host, port=server.port) as client:
        for _ in range(3):
            with pytest.raises(VipsrvError):
                client.resize(b"\xff\xd8\xff broken", width=10)
    page = watched.open()
    entry = page.locator("#error-list li", has_text="corrupt_image")
    expect(entry).to_have_count(1)
    expect(entry).to_contain_text("× 3")


def test_the_charts_know_the_time_before_the_page_was_opened(
    watched: Watched, server: RunningServer, image: bytes, browser: Browser
) -> None:
    with load(server, image), watching(browser, server.ops) as other:
        page = other.open()
        changes(page, "#chart-throughput > svg .trace", "d", 4)
    page = watched.open()
    page.locator("#chart-throughput summary").click()
    cells = page.locator("#chart-throughput tbody tr td:nth-child(2)")
    expect(cells).to_have_count(10)
    assert any(int(text) > 0 for text in cells.all_inner_texts())
    page.locator("#chart-load summary").click()
    cells = page.locator("#chart-load tbody tr td:nth-child(3)")
    expect(cells).to_have_count(10)
    assert sum(text != "–" for text in cells.all_inner_texts()) >= 4


def test_every_worker_is_shown(watched: Watched) -> None:
    page = watched.open()
    workers = page.locator(".worker")
    expect(workers).to_have_count(2)
    for worker in workers.all():
        expect(worker.locator(".lamp")).to_have_text("idle")
        expect(worker).to_contain_text("MB")


def test_a_worker_that_dies_is_replaced_in_the_list(watched: Watched) -> None:
    page = watched.open()
    pid = page.locator(".worker .pid").first.inner_text().split()[-1]
    os.kill(int(pid), signal.SIGKILL)
    expect(page.locator("#worker-list")).not_to_contain_text(pid)
    expect(page.locator(".worker")).to_have_count(2)


def test_it_tells_when_the_figures_stop_and_when_they_come_again(
    watched: Watched, server: RunningServer
) -> None:
    page = watched.open()
    expect(page.locator("#banner")).to_be_hidden()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        expect(page.locator("#banner")).to_be_visible()
        expect(page.locator("#state")).to_have_text("no figures")
        expect(page.locator("#announcer")).to_have_text("The live figures have stopped.")
        with pytest.raises(Exception, match="it has stopped"):
            changes(page, "#chart-load > svg .trace", "d", 2, milliseconds=3000)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#state")).to_have_text("live")


def test_it_reconnects_to_a_server_that_starts_again(browser: Browser) -> None:
    arguments = ("--ops-listen", "127.0.0.1:0", "--workers", "1")
    with RunningServer(*arguments) as first, watching(browser, first.ops) as watched:
        watched.forgiven += ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING"]
        page = watched.open()
        first.stop()
        expect(page.locator("#banner")).to_be_visible()
        port = first.ops.rpartition(":")[2]
        with RunningServer("--ops-listen", f"127.0.0.1:{port}", "--workers", "1") as second:
            expect(page.locator("#state")).to_have_text("live")
            expect(page.locator("#gateways td").first).to_have_text(str(second.pid))


@pytest.mark.parametrize(("motion", "moves"), [("no-preference", True), ("reduce", False)])
def test_charts_slide_unless_the_reader_wants_less_motion(
    browser: Browser, server: RunningServer, motion: str, *, moves: bool
) -> None:
    with watching(browser, server.ops, reduced_motion=motion) as watched:
        page = watched.open()
        # The first event may come before the first size of the chart is known.
        page.locator("#chart-load b").first.wait_for()
        changes(page, "#chart-load > svg .trace", "d", 2)
        targets = page.evaluate("document.getAnimations().map((one) => one.effect.target.nodeName)")
        assert ("g" in targets) == moves


def test_the_second_under_the_pointer_is_read(watched: Watched) -> None:
    page = watched.open()
    chart = page.locator("#chart-latency > svg")
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 90, box["y"] + 40)
    expect(page.locator("#chart-latency .when")).to_have_text("30 s ago")
    page.mouse.move(0, 0)
    expect(page.locator("#chart-latency .when")).to_have_text("now")
