"""A worker as the gateway meets it: a real process, spoken to over its socket."""

import json
import os
import platform
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.run import sample
from tests.support.image_comparison import mean_abs_difference, open_exact, reference
from tests.support.images import HEIGHT, WIDTH, garbage, jpeg, large_strip_tiff, truncated
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
from vipsrv.workers.channel import READY_SIZE, REPLY_SIZE, Carrier, JobHead, Operation, Ready, ReplyHead

PATIENCE = 60
"""Seconds after which a test gives up waiting, on a machine however busy."""

CONFIG = {"max_pixels": 100_000_000, "max_output_pixels": 10_000_000, "quality": 85}

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc are Linux'")


class Child:
    """A worker process and the gateway's end of its socket."""

    def __init__(
        self, config: dict[str, Any] | None = None, *, environment: dict[str, str] | None = None
    ) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(PATIENCE)
        with theirs:
            words = [
                sys.executable,
                "-m",
                "vipsrv.workers.child",
                "--socket",
                str(theirs.fileno()),
                "--config",
            ]
            words.append(json.dumps(CONFIG | {"parent": os.getpid()} | (config or {})))
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                env=os.environ | {"VIPS_CONCURRENCY": "1"} | (environment or {}),
            )

    def close(self) -> None:
        self.channel.close()
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)

    def receive(self, size: int) -> bytes:
        """Up to ``size`` bytes, fewer only at the end."""
        data = b""
        while len(data) < size and (more := self.channel.recv(size - len(data))):
            data += more
        return data

    def start(self) -> Ready:
        return Ready.unpack(self.receive(READY_SIZE))

    def send_job(
        self, head: JobHead, options: bytes = b"", image: bytes = b"", descriptors: tuple[int, ...] = ()
    ) -> None:
        data = head.pack() + options + image
        if descriptors:
            sent = socket.send_fds(self.channel, [data], list(descriptors))
            data = data[sent:]
        if data:
            self.channel.sendall(data)

    def send_resize(
        self,
        image: bytes,
        *,
        job_id: int = 1,
        options: bytes | None = None,
        deadline_ms: int = 0,
        admitted: bool = True,
    ) -> None:
        if options is None:
            options = json.dumps({"width": 80, "height": 60}).encode()
        head = JobHead(
            operation=Operation.RESIZE,
            job_id=job_id,
            options_size=len(options),
            image_size=len(image),
            deadline_ms=deadline_ms,
            admitted=admitted,
        )
        self.send_job(head, options, image)

    def lend(
        self, descriptor: int, size: int, *, job_id: int = 1, operation: Operation = Operation.RESIZE
    ) -> None:
        options = json.dumps({"width": 80, "height": 60}).encode()
        head = JobHead(
            operation=operation,
            job_id=job_id,
            carrier=Carrier.DESCRIPTOR,
            options_size=len(options),
            image_size=size,
            admitted=True,
        )
        self.send_job(head, options, descriptors=(descriptor,))

    def reply(self, *, image_size: int = 1) -> tuple[ReplyHead, bytes]:
        head = ReplyHead.unpack(self.receive(REPLY_SIZE), image_size=image_size)
        return head, self.receive(sum(output.size for output in head.outputs))

    def refusal(self) -> RequestError:
        head, _ = self.reply()
        assert head.error is not None
        return head.error

    def works(self) -> None:
        """It takes the next job as if nothing had been before."""
        self.send_resize(jpeg(), job_id=77)
        head, data = self.reply()
        assert (head.job_id, head.error) == (77, None)
        assert open_exact(data).size == (80, 60)

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE)

    def said(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def descriptors(self) -> dict[int, str]:
        folder = Path(f"/proc/{self.process.pid}/fd")
        return {int(link.name): str(link.readlink()) for link in folder.iterdir()}

    def status(self, field: str) -> int:
        """A number of ``/proc/PID/status``; sizes are KiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


@pytest.fixture
def fresh() -> Iterator[Child]:
    """A worker of the test's own that is ready."""
    child = Child()
    child.start()
    yield child
    child.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Child]:
    """One worker for all tests after which it must work as before."""
    child = Child()
    child.start()
    yield child
    child.close()


@pytest.fixture
def child(shared: Child) -> Iterator[Child]:
    """The shared worker, and the proof that it still works."""
    yield shared
    shared.works()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 100-megapixel picture, 300 MB: work for a while."""
    path = tmp_path_factory.mktemp("large") / "large.tif"
    large_strip_tiff(path, 10_000, 10_000)
    return path


# The handshake


def test_the_handshake_tells_who_it_is_and_what_it_reads() -> None:
    child = Child()
    try:
        ready = child.start()
        assert ready.pid == child.process.pid
        assert {"jpeg", "png", "webp", "tiff", "gif"} <= set(ready.readers)
        assert "jpeg" in ready.writers
        # Standard error is given up by then, and was not used.
        assert child.said() == ""
    finally:
        child.close()


@linux_only
def test_it_holds_nothing_but_its_socket(fresh: Child) -> None:
    held = fresh.descriptors()
    sockets = [number for number, what in held.items() if what.startswith("socket:")]
    assert len(sockets) == 1
    assert {number: what for number, what in held.items() if number not in sockets} == dict.fromkeys(
        range(3), "/dev/null"
    )


@linux_only
def test_it_cannot_gain_privileges(fresh: Child) -> None:
    assert fresh.status("NoNewPrivs") == 1


@linux_only
def test_a_process_list_shows_it_by_name(fresh: Child) -> None:
    words = Path(f"/proc/{fresh.process.pid}/cmdline").read_bytes().split(b"\0")
    assert words[1:3] == [b"-m", b"vipsrv.workers.child"]


# Jobs


def test_an_image_inline(child: Child) -> None:
    picture = jpeg()
    child.send_resize(picture, job_id=2**63)
    head, data = child.reply(image_size=len(picture))
    assert head.job_id == 2**63
    assert head.source is not None
    assert (head.source.format, head.source.width, head.source.height) == ("jpeg", WIDTH, HEIGHT)
    assert head.source.size == len(picture)
    (output,) = head.outputs
    assert (output.width, output.height, output.quality) == (80, 60, 85)
    assert mean_abs_difference(open_exact(data), reference(picture, 80, 60)) < 6


def test_an_image_lent(child: Child, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(jpeg())
    with path.open("rb") as file:
        file.seek(100)  # wherever its writer left it
        for job_id in range(3):
            child.lend(file.fileno(), path.stat().st_size, job_id=job_id)
            head, data = child.reply()
            assert (head.job_id, head.error) == (job_id, None)
            assert mean_abs_difference(open_exact(data), reference(jpeg(), 80, 60)) < 6


@linux_only
def test_a_descriptor_that_was_lent_is_given_back(fresh: Child, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    before = fresh.descriptors()
    for content in (jpeg(), garbage(), truncated(jpeg())):
        path.write_bytes(content)
        with path.open("rb") as file:
            fresh.lend(file.fileno(), len(content))
            fresh.reply()
    fresh.works()
    assert fresh.descriptors() == before


def test_an_inline_image_larger_than_the_kept_memory(child: Child) -> None:
    picture = jpeg() + bytes(20 << 20)  # what follows a JPEG's end is nobody's business
    child.send_resize(picture)
    head, data = child.reply()
    assert head.error is None
    assert open_exact(data).size == (80, 60)


def test_info(child: Child, tmp_path: Path) -> None:
    picture = jpeg()
    path = tmp_path / "picture"
    path.write_bytes(picture)
    child.send_job(JobHead(operation=Operation.INFO, job_id=5, image_size=len(picture)), image=picture)
    inline, _ = child.reply(image_size=len(picture))
    with path.open("rb") as file:
        child.lend(file.fileno(), len(picture), operation=Operation.INFO, job_id=5)
        lent, _ = child.reply(image_size=len(picture))
    assert inline == lent
    assert inline.outputs == ()
    assert inline.source is not None
    assert (inline.source.width, inline.source.height, inline.source.orientation) == (WIDTH, HEIGHT, 1)


def test_several_results_of_one_image(child: Child) -> None:
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
        image = open_exact(data[start : start + output.size])
        assert (image.width, image.height) == (output.width, output.height)
        start += output.size
    assert (len(head.outputs), start) == (16, len(data))


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
def test_a_job_that_fails_is_an_error_and_no_end(
    child: Child, image: bytes, options: bytes | None, error: type[RequestError]
) -> None:
    child.send_resize(image, options=options, job_id=12)
    head, _ = child.reply()
    assert head.job_id == 12
    assert type(head.error) is error


def test_a_bug_is_told_with_its_place() -> None:
    child = Child({"quality": "high"})  # which the gateway's settings would not let through
    try:
        child.start()
        child.send_resize(jpeg())
        error = child.refusal()
        assert isinstance(error, InternalError)
        assert error.message == "the worker failed on this image: TypeError"
        assert error.where.startswith("TypeError: ")
        assert re.search(
            r"operations\.py:\d+ .* < encode\.py:\d+ _write < .* < resize\.py:\d+ _finish", error.where
        )
        child.send_resize(truncated(jpeg()), options=b'{"width": 80, "height": 60, "quality": 85}')
        assert type(child.refusal()) is CorruptImage
    finally:
        child.close()


def test_the_limits_are_those_of_its_configuration() -> None:
    child = Child({"max_pixels": WIDTH * HEIGHT - 1, "quality": 12})
    try:
        child.start()
        child.send_resize(jpeg())
        assert child.refusal().message.endswith(f"max-pixels allows {WIDTH * HEIGHT - 1}")
        child.send_resize(jpeg(WIDTH, HEIGHT - 1))
        head, _ = child.reply()
        assert [output.quality for output in head.outputs] == [12]
    finally:
        child.close()


def test_the_formats_are_those_of_its_configuration() -> None:
    child = Child({"formats": ["png"]})
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


def test_it_is_as_tolerant_as_its_configuration_says() -> None:
    child = Child({"tolerate_truncated": True})
    try:
        child.start()
        child.send_resize(truncated(jpeg()))
        head, data = child.reply()
        assert head.error is None
        assert open_exact(data).size == (80, 60)
    finally:
        child.close()


@linux_only
def test_a_large_picture_streams_in_little_memory(fresh: Child, large: Path) -> None:
    fresh.works()
    # Anonymous memory: what is mapped of the file is the kernel's to take back.
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
def test_the_memory_of_a_heavy_job_is_given_back(large: Path) -> None:
    # As the gateway starts it: a malloc that keeps most of what is freed.
    kept = {
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_TRIM_THRESHOLD_": "1000000000",
        "MALLOC_MMAP_THRESHOLD_": "8388608",
    }
    child = Child(environment=kept)
    try:
        child.start()
        child.works()
        before = child.status("RssAnon")
        with large.open("rb") as file:
            child.lend(file.fileno(), large.stat().st_size)
            assert child.reply()[0].error is None
        child.works()  # when that is answered, all that belongs to the job before is over
        grown = (child.status("RssAnon") - before) / 1024
    finally:
        child.close()
    assert grown < 30, f"{grown:.0f} MB are kept"


# Stopping


def long_job(large: Path, **head: int) -> tuple[JobHead, bytes]:
    """A job that is computed in several pieces, for libvips asks between them if it is to stop."""
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


def test_a_running_job_is_cancelled(child: Child, large: Path) -> None:
    head, options = long_job(large)
    cancel = JobHead(operation=Operation.CANCEL, job_id=8).pack()
    with large.open("rb") as file:
        # All in one, so that the job cannot be over before.
        child.send_job(head, options + cancel, descriptors=(file.fileno(),))
    assert type(child.refusal()) is Cancelled


def test_a_running_job_ends_at_its_deadline(child: Child, large: Path) -> None:
    head, options = long_job(large, deadline_ms=1)
    with large.open("rb") as file:
        child.send_job(head, options, descriptors=(file.fileno(),))
    assert type(child.refusal()) is DeadlineExceeded


@linux_only
def test_a_job_that_was_stopped_holds_nothing(fresh: Child, large: Path) -> None:
    before = fresh.descriptors()
    head, options = long_job(large, deadline_ms=1)
    with large.open("rb") as file:
        fresh.send_job(head, options, descriptors=(file.fileno(),))
    fresh.refusal()
    fresh.works()
    assert fresh.descriptors() == before


def test_a_cancel_for_another_job_changes_nothing(child: Child, large: Path) -> None:
    head, options = long_job(large)
    cancel = JobHead(operation=Operation.CANCEL, job_id=7).pack()
    with large.open("rb") as file:
        child.send_job(head, options + cancel, descriptors=(file.fileno(),))
    reply, _ = child.reply()
    assert (reply.job_id, reply.error) == (8, None)


def test_a_cancel_for_a_job_that_is_over_is_skipped(child: Child) -> None:
    child.works()
    for _ in range(3):
        child.channel.sendall(JobHead(operation=Operation.CANCEL, job_id=77).pack())
    child.works()


def test_a_generous_deadline_changes_nothing(child: Child) -> None:
    child.send_resize(jpeg(), deadline_ms=2**32 - 1)
    head, _ = child.reply()
    assert head.error is None


# The end


def test_it_leaves_when_the_gateway_closes_its_end(fresh: Child) -> None:
    fresh.channel.close()
    assert fresh.exit_code() == 0


def test_it_leaves_in_the_middle_of_a_job(fresh: Child, large: Path) -> None:
    with large.open("rb") as file:
        fresh.lend(file.fileno(), large.stat().st_size)
    fresh.channel.close()
    assert fresh.exit_code() == 0


@pytest.mark.parametrize(
    "odd",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes(100),
        JobHead(operation=Operation.RESIZE, job_id=1, options_size=2**32 - 1).pack(),
        JobHead(operation=Operation.RESIZE, job_id=1, image_size=2**60).pack(),
        JobHead(operation=Operation.RESIZE, job_id=1, carrier=Carrier.DESCRIPTOR).pack(),
    ],
    ids=["http", "zeros", "options-too-large", "image-too-large", "no-descriptor"],
)
def test_odd_bytes_end_it(fresh: Child, odd: bytes) -> None:
    fresh.channel.sendall(odd)
    assert fresh.exit_code() == 3


def test_the_end_within_a_job_ends_it(fresh: Child) -> None:
    fresh.channel.sendall(JobHead(operation=Operation.RESIZE, job_id=1, image_size=100).pack() + bytes(50))
    fresh.channel.close()
    assert fresh.exit_code() == 3


@pytest.mark.parametrize("count", [1, 2])
def test_descriptors_that_were_not_announced_end_it(fresh: Child, count: int) -> None:
    carrier = Carrier.INLINE if count == 1 else Carrier.DESCRIPTOR
    head = JobHead(operation=Operation.RESIZE, job_id=1, carrier=carrier)
    with Path(os.devnull).open("rb") as file:
        fresh.send_job(head, descriptors=(file.fileno(),) * count)
    assert fresh.exit_code() == 3


def test_the_signals_of_a_terminal_do_not_end_it(fresh: Child) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        fresh.process.send_signal(number)
    fresh.works()


@linux_only
def test_it_dies_with_its_parent() -> None:
    # A parent in between, whose end is the only thing that happens: the socket stays open in this process.
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
        ({"parent": 4194304}, "the parent process 4194304 is gone"),
        ({"colour": 3}, "colour"),
        ({"formats": ["png", "xyz"]}, "xyz is unknown"),
    ],
)
def test_a_start_that_fails_is_told_in_one_line(config: dict[str, Any], reason: str) -> None:
    child = Child(config)
    try:
        assert child.receive(1) == b""
        assert child.exit_code() == 1
        said = child.said()
        assert reason in said
        assert said.count("\n") == 1
    finally:
        child.close()


def test_a_missing_libvips_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "pyvips.py").write_text("raise OSError('cannot load library\\nlibvips.so.42')\n")
    child = Child(environment={"PYTHONPATH": str(tmp_path)})
    try:
        assert child.receive(1) == b""
        assert child.exit_code() == 1
        assert child.said() == "OSError: cannot load library libvips.so.42\n"
    finally:
        child.close()


def test_a_heavy_job_that_was_not_admitted_says_what_it_needs() -> None:
    child = Child()
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
