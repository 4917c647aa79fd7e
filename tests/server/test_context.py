"""The checks that all protocols share."""

from pathlib import Path

import pytest

from tests.server.fakes import FakeWorkers, make_context
from vipsrv.errors import Draining, TooLarge


def test_uploads_are_checked_for_size_and_for_a_drain(tmp_path: Path) -> None:
    context = make_context(tmp_path, FakeWorkers(), max_upload=10)
    context.check_upload(10)
    with pytest.raises(TooLarge, match="11 bytes, 1 over the limit of 10"):
        context.check_upload(11)
    context.draining = context.has_successor = True
    context.check_upload(1)
    context.has_successor = False
    with pytest.raises(Draining):
        context.check_upload(10)
    context.spool.close()
