"""Find out what a server with given settings would have on this machine, and what is missing.

Each finding has a rating: ``OK``, ``WARNING`` if the server runs with less than it should have, and ``FAULT``
if it cannot run. One trial worker is started, because this process does not load libvips.
"""

import errno
import os
import platform
import resource
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from vipsrv.address import Address
from vipsrv.errors import SettingsError, StartFailed
from vipsrv.server import descriptors
from vipsrv.server.access import is_exposed
from vipsrv.server.cgroups import Cgroups
from vipsrv.server.cpus import available_cpus
from vipsrv.server.formats import formats_of
from vipsrv.server.identity.token_file import read_token_file
from vipsrv.server.memory_limit import memory_needed, shares_of
from vipsrv.server.settings import ServerSettings
from vipsrv.server.spool_folder import IN_MEMORY, filesystem_kind
from vipsrv.server.tls import ServerCertificates
from vipsrv.version import __version__
from vipsrv.workers.confinement import missing_layers

_Value = TypeVar("_Value")

_MIB = 1 << 20
_GATEWAY_TASKS, _WORKER_TASKS = 16, 8
"""Threads that are counted for a gateway, and for a worker that runs a light job. The supervisor of several
gateways counts as one, here and for memory."""

_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs"})


_PROBE_SECONDS = 3.0
_PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nConnection: close\r\n\r\n"


class Rating(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the machine or the settings; ``advice`` says what to do unless all is well."""

    subject: str
    rating: Rating
    detail: str
    advice: str = ""


def diagnose(settings: ServerSettings, cgroups: Cgroups | None = None) -> list[Finding]:
    """Return all findings. Starts and stops a worker."""
    groups = cgroups or Cgroups()
    return [
        *_versions(),
        *_trial_worker(settings),
        *_gateways(settings),
        *_cpu(settings, groups),
        *_memory(settings, groups),
        *_tasks(settings, groups),
        *_descriptors(settings),
        *_spool(settings),
        *_tokens(settings),
        *_tls(settings),
        *_operator(settings),
    ]


def _versions() -> Iterator[Finding]:
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    versions = f"vipsrv {__version__}, Python {platform.python_version()}, {system}"
    yield Finding("versions", Rating.OK, versions)
    if find_spec("uvloop") is None:
        yield Finding(
            "event loop", Rating.WARNING, "uvloop is not installed", "install vipsrv with its dependencies"
        )


def _trial_worker(settings: ServerSettings) -> Iterator[Finding]:
    try:
        ready = formats_of(settings)
    except StartFailed as error:
        yield Finding("worker", Rating.FAULT, str(error))
        return
    readers = ", ".join(f"{name} ({library})" for name, library in ready.readers.items())
    yield Finding("reads", Rating.OK, readers)
    yield Finding("writes", Rating.OK, ", ".join(ready.writers))
    changes_user = os.geteuid() == 0 and settings.user is not None
    # The server starts its workers as that user, and the trial worker was started by root.
    layers = tuple(layer for layer in ready.layers if not (changes_user and layer == "own-uid"))
    yield confinement(layers, root=os.geteuid() == 0 and not changes_user)


def confinement(layers: tuple[str, ...], *, root: bool) -> Finding:
    """Return the finding about the layers that a worker reports, of a server that runs as root or not."""
    held = ", ".join(layers) or "no layer holds"
    missing = missing_layers(layers, root=root)
    if not missing:
        return Finding("confinement", Rating.OK, held)
    whose = " and workers run as root" if "own-uid" in missing else ""
    detail = f"{held}; {', '.join(missing)} missing{whose}"
    return Finding(
        "confinement", Rating.WARNING, detail, "SECURITY.md names the kernels that have them; see --sandbox"
    )


def _gateways(settings: ServerSettings) -> Iterator[Finding]:
    count = settings.gateway_count
    detail = "1 gateway" if count == 1 else f"{count} gateways under a supervisor"
    if count > 1 and sys.platform != "linux":
        yield Finding("gateways", Rating.FAULT, detail, "more than one needs Linux; set --gateways 1")
    elif count > settings.workers:
        advice = "each gateway needs a worker; have fewer gateways or more workers"
        yield Finding("gateways", Rating.FAULT, f"{detail}, and {settings.workers} workers", advice)
    else:
        yield Finding("gateways", Rating.OK, detail)


def _cpu(settings: ServerSettings, cgroups: Cgroups) -> Iterator[Finding]:
    quota, cpus = cgroups.cpu_quota(), available_cpus(cgroups)
    limit = "no quota" if quota is None else f"a quota of {quota:g} cores"
    detail = f"{cpus} cores may be used ({limit}); {settings.workers} workers"
    if settings.workers > cpus:
        advice = f"--workers {cpus} gives the best throughput"
        yield Finding("cpu", Rating.WARNING, detail, advice)
    else:
        yield Finding("cpu", Rating.OK, detail)


def _memory(settings: ServerSettings, cgroups: Cgroups) -> Iterator[Finding]:
    needed = memory_needed(settings)
    limit = cgroups.memory_limit()
    machine = _or_none(lambda: os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    available = min((size for size in (limit, machine) if size), default=None)
    whose = "the machine" if limit is None or available == machine else "the cgroup"
    detail = f"the server takes at most {_mib(needed)}; {whose} has {_mib(available)}"
    if available is not None and needed > available:
        advice = "lower --workers, --decode-memory or --spool-memory, or give it more memory"
        yield Finding("memory", Rating.WARNING, detail, advice)
    else:
        yield Finding("memory", Rating.OK, detail)


def _tasks(settings: ServerSettings, cgroups: Cgroups) -> Iterator[Finding]:
    limit = cgroups.tasks_limit()
    processes = settings.gateway_count + (settings.gateway_count > 1)
    needed = processes * _GATEWAY_TASKS + settings.workers * _WORKER_TASKS
    detail = f"{needed} processes and threads may be needed; " + (
        "the cgroup has no limit" if limit is None else f"the cgroup allows {limit}"
    )
    if limit is not None and limit < needed:
        yield Finding("tasks", Rating.WARNING, detail, "raise the limit (docker run --pids-limit, TasksMax=)")
    else:
        yield Finding("tasks", Rating.OK, detail)


def _descriptors(settings: ServerSettings) -> Iterator[Finding]:
    limits = _or_none(lambda: resource.getrlimit(resource.RLIMIT_NOFILE))
    if limits is None:
        yield Finding("descriptors", Rating.OK, "the limit may not be asked for")
        return
    most = descriptors.highest_limit(limits[1])
    each = shares_of(settings)[0]  # the limit is that of a process, and none has more than the first one
    needed = descriptors.needed(each)
    whose = " of each gateway" if settings.gateway_count > 1 else ""
    detail = f"{needed} may be needed for {each.connections} connections{whose}; {most} are allowed"
    if most < needed:
        advice = (
            "raise the limit (ulimit -Hn, LimitNOFILE=, docker run --ulimit nofile) or lower --connections"
        )
        yield Finding("descriptors", Rating.WARNING, detail, advice)
    else:
        yield Finding("descriptors", Rating.OK, detail)


def _spool(settings: ServerSettings) -> Iterator[Finding]:
    folder = settings.spool_dir
    if not os.access(folder, os.W_OK | os.X_OK):
        detail = f"{folder} is not a folder that can be written to"
        yield Finding("spool", Rating.FAULT, detail, "choose another with --spool-dir")
        return
    free = shutil.disk_usage(folder).free
    kind = filesystem_kind(folder)
    where = f"{folder} ({kind or 'unknown file system'})"
    detail = f"{where} has {_mib(free)} free; --spool-disk is {_mib(settings.spool_disk)}"
    if kind in IN_MEMORY:
        advice = "its files take memory: choose a folder on a disk with --spool-dir"
        yield Finding("spool", Rating.WARNING, detail, advice)
    elif kind in _REMOTE:
        advice = "it is on another machine: choose a folder on a local disk with --spool-dir"
        yield Finding("spool", Rating.WARNING, detail, advice)
    elif free < settings.spool_disk:
        advice = "lower --spool-disk to what is free, or choose another folder with --spool-dir"
        yield Finding("spool", Rating.WARNING, detail, advice)
    else:
        yield Finding("spool", Rating.OK, detail)


def _tokens(settings: ServerSettings) -> Iterator[Finding]:
    if settings.tokens is None:
        return
    try:
        file = read_token_file(settings.tokens)
    except SettingsError as error:
        yield Finding("tokens", Rating.FAULT, str(error), "correct the file that --tokens names")
        return
    detail = f"{settings.tokens} has {len(file.records)} tokens"
    if file.warning:
        yield Finding("tokens", Rating.WARNING, f"{detail}; {file.warning}", "change its mode: chmod 640")
    else:
        yield Finding("tokens", Rating.OK, detail)


def _tls(settings: ServerSettings) -> Iterator[Finding]:
    if settings.tls_cert is None and not any(Address.parse(text).tls for text in settings.listen):
        return
    try:
        names, faults = ServerCertificates(settings).examine()
    except SettingsError as error:
        yield Finding("TLS", Rating.FAULT, str(error), "docs/operations/tls.md says what the files hold")
        return
    detail = f"{settings.tls_cert}{names}"
    if faults:
        advice = "give the server another certificate, or a key that only it can read"
        yield Finding("TLS", Rating.WARNING, f"{detail}; {'; '.join(faults)}", advice)
    else:
        yield Finding("TLS", Rating.OK, detail)


def _operator(settings: ServerSettings) -> Iterator[Finding]:
    address = settings.ops_address
    if address is None:
        yield Finding("operator", Rating.OK, "no metrics and no health over HTTP (--ops-listen off)")
        return
    where = f"metrics, health and the live page at {address}"
    try:
        found = _listens_at(address)
    except (OSError, UnicodeError) as error:  # the latter for an impossible name
        reason = error.strerror if isinstance(error, OSError) else "not a valid host name"
        yield Finding("operator", Rating.FAULT, f"{where}: {reason}", "choose another --ops-listen")
        return
    if found is _Listener.OTHER:
        is_chosen = "ops_listen" in settings.model_fields_set
        advice = "choose another address with --ops-listen"
        rating = Rating.FAULT if is_chosen else Rating.WARNING
        yield Finding("operator", rating, f"{where}, where another program listens", advice)
    elif is_exposed(address) and not settings.insecure:
        advice = "keep it in a private network, or listen on 127.0.0.1; --insecure accepts it"
        yield Finding("operator", Rating.WARNING, f"{where}, which other machines can reach", advice)
    else:
        running = ", where a server runs now" if found is _Listener.VIPSRV else ""
        yield Finding("operator", Rating.OK, f"{where}{running}")


class _Listener(Enum):
    """Who listens at an address."""

    NOBODY = "nobody"
    VIPSRV = "vipsrv"
    OTHER = "another program"


def _listens_at(address: Address) -> _Listener:
    """Find out who listens at the address of an operator. Raises ``OSError`` if it cannot be one."""
    family = socket.AF_UNIX
    target: Any = address.path
    if not address.path:
        family, _, _, _, target = socket.getaddrinfo(
            address.reachable().host, address.port, type=socket.SOCK_STREAM
        )[0]
    elif not os.access(Path(address.path).parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "its folder cannot be written to")
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(_PROBE_SECONDS)
        try:
            sock.connect(target)
        except (ConnectionRefusedError, FileNotFoundError):
            return _Listener.NOBODY
        except OSError:
            return _Listener.OTHER if address.path else _Listener.NOBODY
        try:
            sock.sendall(_PROBE)
            with sock.makefile("rb") as reply:
                return _Listener.VIPSRV if b'"alive": true' in reply.read(_MIB) else _Listener.OTHER
        except OSError:
            return _Listener.OTHER


def _mib(size: int | None) -> str:
    return "an unknown amount" if size is None else f"{size // _MIB:,} MiB"


def _or_none(ask: Callable[[], _Value]) -> _Value | None:
    """What the system answers, or ``None`` if it refuses to."""
    try:
        return ask()
    except (OSError, ValueError):
        return None
