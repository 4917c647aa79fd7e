"""A worker as the gateway sees it: a real process behind a socket."""

import hashlib
import json
import os
import platform
import re
import select
import signal
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.pipeline.run import sample
from tests.support.image_comparison import mean_abs_difference, open_exact, reference
from tests.support.images import HEIGHT, WIDTH, encode, garbage, jpeg, large_strip_tiff, photo, truncated
from tests.workers.child.child_process import CONFIG, PATIENCE, ChildProcess
from vipsrv.errors import (
    BadRequest,
    Cancelled,
    CorruptImage,
    DeadlineExceeded,
    InternalError,
    RequestError,
    TooLarge,
    UnsupportedFormat,
)
from vipsrv.workers.channel import (
    READY_SIZE,
    Carrier,
    Digest,
    JobHead,
    JobLimits,
    Operation,
    Ready,
    ResultDigest,
)

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc are Linux'")


@pytest.fixture
def fresh() -> Iterator[ChildProcess]:
    """A worker of the test's own that is ready."""
    child = ChildProcess()
    child.start()
    yield child
    child.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[ChildProcess]:
    """One worker for all tests that must leave it working."""
    child = ChildProcess()
    child.start()
    yield child
    child.close()


@pytest.fixture
def child(shared: ChildProcess) -> Iterator[ChildProcess]:
    """The shared worker, which must still work after the test."""
    yield shared
    shared.check_that_it_works()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 100-megapixel image of 300 MB, which takes a while."""
    path = tmp_path_factory.mktemp("large") / "large.tif"
    large_strip_tiff(path, 10_000, 10_000)
    return path


# The handshake


def test_the_handshake_names_the_process_and_its_formats() -> None:
    child = ChildProcess()
    try:
        ready = child.start()
        assert ready.pid == child.process.pid
        assert {"jpeg", "png", "webp", "tiff", "gif"} <= set(ready.readers)
        assert "jpeg" in ready.writers
        # Standard error is closed by now and was not used.
        assert child.standard_error() == ""
    finally:
        child.close()


@linux_only
def test_only_its_socket_is_open(fresh: ChildProcess) -> None:
    held = fresh.descriptors()
    sockets = [number for number, what in held.items() if what.startswith("socket:")]
    assert len(sockets) == 1
    assert {number: what for number, what in held.items() if number not in sockets} == dict.fromkeys(
        range(3), "/dev/null"
    )


@linux_only
def test_it_cannot_gain_privileges(fresh: ChildProcess) -> None:
    assert fresh.status("NoNewPrivs") == 1


@linux_only
def test_its_name_is_in_the_process_list(fresh: ChildProcess) -> None:
    words = Path(f"/proc/{fresh.process.pid}/cmdline").read_bytes().split(b"\0")
    assert words[1:3] == [b"-m", b"vipsrv.workers.child"]


# Jobs


def test_an_image_through_the_socket(child: ChildProcess) -> None:
    image = jpeg()
    child.send_resize(image, job_id=2**63)
    head, data = child.reply(image_size=len(image))
    assert head.job_id == 2**63
    assert head.source is not None
    assert (head.source.format, head.source.width, head.source.height) == ("jpeg", WIDTH, HEIGHT)
    assert head.source.size == len(image)
    (output,) = head.outputs
    assert (output.width, output.height, output.quality) == (80, 60, 85)
    assert mean_abs_difference(open_exact(data), reference(image, 80, 60)) < 6


def test_digests_of_the_results(child: ChildProcess) -> None:
    image = jpeg()
    options = Digest.TAG_AND_CRC.add_to(b'{"outputs":[{"width":80,"height":60},{"width":40,"height":30}]}')
    child.send_resize(image, options=options)
    head, data = child.reply(image_size=len(image), digests=True)
    assert head.error is None
    first, second = data[: head.outputs[0].size], data[head.outputs[0].size :]
    assert head.digests == tuple(
        ResultDigest(tag=hashlib.blake2b(one, digest_size=16).digest(), crc=zlib.crc32(one))
        for one in (first, second)
    )
    child.send_resize(image, options=Digest.TAG.add_to(b'{"width":80,"height":60}'))
    head, _ = child.reply(image_size=len(image), digests=True)
    (digest,) = head.digests
    assert (digest.tag, digest.crc) == (hashlib.blake2b(first, digest_size=16).digest(), 0)


def test_an_image_in_a_lent_file(child: ChildProcess, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg())
    with path.open("rb") as file:
        file.seek(100)  # the position that its writer left must not matter
        for job_id in range(3):
            child.lend(file.fileno(), path.stat().st_size, job_id=job_id)
            head, data = child.reply()
            assert (head.job_id, head.error) == (job_id, None)
            assert mean_abs_difference(open_exact(data), reference(jpeg(), 80, 60)) < 6


@linux_only
def test_a_lent_descriptor_is_closed(fresh: ChildProcess, tmp_path: Path) -> None:
    path = tmp_path / "image"
    before = fresh.descriptors()
    for content in (jpeg(), garbage(), truncated(jpeg())):
        path.write_bytes(content)
        with path.open("rb") as file:
            fresh.lend(file.fileno(), len(content))
            fresh.reply()
    fresh.check_that_it_works()
    assert fresh.descriptors() == before


def test_an_image_through_the_socket_that_is_larger_than_the_kept_buffer(child: ChildProcess) -> None:
    image = jpeg() + bytes(20 << 20)  # bytes after a JPEG's end are ignored
    child.send_resize(image)
    head, data = child.reply()
    assert head.error is None
    assert open_exact(data).size == (80, 60)


def test_info(child: ChildProcess, tmp_path: Path) -> None:
    image = jpeg()
    path = tmp_path / "image"
    path.write_bytes(image)
    child.send_job(JobHead(operation=Operation.INFO, job_id=5, image_size=len(image)), image=image)
    inline, _ = child.reply(image_size=len(image))
    with path.open("rb") as file:
        child.lend(file.fileno(), len(image), operation=Operation.INFO, job_id=5)
        lent, _ = child.reply(image_size=len(image))
    assert inline == lent
    assert inline.outputs == ()
    assert inline.source is not None
    assert (inline.source.width, inline.source.height, inline.source.orientation) == (WIDTH, HEIGHT, 1)


def test_several_results_of_one_image(child: ChildProcess) -> None:
    asked = [
        {"width": 80, "height": 60},
        {"width": 40, "fit": "inside", "format": "png"},
        *[{"width": 9, "height": 9}] * 14,
    ]
    child.send_resize(jpeg(), options=json.dumps({"outputs": asked}).encode())
    head, data = child.reply()
    assert [(one.width, one.height, one.format) for one in head.outputs[:2]] == [
        (80, 60, "jpeg"),
        (40, 30, "png"),
    ]
    start = 0
    for output in head.outputs:
        result = open_exact(data[start : start + output.size])
        assert (result.width, result.height) == (output.width, output.height)
        start += output.size
    assert (len(head.outputs), start) == (16, len(data))


SMALL = b'{"width": 9, "height": 9}'


@pytest.mark.parametrize(
    ("image", "options", "limits", "error"),
    [
        (jpeg(), SMALL, JobLimits(max_pixels=WIDTH * HEIGHT), None),
        (jpeg(), SMALL, JobLimits(max_pixels=WIDTH * HEIGHT - 1), TooLarge),
        (jpeg(), b'{"width": 900, "height": 900}', JobLimits(max_pixels=WIDTH * HEIGHT), TooLarge),
        (jpeg(), SMALL, JobLimits(formats=frozenset({"jpeg"})), None),
        (jpeg(), SMALL, JobLimits(formats=frozenset({"png", "webp"})), UnsupportedFormat),
        (encode(photo(), "PNG"), SMALL, JobLimits(formats=frozenset({"png"})), UnsupportedFormat),
        (encode(photo(), "PNG"), SMALL, JobLimits(formats=frozenset({"png", "jpeg"})), None),
        (jpeg(), b'{"width":9,"height":9,"format":"auto"}', JobLimits(formats=frozenset({"jpeg"})), None),
        (
            encode(photo(), "BMP"),
            b'{"width":9,"height":9,"format":"auto"}',
            JobLimits(formats=frozenset({"bmp"})),
            UnsupportedFormat,
        ),
    ],
)
def test_the_limits_of_a_client(
    child: ChildProcess, image: bytes, options: bytes, limits: JobLimits, error: type[RequestError] | None
) -> None:
    child.send_resize(image, options=limits.add_to(options))
    head, _ = child.reply(image_size=len(image))
    assert (head.error and type(head.error)) is error
    child.send_resize(image, options=options)  # they are those of one job
    head, _ = child.reply(image_size=len(image))
    assert head.error is None


def test_the_formats_of_a_client_hold_for_an_info(child: ChildProcess) -> None:
    image = jpeg()
    for allowed, error in (("jpeg", None), ("png", UnsupportedFormat)):
        options = JobLimits(formats=frozenset({allowed})).add_to(b"")
        head = JobHead(operation=Operation.INFO, job_id=5, options_size=len(options), image_size=len(image))
        child.send_job(head, options, image=image)
        reply, _ = child.reply(image_size=len(image))
        assert (reply.error and type(reply.error)) is error


@pytest.mark.parametrize(
    ("image", "options", "error"),
    [
        (garbage(), None, UnsupportedFormat),
        (b"", None, UnsupportedFormat),
        (truncated(jpeg()), None, CorruptImage),
        (jpeg(), b'{"width": 9000, "height": 9000}', TooLarge),
        (jpeg(), b'{"width": 9, "height": 9, "position": "top"}', BadRequest),
        (jpeg(), b'{"width": 9, "height": 9, "lossless": true}', BadRequest),
        (jpeg(), b'{"width": 9}', BadRequest),
        (jpeg(), b'{"width": 0, "height": 9}', BadRequest),
        (jpeg(), json.dumps({"outputs": [{"width": 9, "height": 9}] * 17}).encode(), BadRequest),
        (jpeg(), b"not JSON", BadRequest),
        (jpeg(), b"\xff\xfe", BadRequest),
        (jpeg(), b"[]", BadRequest),
        (jpeg(), b"[" * 60_000, BadRequest),
        (jpeg(), b"", BadRequest),
    ],
)
def test_a_job_that_fails_is_answered_with_an_error(
    child: ChildProcess, image: bytes, options: bytes | None, error: type[RequestError]
) -> None:
    child.send_resize(image, options=options, job_id=12)
    head, _ = child.reply()
    assert head.job_id == 12
    assert type(head.error) is error


def test_a_bug_is_reported_with_its_traceback() -> None:
    child = ChildProcess({"quality": "high"})  # which the server's settings would refuse
    try:
        child.start()
        child.send_resize(jpeg())
        error = child.refusal()
        assert isinstance(error, InternalError)
        assert error.message == "the worker failed on this image: TypeError"
        assert error.where.startswith("TypeError: ")
        # Innermost call first.
        assert re.match(r"TypeError: .*; (\w+\.py:\d+ \S+ < )+resize\.py:\d+ ", error.where)
        child.send_resize(truncated(jpeg()), options=b'{"width": 80, "height": 60, "quality": 85}')
        assert type(child.refusal()) is CorruptImage
    finally:
        child.close()


def test_it_applies_the_limits_of_its_configuration() -> None:
    child = ChildProcess({"max_pixels": WIDTH * HEIGHT - 1, "quality": 12})
    try:
        child.start()
        child.send_resize(jpeg())
        assert child.refusal().message.endswith(f"max-pixels allows {WIDTH * HEIGHT - 1}")
        child.send_resize(jpeg(WIDTH, HEIGHT - 1))
        head, _ = child.reply()
        assert [output.quality for output in head.outputs] == [12]
    finally:
        child.close()


def test_it_reads_the_formats_of_its_configuration() -> None:
    child = ChildProcess({"formats": ["png"]})
    try:
        assert set(child.start().readers) == {"png"}
        child.send_resize(jpeg())
        assert child.refusal().message.endswith("send one of: png")
        child.send_resize(sample("png"))
        head, data = child.reply()
        assert head.error is None
        assert open_exact(data).size == (80, 60)
    finally:
        child.close()


def test_it_tolerates_truncated_images_if_configured() -> None:
    child = ChildProcess({"tolerate_truncated": True})
    try:
        child.start()
        child.send_resize(truncated(jpeg()))
        head, data = child.reply()
        assert head.error is None
        assert open_exact(data).size == (80, 60)
    finally:
        child.close()


@linux_only
def test_a_large_image_is_streamed_in_little_memory(fresh: ChildProcess, large: Path) -> None:
    fresh.check_that_it_works()
    # Anonymous memory: pages of the mapped file do not count, because the kernel can drop them.
    before = peak = fresh.status("RssAnon")
    with large.open("rb") as file:
        fresh.lend(file.fileno(), large.stat().st_size)
        while not select.select([fresh.channel], [], [], 0.002)[0]:
            peak = max(peak, fresh.status("RssAnon"))
        head, _ = fresh.reply()
    assert head.error is None
    grown = (peak - before) / 1024
    assert grown < 100, f"{grown:.0f} MB for a file of {large.stat().st_size >> 20} MB"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has malloc_trim")
def test_the_memory_of_a_heavy_job_is_returned_to_the_system(large: Path) -> None:
    # As the gateway starts it, with a malloc that keeps most freed memory.
    kept = {
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": "1000000000",
        "MALLOC_MMAP_THRESHOLD_": "33554432",
    }
    child = ChildProcess(environment=kept)
    try:
        child.start()
        child.check_that_it_works()
        before = child.status("RssAnon")
        with large.open("rb") as file:
            child.lend(file.fileno(), large.stat().st_size)
            assert child.reply()[0].error is None
        child.check_that_it_works()  # when this is answered, everything of the job before is over
        grown = (child.status("RssAnon") - before) / 1024
    finally:
        child.close()
    assert grown < 30, f"{grown:.0f} MB are kept"


# Stopping


def long_job(large: Path, **head: int) -> tuple[JobHead, bytes]:
    """A job that is computed in several pieces, because libvips checks between them whether to stop."""
    options = b'{"width": 800, "height": 600}'
    lent = JobHead(
        operation=Operation.RESIZE,
        job_id=8,
        carrier=Carrier.DESCRIPTOR,
        options_size=len(options),
        image_size=large.stat().st_size,
        deadline_ms=head.get("deadline_ms", 0),
        admitted=True,
    )
    return lent, options


def test_a_running_job_is_cancelled(child: ChildProcess, large: Path) -> None:
    head, options = long_job(large)
    cancel = JobHead(operation=Operation.CANCEL, job_id=8).pack()
    with large.open("rb") as file:
        # In one write, so that the job cannot be over before the CANCEL arrives.
        child.send_job(head, options + cancel, descriptors=(file.fileno(),))
    assert type(child.refusal()) is Cancelled


def test_a_running_job_ends_at_its_deadline(child: ChildProcess, large: Path) -> None:
    head, options = long_job(large, deadline_ms=1)
    with large.open("rb") as file:
        child.send_job(head, options, descriptors=(file.fileno(),))
    assert type(child.refusal()) is DeadlineExceeded


@linux_only
def test_a_stopped_job_leaves_no_descriptor_open(fresh: ChildProcess, large: Path) -> None:
    before = fresh.descriptors()
    head, options = long_job(large, deadline_ms=1)
    with large.open("rb") as file:
        fresh.send_job(head, options, descriptors=(file.fileno(),))
    fresh.refusal()
    fresh.check_that_it_works()
    assert fresh.descriptors() == before


def test_a_cancel_for_another_job_is_ignored(child: ChildProcess, large: Path) -> None:
    head, options = long_job(large)
    cancel = JobHead(operation=Operation.CANCEL, job_id=7).pack()
    with large.open("rb") as file:
        child.send_job(head, options + cancel, descriptors=(file.fileno(),))
    reply, _ = child.reply()
    assert (reply.job_id, reply.error) == (8, None)


def test_a_cancel_for_a_finished_job_is_ignored(child: ChildProcess) -> None:
    child.check_that_it_works()
    for _ in range(3):
        child.channel.sendall(JobHead(operation=Operation.CANCEL, job_id=77).pack())
    child.check_that_it_works()


def test_the_longest_deadline_is_no_problem(child: ChildProcess) -> None:
    child.send_resize(jpeg(), deadline_ms=2**32 - 1)
    head, _ = child.reply()
    assert head.error is None


# The end


def test_it_exits_when_the_gateway_closes_its_end(fresh: ChildProcess) -> None:
    fresh.channel.close()
    assert fresh.exit_code() == 0


def test_it_exits_in_the_middle_of_a_job(fresh: ChildProcess, large: Path) -> None:
    with large.open("rb") as file:
        fresh.lend(file.fileno(), large.stat().st_size)
    fresh.channel.close()
    assert fresh.exit_code() == 0


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes(100),
        JobHead(operation=Operation.RESIZE, job_id=1, options_size=2**32 - 1).pack(),
        JobHead(operation=Operation.RESIZE, job_id=1, image_size=2**60).pack(),
        JobHead(operation=Operation.RESIZE, job_id=1, carrier=Carrier.DESCRIPTOR).pack(),
    ],
    ids=["http", "zeros", "options-too-large", "image-too-large", "no-descriptor"],
)
def test_bytes_that_are_no_job_end_it(fresh: ChildProcess, data: bytes) -> None:
    fresh.channel.sendall(data)
    assert fresh.exit_code() == 3


def test_the_end_of_the_channel_within_a_job_is_an_error(fresh: ChildProcess) -> None:
    fresh.channel.sendall(JobHead(operation=Operation.RESIZE, job_id=1, image_size=100).pack() + bytes(50))
    fresh.channel.close()
    assert fresh.exit_code() == 3


@pytest.mark.parametrize("count", [1, 2])
def test_an_unannounced_descriptor_ends_it(fresh: ChildProcess, count: int) -> None:
    carrier = Carrier.INLINE if count == 1 else Carrier.DESCRIPTOR
    head = JobHead(operation=Operation.RESIZE, job_id=1, carrier=carrier)
    with Path(os.devnull).open("rb") as file:
        fresh.send_job(head, descriptors=(file.fileno(),) * count)
    assert fresh.exit_code() == 3


def test_the_signals_of_a_terminal_do_not_end_it(fresh: ChildProcess) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        fresh.process.send_signal(number)
    fresh.check_that_it_works()


@linux_only
def test_it_dies_with_its_parent() -> None:
    # A parent in between is killed; the socket stays open in this process.
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    starter = (
        "import json, os, subprocess, sys\n"
        f"config = json.dumps({CONFIG!r} | {{'parent': os.getpid()}})\n"
        "words = ['-m', 'vipsrv.workers.child', '--config', config, '--socket', sys.argv[1]]\n"
        "subprocess.Popen([sys.executable, *words], pass_fds=[int(sys.argv[1])]).wait()"
    )
    with ours, theirs:
        parent = subprocess.Popen(
            [sys.executable, "-c", starter, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
        )
        worker = None
        try:
            worker = Ready.unpack(ours.recv(READY_SIZE, socket.MSG_WAITALL)).pid
            ending = os.pidfd_open(worker)
            parent.kill()
            assert select.select([ending], [], [], PATIENCE)[0] == [ending]
            os.close(ending)
        finally:
            parent.kill()
            parent.wait(PATIENCE)
            if worker is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


# A start that fails


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"parent": 4194304}, "the parent process 4194304 has ended"),
        ({"colour": 3}, "colour"),
        ({"formats": ["png", "xyz"]}, "xyz is unknown"),
    ],
)
def test_a_failed_start_is_reported_in_one_line(config: dict[str, Any], reason: str) -> None:
    child = ChildProcess(config)
    try:
        assert child.receive(1) == b""
        assert child.exit_code() == 1
        message = child.standard_error()
        assert reason in message
        assert message.count("\n") == 1
    finally:
        child.close()


def test_a_missing_libvips_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyvips.py").write_text("raise OSError('cannot load library\\nlibvips.so.42')\n")
    child = ChildProcess(environment={"PYTHONPATH": str(tmp_path)})
    try:
        assert child.receive(1) == b""
        assert child.exit_code() == 1
        assert child.standard_error() == "OSError: cannot load library libvips.so.42\n"
    finally:
        child.close()


def test_a_heavy_job_that_was_not_admitted_reports_its_memory() -> None:
    child = ChildProcess()
    try:
        child.start()
        options = json.dumps({"width": 3000, "height": 3000, "format": "avif"}).encode()
        child.send_resize(jpeg(), options=options, admitted=False)
        head, data = child.reply()
        assert head.needs > 64 << 20
        assert (head.outputs, data) == ((), b"")
        child.send_resize(jpeg(), admitted=False)
        head, _ = child.reply()
        assert head.outputs
    finally:
        child.close()


def test_info_tolerates_what_a_resize_tolerates() -> None:
    image = truncated(encode(Image.new("P", (200, 150)), "GIF"), 0.8)
    for tolerates in (False, True):
        child = ChildProcess({"tolerate_truncated": tolerates})
        try:
            child.start()
            child.send_job(JobHead(operation=Operation.INFO, job_id=5, image_size=len(image)), image=image)
            head, _ = child.reply(image_size=len(image))
        finally:
            child.close()
        assert (head.source is not None) is tolerates
        assert isinstance(head.error, CorruptImage | None)
