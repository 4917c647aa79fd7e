"""Every variant is compared with the default, which has no difference to itself."""

from pathlib import Path

import pytest

from bench.tools import webp_effort
from tests.support.images import jpeg


def test_a_line_for_each_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg(1000, 700))
    webp_effort.main([path], rounds=1)
    _, _, default, *others = capsys.readouterr().out.splitlines()
    assert default == f"| {webp_effort.DEFAULT} | 1.00 | 1.000 | +0.0000 | +0.0000 |"
    assert len(others) == len(webp_effort.VARIANTS) - 1
    fewer = next(line for line in others if "effort 4, quality 81" in line).split(" | ")
    assert float(fewer[2]) < 1
    assert float(fewer[3]) < 0
