"""A wrong argument is reported in a line that names it, before a server is started."""

import importlib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("overhead", "--image nosuch.jpg", "nosuch.jpg is unknown; known are jpeg-0.3mp.jpg"),
        ("outputs", "nosuch.jpg", "nosuch.jpg is unknown"),
        ("giant", "strip-400mp.tif nosuch.tif", "nosuch.tif is unknown"),
        ("memory", "nosuch.tif", "nosuch.tif is unknown"),
        ("overhead", "--rounds 0", "--rounds"),
        ("overhead", "--requests 0", "--requests"),
        ("overhead", "--width 0", "--width"),
        ("overhead", "--height 0", "--height"),
        ("gateway", "--rounds 0", "--rounds"),
        ("gateway", "--connections 0", "--connections"),
        ("gateways", "--gateways 1", "--gateways"),
        ("latency", "--rounds 0", "--rounds"),
        ("latency", "--small 0", "--small"),
        ("memory", "--workers 0", "--workers"),
        ("chaos", "--connections 0", "--connections"),
        ("soak", "--minutes 0", "--minutes"),
        ("compare", "--json {folder}/none/a.json", "there is no folder"),
        ("load.__main__", "--json {folder}/none/a.json", "there is no folder"),
        ("gate", "{folder}/result.json --output {folder}/none/a.md", "there is no folder"),
        ("quality", "{folder}/none", "does not exist"),
        ("quality", "{folder}", "there is no image among them"),
    ],
)
def test_a_wrong_argument_is_reported(
    command: str, arguments: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # bench.tools.quality sets it for the libvips of its own process; it is undone behind the test.
    monkeypatch.setenv("VIPS_CONCURRENCY", "1")
    module = importlib.import_module(f"bench.{command}" if "." in command else f"bench.tools.{command}")
    if hasattr(module, "Server"):
        monkeypatch.setattr(module, "Server", lambda *_: pytest.fail("a server was started"))
    app = typer.Typer(rich_markup_mode=None)  # which would break messages into lines
    app.command()(module.main)
    given = [word.format(folder=tmp_path) for word in arguments.split()]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2, result.output
    assert said in result.output
