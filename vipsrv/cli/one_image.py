"""One image of ``vipsrv-client``: its request, and the files of its results."""

import errno
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vipsrv.cli.output_files import (
    check_folder,
    check_output_file,
    ending_of,
    output_file,
    output_files,
    write_all,
)
from vipsrv.cli.server_choice import Answer, CallServer
from vipsrv.cli.upload import UploadImage, upload_progress
from vipsrv.cli.upload_ids import content_id
from vipsrv.client import Client, ResizedImage, ResizeResults, Version1Client, Version1Result
from vipsrv.client.resume import RESUMABLE_FROM, UploadId
from vipsrv.options import Placeholder, ResizeOptions

STANDARD_OUTPUT = Path("-")


@dataclass(frozen=True, slots=True)
class ResultPlace:
    """Where the results of an image are saved: a file, a folder, standard output or beside the image."""

    image: UploadImage
    output: Path | None
    several: bool

    def check(self) -> None:
        """Check before anything is sent that the results can be saved. Raises ``ValueError``, ``OSError``."""
        output = self.output
        if output is None:
            check_folder(self.image.named.parent)
        elif self.several:
            if output == STANDARD_OUTPUT:
                raise ValueError("--output - takes one result, and --output-sizes makes several")
            check_folder(output)
        elif output != STANDARD_OUTPUT:
            check_output_file(self.image.origin, output)
        elif sys.stdout is None:
            raise OSError(errno.EBADF, "standard output is closed")

    def save(self, asked: Sequence[ResizeOptions], results: Sequence[ResizedImage]) -> list[Path | None]:
        """Save the results and return the path of each, or ``None`` for standard output."""
        named = self.image.named
        if self.output == STANDARD_OUTPUT:
            write_all(results[0].data, sys.stdout.buffer)
            return [None]
        if self.several:
            files = output_files(named, self.output, asked, results)
        else:
            files = [output_file(named, self.output, ending_of(asked[0].format, results[0].format))]
        for file in files:
            file.check(self.image.origin)
        return [file.save(result) for file, result in zip(files, results, strict=True)]


def resize_one(
    server: CallServer,
    image: UploadImage,
    outputs: tuple[ResizeOptions, ...],
    deadline_ms: int | None,
    upload_id: str | None = None,
    placeholder: Sequence[Placeholder] = (),
) -> Answer[ResizeResults]:
    """Send an image, with a progress bar if it is large. Raises the errors of ``Client``.

    Without an ``upload_id`` a large image gets one by its content.
    """
    chosen: UploadId | None = upload_id
    if upload_id is None and image.size >= RESUMABLE_FROM:
        chosen = partial(content_id, image)

    def request(client: Client) -> ResizeResults:
        with upload_progress(server.program, image, quiet=server.quiet) as progress:
            return client.resize_all(
                image.content,
                outputs,
                deadline_ms=deadline_ms,
                placeholder=tuple(placeholder),
                on_sent=progress.on_sent,
                upload_id=chosen,
                on_resumed=progress.on_resumed,
            )

    return server.ask(request)


def resize_over_version_1(
    server: CallServer, image: UploadImage, size: tuple[int, int]
) -> Answer[Version1Result]:
    """Send an image over version 1 of the protocol. Raises the errors of ``Version1Client``."""

    def request(client: Version1Client) -> Version1Result:
        with upload_progress(server.program, image, quiet=server.quiet) as progress:
            return client.resize(image.content, width=size[0], height=size[1], on_sent=progress.on_sent)

    return server.ask_version_1(request)
