"""Confine a worker before it decodes the first image, because an image may take over its decoder.

The order matters, because each step takes away what earlier steps need::

    begin    before libvips starts its first thread, because Landlock holds for threads that start later:
             OOM score, no_new_privs, Landlock without writing, network and signals
    complete after the trial run, which loads libraries and modules:
             descriptors, own user, rlimits, not dumpable, Landlock without anything ─► tested,
             seccomp for all threads ─► tested, standard error closed
"""

import errno
import os
import sys
from collections.abc import Callable

from vipsrv.worker_config import SandboxMode
from vipsrv.workers import process_control
from vipsrv.workers.child.sandbox import (
    descriptors,
    landlock,
    parent,
    privileges,
    resources,
    seccomp,
    self_test,
)

_GO_ON = "'--sandbox best-effort' goes on without it"


class SandboxError(Exception):
    """A layer of the confinement does not hold, and the server's settings require it."""


class Confinement:
    """Confines this process: ``begin`` before the trial run, ``complete`` after it.

    ``parent`` is the gateway's process id. The rest are settings of the server: ``mode``, ``None`` for its
    default, and ``worker_uid``, the user to change to from root, 0 for one of the worker's own.
    """

    def __init__(
        self, mode: SandboxMode | None, *, parent: int, job_memory: int, max_upload: int, worker_uid: int
    ) -> None:
        self._mode = mode or default_mode()
        self._parent = parent
        self._job_memory = job_memory
        self._max_upload = max_upload
        self._worker_uid = worker_uid
        self._null = descriptors.open_null()
        self._layers: list[str] = []
        self._unrestricted_threads: OSError | None = None
        """Why the threads of the trial run are not under Landlock."""

    def begin(self) -> None:
        """Deny what the trial run does not need. Raises ``SandboxError``."""
        if self._mode == "require" and sys.platform != "linux":
            raise _refusal(f"workers are not confined on {sys.platform}")
        if self._mode == "off" or sys.platform != "linux":
            return
        resources.prefer_for_oom_killer()
        self._add("no-new-privs", privileges.gain_no_privileges)
        if landlock.version():
            try:
                landlock.restrict(may_read=True)
            except OSError as error:
                self._unrestricted_threads = error  # ``complete`` says so

    def complete(self, channel: int) -> tuple[str, ...]:
        """Deny everything but jobs over ``channel``; return the layers that hold. Raises ``SandboxError``."""
        descriptors.keep_only(channel, self._null)
        if sys.platform == "linux":
            if self._mode == "off":
                privileges.gain_no_privileges()
            else:
                self._confine()
        descriptors.close_standard_error()
        return tuple(self._layers)

    def _confine(self) -> None:
        changed = os.geteuid() == 0 and self._add("own-uid", self._change_user)
        own_user = changed and self._worker_uid == 0
        parent.die_with_parent(self._parent)  # a change of the user has undone it
        self._add("rlimits", lambda: self._limit(own_user=own_user))
        self._add("not-dumpable", process_control.forbid_inspection)
        abi = landlock.version()
        if abi:
            self._add(f"landlock-{abi}", self._restrict_files, lambda: self_test.beyond_landlock(abi))
        elif self._mode == "require":
            raise _refusal("this kernel has no Landlock (Linux 5.13, enabled at boot)")
        if seccomp.available():
            self._add("seccomp", seccomp.restrict, self_test.beyond_seccomp)
        elif self._mode == "require":
            raise _refusal("there is no filter of system calls (seccomp) for this kernel and architecture")

    def _limit(self, *, own_user: bool) -> None:
        resources.limit(self._job_memory, self._max_upload, own_user=own_user)

    def _change_user(self) -> None:
        try:
            privileges.change_user(self._worker_uid)
        except OSError as error:
            if self._mode != "require":
                raise
            # With best-effort the worker would stay root, so that is no advice here.
            advice = (
                "name a user that exists here with --worker-uid"
                if error.errno == errno.EINVAL  # the number is not mapped in this user namespace
                else "give it the capabilities SETUID and SETGID"
            )
            raise _refusal(
                f"the layer own-uid cannot be set up: {error}",
                f"{advice}, or start the server as an unprivileged user",
            ) from None

    def _restrict_files(self) -> None:
        landlock.restrict()
        if self._unrestricted_threads is not None:
            raise self._unrestricted_threads

    def _add(
        self, layer: str, set_up: Callable[[], object], gap: Callable[[], str | None] = lambda: None
    ) -> bool:
        """Set up a layer and note its name if it holds: if ``gap`` finds nothing that is still possible."""
        try:
            set_up()
            possible = gap()
        except (OSError, ValueError) as error:
            fault = f"the layer {layer} cannot be set up: {error}"
        else:
            fault = f"in spite of the layer {layer} it could still {possible}" if possible else ""
        if not fault:
            self._layers.append(layer)
        elif self._mode == "require":
            raise _refusal(fault)
        return not fault


def default_mode() -> SandboxMode:
    """Return the mode if the settings name none: every layer is required where the kernel has them."""
    return "require" if not layers_not_in_kernel() else "best-effort"


def layers_not_in_kernel() -> tuple[str, ...]:
    """Return the names of the layers that this kernel does not have for this process."""
    if sys.platform != "linux":
        return "landlock", "seccomp"
    has = {"landlock": landlock.version() > 0, "seccomp": seccomp.available()}
    return tuple(name for name, there in has.items() if not there)


def _refusal(fault: str, advice: str = _GO_ON) -> SandboxError:
    return SandboxError(f"a worker cannot be confined: {fault}; {advice}")
