"""What the server says about the layers that its workers report."""

import logging
import os

import pytest

from vipsrv.workers.confinement import log_confinement, missing_layers


def test_what_is_missing() -> None:
    assert missing_layers(["no-new-privs", "landlock-7", "seccomp"], root=False) == []
    assert missing_layers(["rlimits", "seccomp"], root=False) == ["landlock"]
    assert missing_layers([], root=False) == ["landlock", "seccomp"]
    assert missing_layers(["landlock-7", "seccomp"], root=True) == ["own-uid"]
    assert missing_layers(["own-uid", "landlock-7", "seccomp"], root=True) == []


@pytest.mark.parametrize(
    ("layers", "user", "said"),
    [
        (("landlock-4", "seccomp"), 0, "without own-uid (only landlock-4, seccomp)"),
        (("own-uid", "seccomp"), 0, "that this user may do"),
        (("rlimits", "landlock-4"), 1000, "without seccomp (only rlimits, landlock-4)"),
        ((), 1000, "that this user may do"),
        ((), 0, "that root may do"),
    ],
)
def test_a_missing_layer_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    layers: tuple[str, ...],
    user: int,
    said: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    caplog.set_level(logging.INFO)
    log_confinement(layers)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.message


@pytest.mark.parametrize(
    ("layers", "user"), [(("landlock-4", "seccomp"), 1000), (("own-uid", "landlock-4", "seccomp"), 0)]
)
def test_nothing_is_said_if_none_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, layers: tuple[str, ...], user: int
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    caplog.set_level(logging.DEBUG)
    log_confinement(layers)
    assert caplog.records == []
