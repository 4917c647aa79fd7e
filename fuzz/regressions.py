"""Inputs that are kept as tests, because they once showed a bug or reached code that no other input reached.

    python -m fuzz.regressions TARGET FILE …     # adds the files to those of the target

Those of a fuzz target are lines of base64 in ``fuzz/regressions/TARGET.txt``, one line per input. Images that
go through the whole pipeline are files in ``fuzz/regressions/images``. ``tests/fuzz`` runs all of them.
"""

import argparse
import base64
import sys
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "regressions"
IMAGES = FOLDER / "images"


def kept(target: str, folder: Path = FOLDER) -> list[bytes]:
    """Return the inputs that are kept for a target; an empty list if there are none."""
    path = folder / f"{target}.txt"
    if not path.exists():
        return []
    return [base64.b64decode(line, validate=True) for line in path.read_text().splitlines()]


def keep(target: str, inputs: Iterable[bytes], folder: Path = FOLDER) -> int:
    """Add inputs to those of a target, each once, and return how many it has then."""
    every = sorted({*kept(target, folder), *inputs}, key=lambda one: (len(one), one))
    folder.mkdir(exist_ok=True)
    lines = [base64.b64encode(one).decode() + "\n" for one in every]
    (folder / f"{target}.txt").write_text("".join(lines))
    return len(every)


def main() -> int:
    """Keep the files that are named on the command line."""
    from fuzz.targets import TARGETS  # noqa: PLC0415 - the targets import libvips, which `kept` does not need

    parser = argparse.ArgumentParser(prog="python -m fuzz.regressions", description=__doc__)
    parser.add_argument("target", choices=TARGETS, metavar="TARGET")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    count = keep(arguments.target, (path.read_bytes() for path in arguments.files))
    print(f"{count} inputs are kept for {arguments.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
