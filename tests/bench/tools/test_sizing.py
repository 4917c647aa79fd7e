"""The tool that measures the size of a server, with few requests."""

import re

import pytest

from bench.tools.sizing import SMALL, main


def test_it_prints_memory_and_requests(capsys: pytest.CaptureFixture[str]) -> None:
    main([SMALL], workers=1, requests=8)
    text = capsys.readouterr().out
    rest = re.search(r"gateway: (\d+) MB, a worker: (\d+) MB, an idle connection: (-?[\d.]+) KB", text)
    assert rest is not None
    assert all(5 < int(megabytes) < 200 for megabytes in rest.groups()[:2])
    (row,) = re.findall(rf"(?m)^\| {re.escape(SMALL)} \| [\d,]+ \| ([\d.]+) \| ([\d.]+) \| (\d+) \|", text)
    each, own, rate = map(float, row)
    assert 0 < own < each
    assert rate == pytest.approx(1000 / each, rel=0.05)
