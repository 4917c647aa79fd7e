"""``vipsrv top`` on a terminal: the figures once, or on the whole screen until ctrl-C.

Colours follow NO_COLOR and TERM; the size is that of the terminal at each event.
"""

import time
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.live import Live

from vipsrv.address import Address
from vipsrv.cli.ops_stream import Event, open_stream
from vipsrv.cli.top_view import TopView
from vipsrv.errors import ClientTimeout, ConnectFailed, ConnectionLost
from vipsrv.printable import printable

_RETRY_SECONDS = 2.0


def print_once(address: Address, timeout: float) -> None:
    """Print the figures. Raises what ``open_stream`` raises."""
    console = Console(highlight=False)
    view = TopView(printable(str(address)))
    known = set()
    with open_stream(address, timeout) as events:
        for name, data in events:
            view.take(name, data)
            known.add(name)
            if known >= {"history", "errors", "live"}:
                console.print(view.render(width=console.width))
                return


def run_screen(address: Address, timeout: float) -> None:
    """Show the figures for ever. Raises ``ConnectFailed`` or ``ClientTimeout`` if there are none at first."""
    _Screen(address, timeout, Console(highlight=False)).run()


class _Screen:
    """The figures on the whole terminal. A stream that stops is opened again."""

    def __init__(self, address: Address, timeout: float, console: Console) -> None:
        self._address = address
        self._timeout = timeout
        self._console = console
        self._view = TopView(printable(str(address)))

    def run(self) -> None:
        """Show the figures for ever."""
        with open_stream(self._address, self._timeout) as events, self._live() as live:
            self._show_until_lost(events, live)
        with self._live() as live:
            while True:
                live.update(self._render(), refresh=True)
                time.sleep(_RETRY_SECONDS)
                try:
                    with open_stream(self._address, self._timeout) as events:
                        self._show_until_lost(events, live)
                except (ConnectFailed, ClientTimeout) as error:
                    self._view.fault = str(error)

    def _live(self) -> Live:
        return Live(
            self._render(),
            console=self._console,
            screen=True,
            auto_refresh=False,
            vertical_overflow="crop",
        )

    def _show_until_lost(self, events: Iterator[Event], live: Live) -> None:
        try:
            for name, data in events:
                self._view.take(name, data)
                live.update(self._render(), refresh=True)
        except (ConnectionLost, ClientTimeout) as error:
            self._view.fault = str(error)

    def _render(self) -> RenderableType:
        return self._view.render(width=self._console.width)
