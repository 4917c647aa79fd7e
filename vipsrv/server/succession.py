"""A server in the row of its predecessors and successors: takes the listening sockets, and hands them over.

Both ends of a hand-over (``handover``) in one server, and what the server listens on at all: the sockets of
the server whose place it takes, or else those that systemd has opened, or else addresses of its own.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from vipsrv.address import Address, Wire
from vipsrv.errors import StartFailed
from vipsrv.server.handover import ControlSocket, HandoverState, OfferedListeners, Takeover
from vipsrv.server.listening_sockets import OpenListener
from vipsrv.server.settings import ServerSettings

_WITH_SUCCESSOR = (HandoverState.OFFERED, HandoverState.HANDED_OVER)
"""The states in which another server has the listening sockets, too."""

_log = logging.getLogger(__name__)


class Succession:
    """Where the ``listeners`` of a server come from, and where they go: ``begin``, ``finish``, ``close``.

    ``inherited`` are the sockets that systemd has opened. ``on_handed_over`` and ``on_shared`` are as for
    ``ControlSocket``; this one calls the latter as well while the server before it still accepts clients.
    """

    def __init__(
        self,
        listeners: OfferedListeners,
        inherited: Sequence[OpenListener],
        on_handed_over: Callable[[int | None], None],
        on_shared: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._listeners = listeners
        self._on_shared = on_shared
        self._inherited = inherited
        self._control = ControlSocket(listeners, on_handed_over, on_shared)
        self._takeover: Takeover | None = None

    @property
    def takes_over(self) -> bool:
        """Whether the server has the listeners of one whose place it takes."""
        return self._takeover is not None

    @property
    def is_handed_over(self) -> bool:
        """Whether a successor has taken the place of this server."""
        return self._control.state is HandoverState.HANDED_OVER

    @property
    def sockets_live_on(self) -> bool:
        """Whether the listening sockets stay open when this server ends: others have them, too."""
        return bool(self._inherited) or self._control.state in _WITH_SUCCESSOR

    async def begin(self, settings: ServerSettings) -> Sequence[OpenListener]:
        """Return the sockets to use instead of the addresses in the settings, if there are any, and prepare
        the control socket. Raises ``StartFailed``.
        """
        given = _wanted(await self._given(settings), settings)
        given_for_clients = [one for one in given if one.address.wire is not Wire.OPS]
        unused = sorted(settings.model_fields_set & {"host", "port", "listen"}) if given_for_clients else []
        if any(one.address.wire is Wire.OPS and one.address != settings.ops_address for one in given):
            unused.append("ops-listen")
        if unused:
            _log.warning(
                "%s: passed over, because the server listens on the sockets that it was given",
                ", ".join(f"--{name}" for name in unused),
            )
        return given

    async def _given(self, settings: ServerSettings) -> Sequence[OpenListener]:
        control = settings.control
        if control is None:
            if settings.takeover:
                raise StartFailed(
                    "--takeover needs --control, the path of the running server's control socket"
                )
            return self._inherited
        if settings.takeover:
            self._takeover = await Takeover.begin(control)
            if self._takeover is not None:
                self._listeners.shared = True
                self._on_shared(True)
                for unused in self._inherited:  # clients would wait for ever
                    unused.sock.close()
                return self._takeover.listeners
            _log.info("no server runs at --control %s, so there is none to take over", control)
        self._control.open(control)
        return self._inherited

    async def finish(self) -> None:
        """Make the server stop whose place this one takes, now that this one accepts clients; then answer
        successors of this one. Raises ``StartFailed``.
        """
        if self._takeover is not None:
            await self._takeover.finish()
            self._listeners.shared = False
            self._on_shared(False)
            self._control.adopt(self._takeover.control)
        self._control.start()

    def close(self) -> None:
        """Answer no more successors."""
        self._control.close()

    def abandon(self) -> None:
        """Let the server go on whose place this one has not taken yet, and answer no successors."""
        if self._takeover is not None:
            self._takeover.abandon()
        self._control.close()


def _wanted(given: Sequence[OpenListener], settings: ServerSettings) -> Sequence[OpenListener]:
    """Close the sockets for an operator if there is to be no listener for one, and return the others."""
    if settings.ops_address is not None:
        return given
    for one in given:
        if one.address.wire is Wire.OPS:
            one.sock.close()
    return [one for one in given if one.address.wire is not Wire.OPS]


@contextmanager
def may_lack_default(settings: ServerSettings) -> Iterator[None]:
    """Let a server start without the operator's listener if its default address cannot be had.

    Raises ``StartFailed`` if the operator has chosen the address.
    """
    try:
        yield
    except StartFailed as error:
        if "ops_listen" in settings.model_fields_set:
            raise StartFailed(f"--ops-listen: {error}") from None
        _log.warning(
            "no metrics and no health over HTTP: %s by --ops-listen; 'off' there ends this warning", error
        )


def addresses_of(settings: ServerSettings) -> list[Address]:
    """Return the addresses to listen on for clients if no sockets are given."""
    listen = [Address.parse(text) for text in settings.listen]
    return listen or [Address(settings.host, settings.port)]
