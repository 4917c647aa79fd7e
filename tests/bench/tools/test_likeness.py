"""The table of what ``min_ssim`` costs: a run over a small image."""

from pathlib import Path

from typer import Typer
from typer.testing import CliRunner

from bench.tools.likeness import main
from tests.support.images import jpeg


def test_the_table_of_an_image(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(160, 120))
    app = Typer()
    app.command()(main)
    size = ["--width", "80", "--height", "60"]
    done = CliRunner().invoke(app, [str(tmp_path), "--formats", "jpeg", "--likenesses", "0.8,0.9,1", *size])
    assert done.exit_code == 0, done.output
    loose, strict, equal = (line.split() for line in done.output.splitlines() if line.startswith("jpeg"))
    assert (loose[1], strict[1], equal[1]) == ("0.8", "0.9", "1.0")
    assert int(loose[4]) < int(strict[4])  # the quality
    assert " ".join(equal[2:]) == "no image reaches it"
