"""An image that is tried on the page: dropped, sent, compared, and the commands that do the same."""

import base64
import hashlib
import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.support.images import photo
from tests.support.running_server import RunningServer
from tests.system.browser.conftest import Watched, watching
from vipsrv import Client

DROP = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const about = { dataTransfer: transfer, bubbles: true, cancelable: true };
    document.body.dispatchEvent(new DragEvent(kind, about));
  }
}"""

PASTE = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
}"""


def give(page: Page, program: str, name: str, data: bytes, kind: str = "image/jpeg") -> None:
    page.evaluate(program, [name, kind, base64.b64encode(data).decode()])


def choose(page: Page, data: bytes, name: str = "photo.jpg") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": data})


def expect_result(page: Page) -> None:
    expect(page.locator("body")).to_have_attribute("data-lab", "shown")
    expect(page.locator("#fig-ssim")).to_have_text(re.compile(r"^[01]\.\d{4}"))


def figure(page: Page, name: str) -> str:
    return page.inner_text(f"#fig-{name}").split("\n")[0]


def result_of(page: Page) -> bytes:
    """The bytes of the result that the page shows."""
    with page.expect_download() as download:
        page.click("#download")
    return download.value.path().read_bytes()


def test_a_dropped_image_comes_back_with_its_figures(
    watched: Watched, server: RunningServer, image: bytes
) -> None:
    page = watched.open()
    give(page, DROP, "harbour.jpg", image)
    expect_result(page)
    with Client(host=server.host, port=server.port) as client:
        expected = client.resize(image, width=800, quality=85)
    result = result_of(page)
    assert hashlib.sha256(result).digest() == hashlib.sha256(expected.data).digest()
    assert figure(page, "source") == f"{len(image) / 1000:.0f} kB"
    assert figure(page, "result") == f"{len(result) / 1000:.1f} kB"
    assert "1200 × 800 jpeg" in page.inner_text("#fig-source")
    assert "800 × 533 jpeg" in page.inner_text("#fig-result")
    assert float(figure(page, "ratio").split()[0]) == pytest.approx(len(image) / len(result), rel=0.01)
    assert figure(page, "server").endswith("ms")
    assert "queue" in page.inner_text("#fig-server")
    assert 0.8 < float(figure(page, "ssim")) <= 1
    # Both images are there, at the same size.
    assert page.evaluate("document.getElementById('after').naturalWidth") == 800
    assert page.evaluate("document.getElementById('before').width") == 800


def test_a_result_may_be_larger(watched: Watched, image: bytes) -> None:
    page = watched.open()
    page.select_option("#format", "png")
    page.fill("#width", "1200")
    choose(page, image)
    expect_result(page)
    more = len(result_of(page)) / len(image) - 1
    assert more > 0.01
    assert page.inner_text("#fig-ratio").split("\n")[-1] == f"{more:.0%}".replace("%", " % more")


HOLD = """() => {
  // The first result is decoded when `release` is called; all that the page says of an original is in `said`.
  const decode = createImageBitmap;
  window.createImageBitmap = async (source) => {
    if (!document.body.dataset.held && !(source instanceof File)) {
      document.body.dataset.held = "yes";
      await new Promise((resolve) => { window.release = resolve; });
      window.createImageBitmap = decode;
    }
    return decode(source);
  };
  window.said = [];
  const figure = document.getElementById("fig-source");
  new MutationObserver(() => window.said.push(figure.textContent)).observe(figure, { childList: true });
}"""


def test_the_result_of_an_image_before_is_not_shown_for_the_next(watched: Watched, image: bytes) -> None:
    page = watched.open()
    file = io.BytesIO()
    photo(300, 600).save(file, "PNG")
    page.evaluate(HOLD)
    give(page, DROP, "first.jpg", image)
    expect(page.locator("body")).to_have_attribute("data-held", "yes")
    give(page, DROP, "second.png", file.getvalue(), "image/png")
    page.evaluate("window.release()")
    expect(page.locator("#fig-source")).to_contain_text("300 × 600 png")
    expect_result(page)
    assert page.evaluate("window.said") == [f"{len(file.getvalue()) / 1000:.0f} kB300 × 600 png"]


def test_a_pasted_image_comes_back(watched: Watched, image: bytes) -> None:
    page = watched.open()
    give(page, PASTE, "image.png", image)
    expect_result(page)


@pytest.mark.parametrize("fit", ["cover", "contain", "fill", "inside", "outside"])
def test_the_original_is_shown_as_it_was_fitted(watched: Watched, image: bytes, fit: str) -> None:
    page = watched.open()
    page.fill("#height", "600")
    page.fill("#width", "300")
    page.select_option("#fit", fit)
    choose(page, image)
    expect_result(page)
    # If it were placed or scaled otherwise, hardly any window would be similar.
    assert float(figure(page, "ssim")) > 0.85


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "png"])
def test_each_format(watched: Watched, image: bytes, name: str) -> None:
    page = watched.open()
    page.select_option("#format", name)
    choose(page, image)
    expect_result(page)
    with Image.open(io.BytesIO(result_of(page))) as opened:
        assert (opened.format or "").lower() == name


def test_another_option_sends_it_again(watched: Watched, image: bytes) -> None:
    page = watched.open()
    choose(page, image)
    expect_result(page)
    before = page.inner_text("#fig-result")
    page.locator("#quality").fill("20")
    expect(page.locator("#fig-result")).not_to_have_text(before)
    expect_result(page)
    assert "quality=20" in page.inner_text("#commands")


def test_the_slider_divides_the_images(watched: Watched, image: bytes) -> None:
    page = watched.open()
    choose(page, image)
    expect_result(page)
    page.focus("#cut")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.getElementById('stage').style.getPropertyValue('--cut')") == "60%"
    right = page.locator("#before").evaluate("(element) => getComputedStyle(element).clipPath")
    assert right == "inset(0px calc(40%) 0px 0px)" or "40%" in right


def test_what_is_no_image_is_refused_with_the_reason(watched: Watched) -> None:
    watched.forgiven.append("415")
    page = watched.open()
    choose(page, b"this is a text", "notes.txt")
    expect(page.locator("#message")).to_contain_text("not an image of a known format")
    expect(page.locator("body")).to_have_attribute("data-lab", "refused")
    expect(page.locator("#figures")).to_be_hidden()


def test_an_image_that_the_browser_cannot_decode(watched: Watched) -> None:
    file = io.BytesIO()
    photo(300, 200).save(file, "TIFF")
    page = watched.open()
    choose(page, file.getvalue(), "scan.tif")
    expect(page.locator("body")).to_have_attribute("data-lab", "shown")
    expect(page.locator("#fig-ssim")).to_contain_text("cannot decode")
    assert "300 × 200 tiff" in page.inner_text("#fig-source")
    expect(page.locator("#before")).to_be_hidden()


def reference_similarity(first: "np.ndarray[Any, Any]", second: "np.ndarray[Any, Any]") -> float:
    """The mean SSIM over windows of 8 × 8 with a step of 4, by numpy."""
    weights = np.array([0.299, 0.587, 0.114])
    a, b = (
        np.lib.stride_tricks.sliding_window_view(one @ weights, (8, 8))[::4, ::4] for one in (first, second)
    )
    axes = (2, 3)
    mean_a, mean_b = a.mean(axes), b.mean(axes)
    variance_a, variance_b = a.var(axes), b.var(axes)
    covariance = (a * b).mean(axes) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    )
    return float(similarity.mean())


def test_the_similarity_is_that_of_the_paper(watched: Watched) -> None:
    width, height = 61, 43
    first = np.asarray(photo(width, height).convert("RGBA"))
    noise = np.random.default_rng(5).normal(0, 12, (height, width, 4))
    second = np.clip(first + noise, 0, 255).astype(np.uint8)
    second[..., 3] = 255
    page = watched.open()
    program = """([first, second, width, height]) => new Similarity(byId("ssim-program").textContent)
      .of(Uint8ClampedArray.from(first), Uint8ClampedArray.from(second), width, height)"""
    found = page.evaluate(program, [first.ravel().tolist(), second.ravel().tolist(), width, height])
    assert found == pytest.approx(reference_similarity(first[..., :3], second[..., :3]), abs=1e-4)
    same = page.evaluate(program, [first.ravel().tolist(), first.ravel().tolist(), width, height])
    assert same == pytest.approx(1, abs=1e-6)


def test_the_commands_do_the_same(browser: Browser, server: RunningServer, image: bytes) -> None:
    with watching(browser, server.ops, permissions=["clipboard-read", "clipboard-write"]) as watched:
        page = watched.open()
        page.fill("#height", "600")
        page.select_option("#fit", "cover")
        page.select_option("#format", "webp")
        choose(page, image, "it's a photo.jpg")
        expect_result(page)
        curl, python, command = (code.inner_text() for code in page.locator(".command code").all())
        query = "width=800&height=600&fit=cover&format=webp&quality=85"
        assert curl == (
            "curl --fail-with-body --data-binary '@it'\\''s a photo.jpg' \\\n"
            f"  '{server.ops}/resize?{query}' -o result.webp"
        )
        options = 'width=800, height=600, fit="cover", format="webp", quality=85'
        assert f"""client.resize("it's a photo.jpg", {options})""" in python
        compile(python, "page", "exec")
        assert command == (
            "vipsrv-client 'it'\\''s a photo.jpg' --width 800 --height 600 --fit cover --format webp "
            "--quality 85 -o result.webp"
        )
        page.get_by_role("button", name="Copy the curl command").click()
        assert page.evaluate("navigator.clipboard.readText()") == curl
