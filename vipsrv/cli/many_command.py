"""``vipsrv-client`` with several images, folders or patterns: what it shows, and how it ends."""

import asyncio
import errno
import itertools
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from vipsrv.cli.exit_codes import ExitCode
from vipsrv.cli.image_paths import ImagePaths
from vipsrv.cli.many_images import MOST_BYTES, Found, ManyImages, ManyOptions
from vipsrv.cli.many_report import ImageOutcome, Tally, outcome_line
from vipsrv.cli.output_files import check_folder
from vipsrv.cli.progress import Progress, open_progress
from vipsrv.cli.result_names import RESULT_PREFIX, NameTemplate
from vipsrv.cli.server_choice import CallServer
from vipsrv.cli.standard_streams import output_named_in_errors
from vipsrv.cli.upload import STANDARD_INPUT
from vipsrv.client import AsyncClient
from vipsrv.client.image_endings import IMAGE_ENDINGS
from vipsrv.client.window import Window
from vipsrv.errors import VipsrvError
from vipsrv.options import ResizeOptions

TICK_SECONDS = 1.0
"""Seconds between two looks at the progress while no image ends."""


_EXIT_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}

_HINT = {False: "; --recursive looks into its folders, too", True: ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyRequest:
    """What a call for many images asks for. ``images`` are the arguments of the command."""

    images: Sequence[Path]
    recursive: bool
    options: ManyOptions

    def paths(self) -> ImagePaths:
        """Return what lists the images, each time anew."""
        only_file = len(self.images) == 1 and self.images[0].is_file()
        return ImagePaths(
            self.images,
            recursive=self.recursive,
            is_result=(lambda _: False) if only_file else self._is_result,
            skipped=self.options.names.output_folder,
        )

    def _is_result(self, path: Path) -> bool:
        """Whether a file has the name of a result of an earlier run, and what it would be made from is there.

        Of a result in the output folder the image may be anywhere.
        """
        if path.name.startswith(RESULT_PREFIX):
            return True
        match = self.options.names.is_like_a_result(path.name)
        if match is None:
            return False
        if self.options.names.output_folder is not None:
            return self.options.names.output_folder.absolute() in path.absolute().parents
        stem = match["stem"]
        endings = (one for ending in IMAGE_ENDINGS for one in (ending, ending.upper()))
        return any(path.with_name(f"{stem}.{ending}").exists() for ending in endings)


@dataclass(frozen=True, slots=True)
class _End:
    """Why a run ended: all images were done, a signal came (``stopped_by``), or an ``error``."""

    stopped_by: signal.Signals | None = None
    error: Exception | None = None


def many_request(
    images: Sequence[Path],
    outputs: tuple[ResizeOptions, ...],
    *,
    folder: Path | None,
    name: str | None,
    recursive: bool,
    skip_existing: bool,
    deadline_ms: int | None,
    retries: int,
    seconds: float,
    protocol: int,
) -> ManyRequest:
    """Make the request of a call with many images from its arguments. Raises ``ValueError``."""
    if protocol == 1:
        raise ValueError("version 1 of the protocol sends one image; use --protocol 2 for many")
    if images.count(STANDARD_INPUT) > 1:
        raise ValueError("standard input (-) is one image; name it once")
    names = NameTemplate.of(name, outputs, folder)
    options = ManyOptions(
        names=names, deadline_ms=deadline_ms, skip_existing=skip_existing, retries=retries, seconds=seconds
    )
    return ManyRequest(images=images, recursive=recursive, options=options)


def resize_many(server: CallServer, request: ManyRequest, *, quiet: bool, as_json: bool) -> None:
    """Resize the images and show what became of them. Raises the error after which it cannot go on.

    Raises ``typer.Exit`` if some have failed, or after ctrl-C.
    """
    tally, paths = Tally(), request.paths()
    images = iter(paths)
    first = list(itertools.islice(images, 1))
    if not first and not paths.left_out:
        where = ", ".join(map(str, request.images))
        raise FileNotFoundError(errno.ENOENT, "there are no images" + _HINT[request.recursive], where)
    folder = request.options.names.output_folder
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        check_folder(folder, "--output-dir")

    async def work(client: AsyncClient) -> _End:
        window = Window((await client.hello()).limits, servers=len(client.servers), most_bytes=MOST_BYTES)
        tally.started = time.monotonic()  # not counting the start of a server
        with open_progress(server.program, request.paths(), quiet=quiet or as_json) as progress:

            def on_outcome(outcome: ImageOutcome) -> None:
                tally.add(outcome)
                if as_json:
                    with output_named_in_errors():
                        print(outcome_line(outcome), flush=True)  # noqa: T201 - programs read these lines
                progress.show(tally)

            run = ManyImages(client, window, request.options, on_outcome)
            return await _run(run, itertools.chain(first, images), progress, tally)

    end = server.ask_async(work).value if first else _End()
    tally.left_out = paths.left_out
    _finish(server.program, tally, end, quiet=quiet, as_json=as_json)


def _finish(program: str, tally: Tally, end: _End, *, quiet: bool, as_json: bool) -> None:
    """Print the sum and the failures, and raise what the command ends with, if it is not success."""
    if not as_json:
        if not quiet:
            with output_named_in_errors():
                print("\n".join(tally.lines()), flush=True)  # noqa: T201 - the output of the command
        _tell_failures(program, tally)
    if end.error is not None:
        raise end.error
    if end.stopped_by is not None:
        if not (quiet or as_json):
            note = f"stopped by {end.stopped_by.name}; the same command with --skip-existing goes on"
            typer.echo(f"{program}: {note}", err=True)
        raise typer.Exit(_EXIT_CODES[end.stopped_by])
    if tally.failed:
        raise typer.Exit(ExitCode.REFUSED)


async def _run(run: ManyImages, images: Iterator[Found], progress: Progress, tally: Tally) -> _End:
    ticking = asyncio.create_task(_tick(lambda: progress.show(tally)))
    came: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        came.append(number)
        run.stop()
        progress.note("stopping after the images that were sent; once more ends it at once")

    error: Exception | None = None
    try:
        with _on_signal(stop):
            await run.run(images)
    except (VipsrvError, OSError) as raised:
        error = raised
    finally:
        ticking.cancel()
    return _End(came[0] if came else None, error)


async def _tick(show: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(TICK_SECONDS)
        show()


@contextmanager
def _on_signal(stop: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Call ``stop`` at the first ctrl-C or SIGTERM within the block; from then on both act as usual.

    A signal that this process ignores, as one in the background may, is left alone.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _EXIT_CODES}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: object) -> None:
        restore()
        loop.call_soon_threadsafe(stop, signal.Signals(number))

    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def _tell_failures(program: str, tally: Tally) -> None:
    if tally.failed:
        typer.echo(f"{program}: {tally.failed} image{'s' * (tally.failed != 1)} failed:", err=True)
    for line in tally.failure_lines():
        typer.echo(f"  {line}", err=True)
