"""Gives a running server new settings: as a whole, or not at all.

::

    read ──► plan ──► every part prepares ──► every part takes over     TAKEN_OVER
      │                    │
      └── SettingsError ◄──┘                                            REFUSED, and nothing has changed

Each part of the server that has something to take over is ``Reloadable``. It first loads and checks what is
new, which may fail, and then takes it over, which cannot.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from pydantic import ValidationError

from vipsrv.errors import SettingsError
from vipsrv.server.configuration import Configuration
from vipsrv.server.settings import ServerSettings

_log = logging.getLogger(__name__)

TakeOver = Callable[[], None]
"""Takes over what was prepared. It must not fail."""


class Reloadable(Protocol):
    """A part of the server that can be given new settings."""

    def prepare_reload(self, settings: ServerSettings) -> TakeOver:
        """Load and check everything that is new, and return what takes it over. Raises ``SettingsError``.

        Nothing may change before the returned function is called; it is not called if another part refuses.
        """


class RemoteReloadable(Protocol):
    """Parts of the server in other processes that can be given new settings, like ``Reloadable``."""

    async def prepare_reload(self, settings: ServerSettings) -> Callable[[], Awaitable[None]]:
        """Let them all prepare, and return what makes them all take over. Raises ``SettingsError``."""


class Outcome(StrEnum):
    """How a reload ended."""

    TAKEN_OVER = "taken over"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """What a reload has done; ``lines`` are for the operator, one fact each."""

    outcome: Outcome
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """The settings that a running server takes over, and what a reload changes and leaves.

    ``changed`` are the names of the settings that are taken over, ``kept`` of those that differ as well but
    cannot be reloaded.
    """

    settings: ServerSettings
    changed: tuple[str, ...]
    kept: tuple[str, ...]

    @classmethod
    def between(cls, running: ServerSettings, wanted: ServerSettings) -> "ReloadPlan":
        """Plan the way from the ``running`` settings to ``wanted``.

        Raises ``SettingsError`` if what can be reloaded does not fit to what cannot.
        """
        differ = [
            name for name in ServerSettings.model_fields if getattr(running, name) != getattr(wanted, name)
        ]
        reloadable = ServerSettings.reloadable()
        kept = tuple(name for name in differ if name not in reloadable)
        changed = tuple(name for name in differ if name in reloadable)
        if not kept:
            return cls(wanted, changed, kept)
        values = {
            name: getattr(running if name in kept else wanted, name) for name in ServerSettings.model_fields
        }
        try:
            return cls(ServerSettings(**values), changed, kept)
        except ValidationError as error:
            reasons = "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors())
            raise SettingsError(f"{', '.join(kept)} cannot be reloaded, and without: {reasons}") from None


def prepare_all(parts: Sequence[Reloadable], settings: ServerSettings) -> TakeOver:
    """Make every part prepare, and return what takes everything over. Raises ``SettingsError``.

    All faults are in the error, not only those of the first part that refuses.
    """
    prepared: list[TakeOver] = []
    faults: list[str] = []
    for part in parts:
        try:
            prepared.append(part.prepare_reload(settings))
        except SettingsError as error:
            faults.extend(error.faults)
    if faults:
        raise SettingsError(*faults)

    def take_over() -> None:
        for one in prepared:
            one()

    return take_over


class Reloader:
    """Reloads the settings of a running server.

    It was started with ``running``, ``read`` reads what is to follow and raises ``SettingsError``, and
    ``parts`` are the parts of the server that are given it, and ``remote`` those of other processes.
    """

    def __init__(
        self,
        running: Configuration,
        read: Callable[[], Configuration],
        parts: Sequence[Reloadable],
        remote: RemoteReloadable | None = None,
    ) -> None:
        self._remote = remote
        self._running = running
        self._read = read
        self._parts = parts

    @property
    def settings(self) -> ServerSettings:
        """The settings of the server now."""
        return self._running.settings

    async def reload(self) -> ReloadReport:
        """Read the settings and let all parts take them over, or none; log what was done."""
        try:
            wanted = await asyncio.to_thread(self._read)
            plan = ReloadPlan.between(self.settings, wanted.settings)
            take_over = prepare_all(self._parts, plan.settings)
            take_over_elsewhere = (
                None if self._remote is None else await self._remote.prepare_reload(plan.settings)
            )
        except SettingsError as error:
            _log.error("the settings were not reloaded: %s", error)
            return ReloadReport(Outcome.REFUSED, error.faults)
        take_over()
        if take_over_elsewhere is not None:
            await take_over_elsewhere()
        before, self._running = self._running, replace(wanted, settings=plan.settings)
        lines = _describe(before, self._running, plan)
        _log.info("the settings were reloaded: %s", lines[0])
        for line in lines[1:]:
            _log.warning("%s", line)
        return ReloadReport(Outcome.TAKEN_OVER, tuple(lines))


def _describe(before: Configuration, after: Configuration, plan: ReloadPlan) -> list[str]:
    """Return a line for what has changed, and one for what a reload cannot change if there is any."""
    changes = [f"{name} from {before.shown(name)} to {after.shown(name)}" for name in plan.changed]
    lines = [", ".join(changes) or "no value has changed"]
    if plan.kept:
        lines.append(f"these settings have changed and need a restart: {', '.join(plan.kept)}")
    return lines
