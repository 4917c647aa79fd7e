"""Images in forms, against a real server."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.http_server import RunningHttpServer, problem, shape
from tests.support.images import jpeg

IMAGE = jpeg(400, 200)


@pytest.fixture
def client(http_server: RunningHttpServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=http_server.url, timeout=60) as one:
        yield one


def test_a_form(client: httpx.Client) -> None:
    response = client.post(
        "/resize?format=png", data={"width": "60", "fit": "inside"}, files={"image": ("a.jpg", IMAGE)}
    )
    assert shape(response.content) == ("PNG", (60, 30))
    assert f"size={len(IMAGE)}" in response.headers["Vipsrv-Source"]
    assert client.post("/info", files={"image": IMAGE}).json()["source"]["width"] == 400


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_form_by_curl(http_server: RunningHttpServer, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(3000, 2000, quality=100))
    command = "curl -sSf -F width=60 -F height=60 -F fit=cover -F image=@photo.jpg -o out.jpg"
    subprocess.run([*command.split(), f"{http_server.url}/resize"], cwd=tmp_path, check=True, timeout=60)
    assert shape((tmp_path / "out.jpg").read_bytes()) == ("JPEG", (60, 60))


def test_inputs_that_nobody_has_filled_in(client: httpx.Client) -> None:
    fields = {"width": "60", "height": "", "quality": "", "format": ""}
    response = client.post("/resize", data=fields, files={"image": IMAGE})
    assert shape(response.content) == ("JPEG", (60, 30))


def test_a_form_is_refused_by_its_fields(client: httpx.Client) -> None:
    refused = client.post("/resize", data={"w": "60"}, files={"image": IMAGE})
    assert problem(refused, 400, "bad_request")["detail"].startswith("w: is no parameter")
    refused = client.post("/resize?width=8", data={"width": "60"}, files={"image": IMAGE})
    assert "width: is given twice" in problem(refused, 400, "bad_request")["detail"]
    refused = client.post("/info", data={"width": "60"}, files={"image": IMAGE})
    assert "has no parameters" in problem(refused, 400, "bad_request")["detail"]
    without = {"Content-Type": "multipart/form-data; boundary=x"}
    refused = client.post("/resize?width=8", content=b"--x--\r\n", headers=without)
    assert "has no file" in problem(refused, 400, "bad_request")["detail"]
    refused = client.post("/resize?width=8", content=b"--x\r\nContent-", headers=without)
    assert "ends too early" in problem(refused, 400, "bad_request")["detail"]
