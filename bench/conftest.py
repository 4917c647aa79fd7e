"""The options of the suites.

pytest reads options only from the conftest.py of a folder named on the command line (``python -m pytest
bench``), not from that of a folder below it.
"""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose the images and how long they are measured."""
    group = parser.getgroup("bench", "benchmark suites of vipsrv")
    group.addoption("--quick", action="store_true", help="few images, short rounds: less than three minutes")
    group.addoption(
        "--corpus", metavar="DIR", type=Path, help="measure every file of this folder instead of the images"
    )
