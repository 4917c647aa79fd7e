"""``vipsrv batch SOURCE DESTINATION``: resize the images of a folder, a bucket or a list of keys."""

import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from vipsrv.batch.stores.interface import Source
from vipsrv.batch.stores.key_entries import ListFormat
from vipsrv.cli.batch_reports import EXIT_CODES as REPORT_EXIT_CODES
from vipsrv.cli.batch_reports import report, status, use_little_memory
from vipsrv.cli.batch_values import nanoseconds, parse_moment, parse_share, result_options
from vipsrv.cli.default_command import DEFAULT_COMMAND, DefaultCommand, GroupWithDefault
from vipsrv.cli.exit_codes import BATCH_EXIT_CODES, batch_errors
from vipsrv.cli.operation_flags import with_operations
from vipsrv.cli.resize_flags import (
    BackgroundFlag,
    DeadlineFlag,
    EffortFlag,
    EnlargeFlag,
    FitFlag,
    KeepFlag,
    LosslessFlag,
    MaxBytesFlag,
    PageFlag,
    PagesFlag,
    PositionFlag,
    QualityFlag,
    TokenFileFlag,
    deadline_in_ms,
)
from vipsrv.cli.result_options import parse_bytes
from vipsrv.cli.retry_codes import OPTION as RETRY_FAILED
from vipsrv.cli.retry_codes import join_codes, parse_codes
from vipsrv.cli.tls_options import Ca, Cert, Key, Tls, TlsOptions
from vipsrv.client.login_token import choose_token
from vipsrv.options import Format, Keep, Position

PROGRAM = "vipsrv batch"

batch_app = typer.Typer(
    name="batch",
    cls=GroupWithDefault,
    help="Resize many images: those of a folder, a bucket or a list of keys.",
    rich_markup_mode=None,
)


class EngineName(StrEnum):
    """Where the work is done."""

    LOCAL = "local"
    RAY = "ray"


class _BatchCommand(DefaultCommand):
    """Takes the codes that follow ``--retry-failed`` as its value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        return super().parse_args(ctx, join_codes(args))


@batch_app.command(DEFAULT_COMMAND, cls=_BatchCommand, epilog=BATCH_EXIT_CODES, no_args_is_help=True)
@with_operations
def batch(
    source: Annotated[
        str,
        typer.Argument(
            help="Where the images are: a folder, a list of keys (.txt, .jsonl, .parquet) or a bucket "
            "(s3://, gs://, az://, or what fsspec knows).",
            metavar="SOURCE",
            show_default=False,
        ),
    ],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION", help="Where the results go: a folder or a bucket.", show_default=False
        ),
    ],
    *,
    sizes: Annotated[
        str,
        typer.Option(
            metavar="SIZES",
            help="The results of each image, for example 320x,x480,800x600; one side keeps the proportions.",
            show_default=False,
        ),
    ],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMATS",
            help="Format of the results, or several, each of which is made in all sizes: "
            f"{', '.join(Format)}; auto keeps that of the image if the server can write it.",
        ),
    ] = Format.JPEG.value,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="TEMPLATE",
            help="Name of a result within the destination, from {folder}, {stem}, {source_ext}, {size}, "
            "{width}, {height}, {format} and {ext}.  [default: {folder}{stem}_{size}.{ext}]",
        ),
    ] = None,
    fit: FitFlag = None,
    position: PositionFlag = Position.CENTRE,
    quality: QualityFlag = None,
    effort: EffortFlag = None,
    lossless: LosslessFlag = False,
    max_bytes: MaxBytesFlag = None,
    background: BackgroundFlag = "#ffffff",
    keep: KeepFlag = Keep.NONE,
    page: PageFlag = 0,
    pages: PagesFlag = None,
    enlarge: EnlargeFlag = True,
    operations: dict[str, Any],
    deadline: DeadlineFlag = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Take only images whose key matches, for example '*.jpg' or '2024/**'; may be repeated.  "
            "[default: what ends as images do]",
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Leave out images whose key matches; may be repeated."),
    ] = None,
    min_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Leave out images of fewer bytes than this, for example 10KB."),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Leave out images of more bytes than this.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Take only images that have changed since then: 2026-01-31, 2026-01-31T18:00, 36h or 7d.",
        ),
    ] = None,
    list_format: Annotated[
        ListFormat | None,
        typer.Option(help="Take SOURCE as a list of keys in this format.  [default: by its ending]"),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="The folder or bucket that the keys of a list are in.  [default: the folder of the list]",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Do at most this many images, then end.")
    ] = None,
    retry_failed: Annotated[
        str | None,
        typer.Option(
            RETRY_FAILED,
            metavar="[CODE…]",
            help="Try again what failed in earlier runs, or only what failed with one of these codes.",
        ),
    ] = None,
    max_error_rate: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Stop if more than this share of the images fails, for example 5%; looked at from the "
            "hundredth image on.",
        ),
    ] = None,
    engine: Annotated[
        EngineName, typer.Option(help="Where the work is done: on this machine, or on a cluster of Ray.")
    ] = EngineName.LOCAL,
    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="A running server for --engine local: HOST:PORT, tls://HOST:PORT or unix:/path. Repeat it "
            "for several.  [default: one is started for the batch]",
            show_default=False,
        ),
    ] = None,
    tls: Tls = False,
    ca: Ca = None,
    cert: Cert = None,
    key: Key = None,
    token_file: TokenFileFlag = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="The cluster for --engine ray.  [default: a cluster on this machine]"
        ),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Most servers of --engine ray.  [default: one on each node]"),
    ] = None,
    actor_cpus: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Cores of each server of --engine ray.  [default: all of its node]"
        ),
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            metavar="N",
            help="Images whose rows become one file of the manifest.  [default: 1000]",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Store nothing: count the images, and estimate time and bytes from a sample of them.",
        ),
    ] = False,
    sample: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="Images that --dry-run resizes.")
    ] = 100,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each image; with --dry-run one object.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")] = False,
    metrics_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve figures of the batch for Prometheus there, at /metrics, while it runs.",
        ),
    ] = None,
) -> None:
    """Resize many images: those of a folder, a bucket or a list of keys.

    Run the same command again to go on after it was stopped: what is done is not done again. Ctrl-C finishes
    what is in flight, a second one ends at once. What became of each image is in the manifest, the folder
    .vipsrv of the destination.

    "vipsrv batch status DESTINATION" and "vipsrv batch report DESTINATION" read it. A folder that is called
    status or report is given as ./status.
    """
    # Imported here because the other commands, a server among them, do not need it.
    from vipsrv.batch import BatchRun, Outputs, open_source, run  # noqa: PLC0415
    from vipsrv.batch.filters import FilteredSource, Filters  # noqa: PLC0415
    from vipsrv.batch.outputs import DEFAULT_NAME  # noqa: PLC0415
    from vipsrv.batch.stores.key_list_source import STANDARD_INPUT  # noqa: PLC0415
    from vipsrv.batch.stores.open_store import is_key_list  # noqa: PLC0415
    from vipsrv.cli.batch_session import Shown, print_estimate, run_batch  # noqa: PLC0415

    use_little_memory()
    with batch_errors(PROGRAM):
        if quiet and as_json:
            raise ValueError("--quiet and --json exclude each other")
        if not server and (token_file is not None or tls or ca or cert or key):
            raise ValueError("--token-file and the options of TLS are for the server that --server names")
        outputs = Outputs(
            result_options(
                sizes,
                formats,
                fit=fit,
                position=position,
                quality=quality,
                effort=effort,
                lossless=lossless,
                max_bytes=None if max_bytes is None else parse_bytes("--max-bytes", max_bytes),
                background=background,
                keep=keep,
                page=page,
                pages=pages,
                enlarge=enlarge,
                **operations,
            ),
            DEFAULT_NAME if name is None else name,
        )
        filters = Filters(
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            min_bytes=None if min_size is None else parse_bytes("--min-size", min_size),
            max_bytes=None if max_size is None else parse_bytes("--max-size", max_size),
            any_ending=is_key_list(source, list_format),
            since=None if since is None else nanoseconds(parse_moment("--since", since)),
        )

        def open_images() -> Source:
            opened = open_source(source, destination=destination, base=base or "", list_format=list_format)
            return FilteredSource(opened, filters)

        arguments: dict[str, Any] = {
            "engine": engine.value,
            "server": ",".join(server) if server else None,
            "token": None if not server else choose_token(file=token_file),
            **TlsOptions(tls=tls, ca=ca, cert=cert, key=key).arguments(),
            "retry_failed": False if retry_failed is None else parse_codes(retry_failed),
            "address": address,
            "actors": actors,
            "actor_cpus": actor_cpus,
            "limit": limit,
            "deadline_ms": deadline_in_ms(deadline),
        }
        if max_error_rate is not None:
            arguments["max_error_rate"] = parse_share("--max-error-rate", max_error_rate)
        if shard_size is not None:
            arguments["shard_size"] = shard_size
        shown = Shown(
            destination=destination,
            command=sys.argv[1:],
            as_json=as_json,
            quiet=quiet,
            metrics=metrics_listen,
            limit=limit,
            open_again=None if source == STANDARD_INPUT else open_images,
        )

        def start() -> BatchRun:
            return run(open_images(), destination, outputs, **arguments)

        if dry_run:
            print_estimate(start, shown, sample=sample)
            return
        exit_code = run_batch(start, shown)
    if exit_code is not None:
        raise typer.Exit(exit_code)


for _reads_manifest in (status, report):
    batch_app.command(epilog=REPORT_EXIT_CODES)(_reads_manifest)
