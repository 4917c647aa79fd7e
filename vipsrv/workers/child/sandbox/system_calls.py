"""The system calls that a worker may make, and their numbers on each architecture.

What a job needs was measured with strace over images of every format. A call that a library is free to do
without is answered with an error, and the library goes on; a call of ``DEADLY`` is made by no library that a
worker loads, only by an attack, so it ends the worker and the gateway logs SIGSYS.
"""

import errno
import platform
import sys
from dataclasses import dataclass
from typing import Final

OWN_PROCESS: Final = None
"""Stands for the worker's own process id in a condition."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds if the argument with this index, reduced to the bits of ``mask``, is ``value``, or is not."""

    argument: int
    mask: int
    value: int | None
    equal: bool = True


@dataclass(frozen=True, slots=True)
class Architecture:
    """``audit`` is its number in linux/audit.h, ``seccomp`` that of the call which installs a filter."""

    audit: int
    seccomp: int
    numbers: dict[str, int]


_ALL_BITS = 0xFFFFFFFF
_PROT_EXEC = 4
_SHARED_ANONYMOUS = 0x01 | 0x20  # MAP_SHARED and MAP_ANONYMOUS
_MAP_GROWSDOWN = 0x100
_CLONE_THREAD = 0x00010000
# CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of linux/sched.h
_CLONE_NAMESPACES = (
    0x80 | 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
)
_F_DUPFD_CLOEXEC = 1030
_MSG_OOB = 1

ALLOWED = (  # noqa: SIM905 - as a list it would take a line for each
    "recvfrom recvmsg sendmsg sendto mmap mprotect clock_gettime clone fcntl clock_nanosleep tgkill "
    "futex read write munmap madvise brk close lseek pread64 preadv preadv2 readv writev fstat poll ppoll "
    "mremap gettimeofday getpid gettid sched_yield sched_getaffinity getcpu getrandom getrusage times uname "
    "sysinfo nanosleep rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack set_robust_list rseq membarrier "
    "restart_syscall dup dup2 dup3 exit exit_group"
).split()
"""Calls that a worker may make: first those with ``CONDITIONS``, because since Linux 5.11 the kernel runs the
filter for these only; in each part the most frequent first. sendto and sendmsg reach nothing but the channel,
because no other socket can be made."""

_NOT_OUT_OF_BAND = (_MSG_OOB, 0)  # mask and value
_OF_THE_SYSTEM_OR_ITSELF = (0xFFFFFFF0, 0)  # a clock of another process has its id in the upper bits

CONDITIONS: dict[str, tuple[Condition, ...]] = {
    # Out-of-band data of unix sockets, which a worker never uses, had a flaw (CVE-2025-38236).
    "recvfrom": (Condition(3, *_NOT_OUT_OF_BAND),),
    "recvmsg": (Condition(2, *_NOT_OUT_OF_BAND),),
    "sendmsg": (Condition(2, _ALL_BITS, 0),),
    "sendto": (Condition(3, _ALL_BITS, 0),),
    "clock_gettime": (Condition(0, *_OF_THE_SYSTEM_OR_ITSELF),),
    "clock_nanosleep": (Condition(0, *_OF_THE_SYSTEM_OR_ITSELF),),
    "mmap": (
        Condition(2, _PROT_EXEC, 0),
        # These two kinds of memory do not count towards RLIMIT_DATA.
        Condition(3, _SHARED_ANONYMOUS, _SHARED_ANONYMOUS, equal=False),
        Condition(3, _MAP_GROWSDOWN, 0),
    ),
    "mprotect": (Condition(2, _PROT_EXEC, 0),),
    "clone": (Condition(0, _CLONE_THREAD | _CLONE_NAMESPACES, _CLONE_THREAD),),
    "fcntl": (Condition(1, _ALL_BITS, _F_DUPFD_CLOEXEC),),  # Python maps a file by a copy of its descriptor
    "tgkill": (Condition(0, _ALL_BITS, OWN_PROCESS),),  # abort() of a library, so that the log names SIGABRT
}
"""Calls that need certain arguments; with others they get EPERM."""

ANSWERED = {
    "clone3": errno.ENOSYS,  # its flags are in memory, unseen by a filter; libraries then use clone
    "newfstatat": errno.ENOENT,
    "statx": errno.ENOSYS,
}
"""Calls that libraries make, each with the error that they expect."""

DEADLY = (  # noqa: SIM905 - as a list it would take a line for each
    "execve execveat ptrace process_vm_readv process_vm_writev pidfd_open pidfd_getfd pidfd_send_signal "
    "bpf io_uring_setup io_uring_enter io_uring_register userfaultfd add_key request_key keyctl unshare "
    "setns mount umount2 pivot_root chroot name_to_handle_at open_by_handle_at perf_event_open "
    "init_module finit_module kexec_load"
).split()
"""Calls that end the worker."""

_NUMBERS = """
    add_key 248 217             | bpf 321 280                 | brk 12 214
    chroot 161 51               | clock_gettime 228 113       | clock_nanosleep 230 115
    clone 56 220                | clone3 435 435              | close 3 57
    dup 32 23                   | dup2 33 -                   | dup3 292 24
    execve 59 221               | execveat 322 281            | exit 60 93
    exit_group 231 94           | fcntl 72 25                 | finit_module 313 273
    fstat 5 80                  | futex 202 98                | getcpu 309 168
    getpid 39 172               | getrandom 318 278           | getrusage 98 165
    gettid 186 178              | gettimeofday 96 169         | init_module 175 105
    io_uring_enter 426 426      | io_uring_register 427 427   | io_uring_setup 425 425
    kexec_load 246 104          | keyctl 250 219              | lseek 8 62
    madvise 28 233              | membarrier 324 283          | mmap 9 222
    mount 165 40                | mprotect 10 226             | mremap 25 216
    munmap 11 215               | name_to_handle_at 303 264   | nanosleep 35 101
    newfstatat 262 79           | open_by_handle_at 304 265   | perf_event_open 298 241
    pidfd_getfd 438 438         | pidfd_open 434 434          | pidfd_send_signal 424 424
    pivot_root 155 41           | poll 7 -                    | ppoll 271 73
    pread64 17 67               | preadv 295 69 | preadv2 327 286 | process_vm_readv 310 270
    process_vm_writev 311 271   | ptrace 101 117              | read 0 63
    readv 19 65                 | recvfrom 45 207             | recvmsg 47 212
    request_key 249 218         | restart_syscall 219 128     | rseq 334 293
    rt_sigaction 13 134         | rt_sigprocmask 14 135       | rt_sigreturn 15 139
    sched_getaffinity 204 123   | sched_yield 24 124          | sendmsg 46 211
    sendto 44 206               | set_robust_list 273 99      | setns 308 268
    sigaltstack 131 132         | statx 332 291               | sysinfo 99 179
    tgkill 234 131              | times 100 153               | umount2 166 39
    uname 63 160                | unshare 272 97              | userfaultfd 323 282
    write 1 64                  | writev 20 66
"""
"""Name, number on x86-64, number on aarch64; "-" where the call does not exist. Source: asm/unistd_64.h and
asm-generic/unistd.h of Linux 6.18."""


def _numbers(column: int) -> dict[str, int]:
    rows = [entry.split() for line in _NUMBERS.splitlines() for entry in line.split("|") if entry.strip()]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}


_ARCHITECTURES = {
    "x86_64": Architecture(audit=0xC000003E, seccomp=317, numbers=_numbers(1)),
    "aarch64": Architecture(audit=0xC00000B7, seccomp=277, numbers=_numbers(2)),
}


def architecture() -> Architecture | None:
    """Return the calls of this process, ``None`` if there is no list for them."""
    if sys.maxsize <= 2**32:  # a 32-bit process makes other calls on the same machine
        return None
    return _ARCHITECTURES.get(platform.machine())
