"""Parts of the life of a server process that can be tested without a process."""

import logging
import resource

import pytest

from vipsrv.server.serve import _raise_descriptor_limit


def test_a_descriptor_limit_that_cannot_be_raised_is_only_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unlimited_is_refused(_: int, limits: tuple[int, int]) -> None:
        if limits[0] == resource.RLIM_INFINITY:
            raise ValueError("current limit exceeds maximum limit")  # what macOS says

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", unlimited_is_refused)
    with caplog.at_level(logging.WARNING):
        _raise_descriptor_limit()
    assert "the limit of open files stays as it is" in caplog.text
