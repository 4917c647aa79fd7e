"""The paths for images, against a real server, by an independent client."""

import email
import email.policy
import hashlib
import io
import json
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.server.identity.records import add
from tests.support.http_server import RunningHttpServer, problem, shape
from tests.support.image_comparison import mean_abs_difference, open_exact, reference
from tests.support.images import alpha_photo, encode, garbage, jpeg, truncated

IMAGE = jpeg(400, 200)
BROWSER = "image/avif,image/webp,image/apng,*/*;q=0.8"

StartHttp = Callable[..., RunningHttpServer]


@pytest.fixture
def start() -> Iterator[StartHttp]:
    with ExitStack() as stack:
        yield lambda *arguments: stack.enter_context(RunningHttpServer("--workers", "1", *arguments))


@pytest.fixture
def client(http_server: RunningHttpServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=http_server.url, timeout=60) as one:
        yield one


# Results


def test_one_result(client: httpx.Client) -> None:
    response = client.post("/resize?width=80&height=60", content=IMAGE, headers={"X-Request-Id": "seven"})
    assert response.status_code == 200
    assert mean_abs_difference(open_exact(response.content), reference(IMAGE, 80, 60)) < 6
    headers = response.headers
    assert headers["Content-Type"] == "image/jpeg"
    assert headers["ETag"] == f'"{hashlib.blake2b(response.content, digest_size=16).hexdigest()}"'
    assert headers["Vipsrv-Source"] == (
        f"jpeg;width=400;height=200;pages=1;has_alpha=?0;orientation=1;size={len(IMAGE)}"
    )
    assert headers["Vipsrv-Result"] == f"jpeg;width=80;height=60;quality=85;size={len(response.content)}"
    assert float(headers["Vipsrv-Ratio"]) == pytest.approx(len(IMAGE) / len(response.content), abs=0.001)
    assert headers["X-Request-Id"] == "seven"
    assert headers["X-Content-Type-Options"] == "nosniff"
    stages = dict(stage.split(";dur=") for stage in headers["Server-Timing"].split(", "))
    assert all(float(ms) >= 0 for ms in stages.values())
    assert float(stages["total"]) >= float(stages["process"]) > 0
    again = client.post(
        "/resize?width=80&height=60", content=IMAGE, headers={"If-None-Match": headers["ETag"]}
    )
    assert (again.status_code, again.headers["ETag"]) == (200, headers["ETag"])


def test_a_chunked_body(client: httpx.Client) -> None:
    response = client.post("/resize?width=80", content=iter([IMAGE[:100], IMAGE[100:]]))
    assert shape(response.content) == ("JPEG", (80, 40))
    assert f"size={len(IMAGE)}" in response.headers["Vipsrv-Source"]


def test_a_content_type_is_not_trusted(client: httpx.Client) -> None:
    for content_type in ("image/png", "text/html", "application/x-www-form-urlencoded"):
        response = client.post("/resize?width=8", content=IMAGE, headers={"Content-Type": content_type})
        assert response.headers["Content-Type"] == "image/jpeg"


def test_names_of_sharp(client: httpx.Client) -> None:
    parameters = {"width": "60", "height": "60", "fit": "cover", "gravity": "northeast", "toFormat": "webp"}
    response = client.post("/resize", params={**parameters, "withoutEnlargement": "true"}, content=IMAGE)
    assert shape(response.content) == ("WEBP", (60, 60))


def test_auto_and_accept(client: httpx.Client) -> None:
    for accept, format_ in ((BROWSER, "avif"), ("image/webp", "webp"), ("*/*", "jpeg")):
        response = client.post("/resize?width=80&format=auto", content=IMAGE, headers={"Accept": accept})
        assert response.headers["Content-Type"] == f"image/{format_}"
        assert response.headers["Vary"] == "Accept"


def test_several_results_as_parts(client: httpx.Client) -> None:
    response = client.post("/resize?outputs=80x,40x40,x50&format=webp", content=IMAGE)
    head = f"Content-Type: {response.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, EmailMessage, policy=email.policy.HTTP)
    parts = list(message.iter_parts())
    assert [part.get_filename() for part in parts] == ["80x40.webp", "40x40.webp", "100x50.webp"]
    for part, size in zip(parts, ((80, 40), (40, 40), (100, 50)), strict=True):
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        assert part["Content-Length"] == str(len(data))
        assert shape(data) == ("WEBP", size)
    again = client.post("/resize?outputs=80x,40x40,x50&format=webp", content=IMAGE)
    assert (again.content, again.headers["ETag"]) == (response.content, response.headers["ETag"])


def test_several_results_as_a_zip_file(client: httpx.Client, tmp_path: Path) -> None:
    response = client.post(
        "/resize?outputs=80x,80x,1000x&format=png", content=IMAGE, headers={"Accept": "application/zip"}
    )
    assert response.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["80x40-1.png", "80x40-2.png", "1000x500.png"]
        assert shape(archive.read("1000x500.png")) == ("PNG", (1000, 500))
    if (unzip := shutil.which("unzip")) is not None:
        path = tmp_path / "results.zip"
        path.write_bytes(response.content)
        subprocess.run([unzip, "-tq", path], check=True, capture_output=True, timeout=30)


def test_results_in_a_file_are_sent_in_the_same_way(start: StartHttp) -> None:
    """Results of more than 8 MiB together go through a file of the spool."""
    noise = encode(Image.frombytes("RGB", (2000, 1500), random.Random(13).randbytes(9_000_000)), "PNG")
    response = httpx.post(
        f"{start().url}/resize?outputs=2000x1500,1000x&format=png",
        content=noise,
        headers={"Accept": "application/zip"},
        timeout=60,
    )
    assert len(response.content) > 8 << 20
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert shape(archive.read("1000x750.png")) == ("PNG", (1000, 750))


# Documents


def test_info(client: httpx.Client) -> None:
    response = client.post("/info", content=encode(alpha_photo(40, 30), "PNG"))
    source = response.json()["source"]
    assert (source["format"], source["width"], source["has_alpha"]) == ("png", 40, True)


def test_formats(client: httpx.Client) -> None:
    described = client.get("/formats").json()
    assert {"jpeg", "png", "webp", "avif"} <= set(described["formats"]["out"])
    assert described["limits"]["max_upload"] > 0
    head = client.head("/formats")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) > 100


def test_the_openapi_document(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")


# Refusals


@pytest.mark.parametrize(
    ("target", "content", "status", "code"),
    [
        ("/resize?width=8", garbage(), 415, "unsupported_format"),
        ("/resize?width=8", truncated(IMAGE), 422, "corrupt_image"),
        ("/resize?width=8", b"", 400, "bad_request"),
        ("/resize", IMAGE, 400, "bad_request"),
        ("/resize?width=8&fit=fill", IMAGE, 400, "bad_request"),
        ("/resize?width=0", IMAGE, 400, "bad_request"),
        ("/resize?width=60000&height=60000", IMAGE, 413, "too_large"),
        ("/resize?width=8&lossless=true", IMAGE, 400, "bad_request"),
        ("/info?width=8", IMAGE, 400, "bad_request"),
        ("/nothing", IMAGE, 404, "not_found"),
        ("/formats", IMAGE, 405, "method_not_allowed"),
    ],
)
def test_a_refusal_is_a_problem(
    client: httpx.Client, target: str, content: bytes, status: int, code: str
) -> None:
    problem(client.post(target, content=content), status, code)


def test_a_method_that_is_not_allowed(client: httpx.Client) -> None:
    response = client.get("/resize?width=8")
    problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "POST, OPTIONS"


def test_a_busy_server_says_when_to_try_again(start: StartHttp, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    token = add(tokens, limits={"requests_per_second": 0.01})
    url = start("--tokens", str(tokens)).url
    headers = {"Authorization": f"Bearer {token.text}"}
    responses = [
        httpx.post(f"{url}/resize?width=8", content=IMAGE, headers=headers, timeout=60) for _ in range(2)
    ]
    assert responses[0].status_code == 200
    found = problem(responses[1], 429, "busy")
    assert found["retryable"] is True
    assert int(responses[1].headers["Retry-After"]) == -(-found["retry_after_ms"] // 1000)


# Tokens


def test_tokens(start: StartHttp, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    token = add(tokens, "shop", limits={"formats": ["jpeg", "webp"], "max_pixels": 100_000})
    url = start("--tokens", str(tokens)).url
    with httpx.Client(base_url=url, timeout=60) as client:
        refused = client.post("/resize?width=8", content=IMAGE)
        problem(refused, 401, "unauthorized")
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="vipsrv"'
        wrong = client.post("/resize?width=8", content=IMAGE, headers={"Authorization": "Bearer guessed"})
        problem(wrong, 401, "unauthorized")
        assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="vipsrv", error="invalid_token"'
        problem(client.get("/formats"), 401, "unauthorized")
        assert client.get("/openapi.json").status_code == 200
        assert client.options("/resize").status_code == 204
        client.headers["Authorization"] = f"Bearer {token.text}"
        assert client.post("/resize?width=8", content=IMAGE).status_code == 200
        problem(client.post("/resize?width=8&format=png", content=IMAGE), 415, "unsupported_format")
        problem(client.post("/resize?width=1000", content=IMAGE), 413, "too_large")
        auto = client.post("/resize?width=8&format=auto", content=IMAGE, headers={"Accept": BROWSER})
        assert auto.headers["Content-Type"] == "image/webp"
        described = client.get("/formats").json()
        assert described["identity"] == "shop"
        assert set(described["formats"]["out"]) == {"jpeg", "webp"}


# Browsers


def test_pages_of_other_origins(start: StartHttp) -> None:
    origin = "https://example.com"
    url = start("--cors-origin", origin).url
    preflight = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    with httpx.Client(base_url=url, timeout=60) as client:
        asked = client.options("/resize?width=8", headers=preflight)
        assert asked.status_code == 204
        assert asked.headers["Access-Control-Allow-Origin"] == origin
        assert "authorization" in asked.headers["Access-Control-Allow-Headers"].lower()
        for target, status in (("/resize?width=8", 200), ("/resize?w=8", 400), ("/nothing", 404)):
            response = client.post(target, content=IMAGE, headers={"Origin": origin})
            assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (status, origin)
            assert "Vipsrv-Result" in response.headers["Access-Control-Expose-Headers"]
        other = client.post("/resize?width=8", content=IMAGE, headers={"Origin": "https://example.org"})
        assert (other.status_code, other.headers["Vary"]) == (200, "Origin")
        assert "Access-Control-Allow-Origin" not in other.headers


# The log


def test_the_log_has_the_ids(start: StartHttp) -> None:
    server = start("--log-format", "json")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"X-Request-Id": "order 7", "traceparent": trace}
    httpx.post(f"{server.url}/resize?width=8", content=IMAGE, headers=headers, timeout=60)
    server.wait_for_log("order 7")
    (line,) = [json.loads(one) for one in server.log.splitlines() if "order 7" in one]
    assert line["protocol"] == "http"
    assert line["status"] == 200
