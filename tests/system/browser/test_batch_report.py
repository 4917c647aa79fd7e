"""The report of a batch in a browser: readable for everyone, on a phone, and without a script."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from tests.support.batch_rows import RUN, failed_row, ok_row, outputs, write_part
from vipsrv.batch.manifest.layout import shard_name
from vipsrv.batch.report.page import report_page
from vipsrv.batch.report.status import status_of
from vipsrv.batch.stores.folder_destination import FolderDestination

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
HOSTILE = "<img src=x onerror='document.title=1'><script>document.title=2</script>" + "w" * 300


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")

    async def write() -> str:
        made = outputs(320, 640)
        destination = FolderDestination(folder / "out")
        rows = [ok_row(f"{i}.jpg", made, size=1000 + 97 * i) for i in range(200)]
        failures = [failed_row(f"{HOSTILE}{i}", made, message=HOSTILE) for i in range(3)]
        await write_part(destination, shard_name(RUN, 1), made, *rows, *failures)
        page = report_page(await status_of(destination))
        await destination.close()
        return page

    file = folder / "report.html"
    with ThreadPoolExecutor(1) as thread:  # Playwright's event loop runs in this one
        file.write_text(thread.submit(asyncio.run, write()).result())
    return file


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
def test_the_report_is_accessible_and_fits(
    browser: Browser, page_file: Path, scheme: Any, device: dict[str, Any]
) -> None:
    with browser.new_context(color_scheme=scheme, **device) as context:
        page = context.new_page()
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text))
        page.on("request", lambda request: told.append(request.url))
        page.goto(page_file.as_uri())
        for summary in page.locator("summary").all():
            if summary.evaluate("one => !one.parentElement.open"):
                summary.click()
        assert told == [page_file.as_uri()]
        assert page.title().startswith("Batch report: ")
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
        found = Axe().run(page).response["violations"]
        assert [
            f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']]}" for one in found
        ] == []
