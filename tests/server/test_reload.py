"""A reload of the settings: all parts take the new ones over, or none does."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from vipsrv.errors import SettingsError
from vipsrv.server.configuration import Configuration, Origin, Source
from vipsrv.server.reload import Outcome, Reloader, ReloadPlan
from vipsrv.server.settings import ServerSettings


class Part:
    """A part of a server that counts what it was given, or refuses it for a reason."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.prepared: list[ServerSettings] = []
        self.taken: list[ServerSettings] = []

    def prepare_reload(self, settings: ServerSettings) -> Callable[[], None]:
        if self.refuses:
            raise SettingsError(self.refuses)
        self.prepared.append(settings)
        return lambda: self.taken.append(settings)


def configuration(*secrets: str, **settings: Any) -> Configuration:
    """Settings as they come from a TOML file, or from files that are secrets."""
    origins = {
        name: Origin(Source.SECRET if name in secrets else Source.FILE, "somewhere")
        for name in ServerSettings.model_fields
    }
    return Configuration(ServerSettings(**settings), origins, None)


def reading(*secrets: str, **settings: Any) -> Callable[[], Configuration]:
    return lambda: configuration(*secrets, **settings)


async def test_every_part_takes_over_what_is_new(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    wanted, parts = ServerSettings(queue=7, drain=3), [Part(), Part()]
    reloader = Reloader(configuration(), reading(queue=7, drain=3), parts)
    report = await reloader.reload()
    assert report.outcome is Outcome.TAKEN_OVER
    assert report.lines == ("queue from 1024 to 7, drain from 30.0 to 3.0",)
    assert [part.taken for part in parts] == [[wanted], [wanted]]
    assert reloader.settings == wanted
    assert caplog.messages == ["the settings were reloaded: queue from 1024 to 7, drain from 30.0 to 3.0"]


async def test_parts_prepare_although_no_value_has_changed() -> None:
    part = Part()  # a file that a setting names may have changed
    report = await Reloader(configuration(), reading(), [part]).reload()
    assert report.lines == ("no value has changed",)
    assert part.taken == [ServerSettings()]


async def test_no_part_takes_over_if_one_refuses(caplog: pytest.LogCaptureFixture) -> None:
    willing = Part()
    parts = [willing, Part("certificate: expired"), Part("tokens: line 3")]
    reloader = Reloader(configuration(), reading(queue=7), parts)
    report = await reloader.reload()
    assert report.outcome is Outcome.REFUSED
    assert report.lines == ("certificate: expired", "tokens: line 3")
    assert (len(willing.prepared), willing.taken) == (1, [])
    assert reloader.settings == ServerSettings()
    assert caplog.messages == ["the settings were not reloaded: certificate: expired; tokens: line 3"]


async def test_settings_that_cannot_be_read_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def read() -> Configuration:
        raise SettingsError("vipsrv.toml:3: queue: must be at least 0")

    part = Part()
    report = await Reloader(configuration(), read, [part]).reload()
    assert report.outcome is Outcome.REFUSED
    assert part.prepared == []
    assert caplog.messages == ["the settings were not reloaded: vipsrv.toml:3: queue: must be at least 0"]


async def test_what_cannot_be_reloaded_stays_and_is_named_every_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    part = Part()
    reloader = Reloader(configuration(workers=2), reading(port=1, workers=3, queue=7), [part])
    for changes in ("queue from 1024 to 7", "no value has changed"):
        caplog.clear()
        report = await reloader.reload()
        named = "these settings have changed and need a restart: port, workers"
        assert report.lines == (changes, named)
        assert caplog.messages[-1] == named
    assert part.taken == [ServerSettings(workers=2, queue=7)] * 2


@pytest.mark.parametrize("name", sorted(ServerSettings.model_fields.keys() - ServerSettings.reloadable()))
def test_a_plan_keeps_each_setting_that_cannot_be_reloaded(name: str) -> None:
    running = ServerSettings()
    plan = ReloadPlan.between(running, running.model_copy(update={name: "another"}))
    assert (plan.changed, plan.kept) == ((), (name,))
    assert plan.settings == running


async def test_a_secret_is_not_shown() -> None:
    reloader = Reloader(configuration("user", user="a"), reading("user", "host", user="b", drain=1), [])
    report = await reloader.reload()
    assert report.lines[0] == "drain from 30.0 to 1.0"
    hidden = Reloader(configuration(), reading("drain", drain=1), [])
    assert (await hidden.reload()).lines == ("drain from 30.0 to (secret)",)
