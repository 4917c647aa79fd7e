"""What code in a worker's place could try, each attempt in a confined process of its own.

usage: python attack.py [--unconfined] [--older-thread] [--uid NUMBER]

This process plays the gateway: it has an environment, a secret in memory, descriptors and a listener. For
each attempt it forks a process, confines it as `vipsrv.workers.child` does, and lets it attack. Prints a JSON
object: the name of each attempt → how it failed, or "reached". Exit status 1 if a confined one was reached.
Needs nothing but vipsrv and the standard library, so that it runs in the container image.
"""

import argparse
import ctypes
import encodings.idna  # noqa: F401 - or else socket would import it in the confined process
import json
import mmap
import os
import platform
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vipsrv.worker_config import SandboxMode
from vipsrv.workers.child.sandbox import Confinement
from vipsrv.workers.child.sandbox.libc import syscall
from vipsrv.workers.process_control import prctl

REACHED = "reached"
JOB_MEMORY = 64 << 20
_SECRET = b"the secret of the gateway"
_SHELL_RAN = 42  # exit status
_KEPT = 31  # number of a descriptor that a worker must not have
_PR_SET_DUMPABLE = 4

X86_64 = platform.machine() == "x86_64"


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the attacker knows about this process and its other worker."""

    pid: int
    sibling: int
    secret: int  # its address
    listener: int  # descriptor
    port: int
    udp_port: int
    abstract: str
    spool: Path
    i386: Callable[[], int] | None  # machine code that makes a 32-bit system call
    channel: int = -1  # descriptor of the attacker's own


Attack = Callable[[Gateway], object]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def number(x86_64: int, aarch64: int) -> int:
    return x86_64 if X86_64 else aarch64


# Files.


@attack
def read_passwd(_: Gateway) -> None:
    Path("/etc/passwd").read_bytes()


@attack
def list_root(_: Gateway) -> None:
    os.listdir("/")  # noqa: PTH208 - the plain call is the attempt


@attack
def read_a_spooled_file(gateway: Gateway) -> None:
    (gateway.spool / "victim").read_bytes()


@attack
def write_to_spool(gateway: Gateway) -> None:
    (gateway.spool / "new").write_bytes(b"x")


@attack
def fill_the_disk(gateway: Gateway) -> None:
    file = os.open(gateway.spool, os.O_TMPFILE | os.O_WRONLY)
    os.write(file, bytes(1 << 20))


@attack
def unlink_in_spool(gateway: Gateway) -> None:
    (gateway.spool / "victim").unlink()


@attack
def rename_in_spool(gateway: Gateway) -> None:
    (gateway.spool / "victim").rename(gateway.spool / "other")


@attack
def make_a_symbolic_link(gateway: Gateway) -> None:
    (gateway.spool / "link").symlink_to("/etc/passwd")


@attack
def change_mode(gateway: Gateway) -> None:
    (gateway.spool / "victim").chmod(0o777)


@attack
def open_by_handle(_: Gateway) -> None:
    handle = ctypes.create_string_buffer(136)
    ctypes.c_uint.from_buffer(handle).value = 128
    mount = ctypes.c_int()
    syscall(number(303, 264), -100, address(b"/etc/passwd"), address(handle), ctypes.addressof(mount), 0)


@attack
def use_an_inherited_descriptor(_: Gateway) -> None:
    os.read(_KEPT, 1)


# Programs and processes.


@attack
def run_a_shell(_: Gateway) -> None:
    os.execv("/bin/sh", ["sh", "-c", f"exit {_SHELL_RAN}"])  # noqa: S606 - it is the attempt


@attack
def fork(_: Gateway) -> None:
    if os.fork() == 0:
        os._exit(0)


@attack
def spawn(_: Gateway) -> None:
    os.posix_spawn("/bin/true", ["true"], {})


@attack
def clone_a_process(_: Gateway) -> None:
    if syscall(number(56, 220), signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)


@attack
def clone3_a_process(_: Gateway) -> None:
    arguments = (ctypes.c_uint64 * 8)()
    arguments[4] = signal.SIGCHLD
    if syscall(435, ctypes.addressof(arguments), ctypes.sizeof(arguments)) == 0:
        os._exit(0)


@attack
def become_root(_: Gateway) -> None:
    os.setresuid(0, 0, 0)


@attack
def unshare_user_namespace(_: Gateway) -> None:
    syscall(number(272, 97), 0x10000000)


@attack
def clone_into_a_namespace(_: Gateway) -> None:
    if syscall(number(56, 220), 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        os._exit(0)


# The network.


@attack
def connect_tcp(gateway: Gateway) -> None:
    socket.create_connection(("127.0.0.1", gateway.port), 5)


@attack
def listen_tcp(_: Gateway) -> None:
    socket.create_server(("127.0.0.1", 0))


@attack
def send_udp(gateway: Gateway) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", gateway.udp_port))


@attack
def netlink(_: Gateway) -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)


@attack
def connect_unix(gateway: Gateway) -> None:
    socket.socket(socket.AF_UNIX).connect(str(gateway.spool / "socket"))


@attack
def connect_abstract(gateway: Gateway) -> None:
    socket.socket(socket.AF_UNIX).connect(f"\0{gateway.abstract}")


@attack
def make_a_socket_pair(_: Gateway) -> None:
    socket.socketpair()


# Other processes.


@attack
def urgent_data(gateway: Gateway) -> None:
    syscall(number(44, 206), gateway.channel, address(b"x"), 1, socket.MSG_OOB, 0, 0)


@attack
def cpu_clock_of_gateway(gateway: Gateway) -> None:
    time.clock_gettime(~gateway.pid << 3 | 2)  # CPUCLOCK_SCHED


@attack
def read_gateway_environment(gateway: Gateway) -> None:
    assert Path(f"/proc/{gateway.pid}/environ").read_bytes()


@attack
def read_gateway_memory(gateway: Gateway) -> None:
    file = os.open(f"/proc/{gateway.pid}/mem", os.O_RDONLY)
    assert os.pread(file, len(_SECRET), gateway.secret) == _SECRET


@attack
def write_gateway_memory(gateway: Gateway) -> None:
    file = os.open(f"/proc/{gateway.pid}/mem", os.O_RDWR)
    assert os.pwrite(file, _SECRET, gateway.secret) == len(_SECRET)


@attack
def read_gateway_memory_by_system_call(gateway: Gateway) -> None:
    _move_memory(number(310, 270), gateway)


@attack
def write_gateway_memory_by_system_call(gateway: Gateway) -> None:
    _move_memory(number(311, 271), gateway)


@attack
def take_a_descriptor_of_the_gateway(gateway: Gateway) -> None:
    syscall(438, syscall(434, gateway.pid, 0), gateway.listener, 0)


@attack
def trace_the_gateway(gateway: Gateway) -> None:
    syscall(number(101, 117), 0x4206, gateway.pid, 0, 0)  # PTRACE_SEIZE


@attack
def trace_a_sibling(gateway: Gateway) -> None:
    syscall(number(101, 117), 0x4206, gateway.sibling, 0, 0)


@attack
def signal_the_gateway(gateway: Gateway) -> None:
    os.kill(gateway.pid, signal.SIGURG)


@attack
def signal_a_sibling(gateway: Gateway) -> None:
    os.kill(gateway.sibling, signal.SIGURG)


@attack
def signal_a_thread_of_the_gateway(gateway: Gateway) -> None:
    syscall(number(234, 131), gateway.pid, gateway.pid, signal.SIGURG)


@attack
def signal_by_pidfd(gateway: Gateway) -> None:
    syscall(424, syscall(434, gateway.pid, 0), signal.SIGURG, 0, 0)


@attack
def pin_the_gateway(gateway: Gateway) -> None:
    os.sched_setaffinity(gateway.pid, os.sched_getaffinity(0))


@attack
def limit_the_gateway(gateway: Gateway) -> None:
    resource.prlimit(gateway.pid, resource.RLIMIT_CORE, (0, 0))


@attack
def slow_the_gateway(gateway: Gateway) -> None:
    os.setpriority(os.PRIO_PROCESS, gateway.pid, 1)


# Memory and the kernel.


@attack
def map_executable_memory(_: Gateway) -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


@attack
def make_memory_executable(_: Gateway) -> None:
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    syscall(number(10, 226), start, 4096, mmap.PROT_READ | mmap.PROT_EXEC)


@attack
def make_memory_executable_with_a_key(_: Gateway) -> None:
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    syscall(number(329, 288), start, 4096, mmap.PROT_READ | mmap.PROT_EXEC, -1)


@attack
def take_more_memory_than_a_job(_: Gateway) -> None:
    mmap.mmap(-1, 64 * JOB_MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


@attack
def take_shared_memory(_: Gateway) -> None:
    mmap.mmap(-1, 64 * JOB_MEMORY, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)


@attack
def take_memory_as_a_stack(_: Gateway) -> None:
    grows_down = 0x100
    mmap.mmap(-1, 64 * JOB_MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | grows_down)


@attack
def page_tables(_: Gateway) -> None:
    whole = 1 << 40  # 2 GiB of page tables if a byte of every 2 MiB is read
    memory = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    assert memory[0] == memory[whole - 1] == 0


@attack
def grow_the_stack(_: Gateway) -> None:
    end = ctypes.c_size_t.in_dll(ctypes.CDLL(None), "__libc_stack_end").value
    ctypes.memset(end - JOB_MEMORY, 1, 1)


@attack
def memfd(_: Gateway) -> None:
    os.memfd_create("x")


@attack
def shared_memory_of_system_v(_: Gateway) -> None:
    syscall(number(29, 194), 0, 4096, 0o1600)


@attack
def io_uring(_: Gateway) -> None:
    syscall(425, 1, address(ctypes.create_string_buffer(120)))


@attack
def bpf(_: Gateway) -> None:
    attributes = (ctypes.c_uint32 * 18)(2, 4, 4, 1)  # an array map of one element
    syscall(number(321, 280), 0, ctypes.addressof(attributes), ctypes.sizeof(attributes))


@attack
def userfaultfd(_: Gateway) -> None:
    syscall(number(323, 282), 1)  # UFFD_USER_MODE_ONLY


@attack
def add_key(_: Gateway) -> None:
    syscall(number(248, 217), address(b"user"), address(b"name"), address(b"value"), 5, -2)


@attack
def keyctl(_: Gateway) -> None:
    syscall(number(250, 219), 0, -2, 1)


@attack
def perf_event(_: Gateway) -> None:
    attributes = (ctypes.c_uint32 * 32)(1, 128, 1)  # a software event: CPU clock
    syscall(number(298, 241), ctypes.addressof(attributes), 0, -1, -1, 0)


@attack
def i386_call(gateway: Gateway) -> None:
    assert gateway.i386 is not None
    assert gateway.i386() > 0  # getpid


@attack
def x32_call(_: Gateway) -> None:
    syscall(0x40000000 | 39)  # getpid


X86_64_ONLY = frozenset({"i386_call", "x32_call"})
"""Attempts that exist on x86-64 only."""

NOT_EVERYWHERE = frozenset(
    {
        *{
            "become_root",
            "unshare_user_namespace",
            "clone_into_a_namespace",
            "bpf",
            "perf_event",
            "userfaultfd",
        },
        *{"io_uring", "add_key", "keyctl", "i386_call", "x32_call", "make_memory_executable_with_a_key"},
        *{"trace_the_gateway", "read_gateway_memory", "write_gateway_memory", "read_gateway_environment"},
        *{"read_gateway_memory_by_system_call", "write_gateway_memory_by_system_call"},
        *{"take_a_descriptor_of_the_gateway", "trace_a_sibling"},
        *{"urgent_data", "grow_the_stack"},  # Linux 5.15; a hard limit of 8 MiB
    }
)
"""Attempts that a kernel, its settings or a container may refuse to an unconfined process, too."""


def attempts() -> list[str]:
    return [name for name in ATTACKS if X86_64 or name not in X86_64_ONLY]


def address(data: "bytes | ctypes.Array[ctypes.c_char]") -> int:
    kept = ctypes.create_string_buffer(data) if isinstance(data, bytes) else data
    _alive.append(kept)
    return ctypes.addressof(kept)


_alive: list[object] = []


def _move_memory(call: int, gateway: Gateway) -> None:
    local = ctypes.create_string_buffer(_SECRET)
    ours = (ctypes.c_size_t * 2)(ctypes.addressof(local), len(_SECRET))
    theirs = (ctypes.c_size_t * 2)(gateway.secret, len(_SECRET))
    moved = syscall(call, gateway.pid, ctypes.addressof(ours), 1, ctypes.addressof(theirs), 1, 0)
    assert moved == len(_SECRET)


# The gateway.


def attempt(name: str, gateway: Gateway, *, confined: bool, older_thread: bool) -> str:
    """Fork a process that makes one attempt; return how it failed, or ``REACHED``."""
    (gateway.spool / "victim").write_bytes(b"another client's image")
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            _attacker(ATTACKS[name], gateway, theirs, confined=confined, older_thread=older_thread)
        finally:
            os._exit(1)
    theirs.close()
    with ours:
        said = b""
        while part := ours.recv(4096):
            said += part
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == _SHELL_RAN:
        return REACHED
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return said.decode() or f"exit status {code}"


def _attacker(
    attack: Attack, gateway: Gateway, channel: socket.socket, *, confined: bool, older_thread: bool
) -> None:
    said = ""
    start = threading.Event()

    def run() -> None:
        nonlocal said
        start.wait()
        try:
            attack(replace(gateway, channel=channel.fileno()))
            said = REACHED
        except Exception as error:  # noqa: BLE001 - however it fails
            said = f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=run)
    mode: SandboxMode = "require" if confined else "off"
    confinement = Confinement(mode, parent=gateway.pid, job_memory=JOB_MEMORY, max_upload=1, worker_uid=0)
    confinement.begin()
    if older_thread:
        thread.start()  # as the threads that libvips starts in the trial run
    if confined:
        try:
            confinement.complete(channel.fileno())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the report must have it
            channel.sendall(f"not confined: {error}".encode())
            return
    start.set()
    if older_thread:
        thread.join()
    else:
        run()
    channel.sendall(said.encode())
    os._exit(0)


@contextmanager
def gateway(spool: Path) -> Iterator[Gateway]:
    """Everything that there is to attack."""
    prctl(_PR_SET_DUMPABLE, 1)  # a change of the user has cleared it; the control run needs it
    secret = ctypes.create_string_buffer(_SECRET)
    abstract = f"vipsrv-attack-{os.getpid()}"
    sibling = os.fork()
    if sibling == 0:
        signal.pause()
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as hidden,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(spool / "socket"))
        hidden.bind(f"\0{abstract}")
        unix.listen(8)
        hidden.listen(8)
        os.dup2(os.open("/etc/passwd", os.O_RDONLY), _KEPT)
        try:
            yield Gateway(
                pid=os.getpid(),
                sibling=sibling,
                secret=ctypes.addressof(secret),
                listener=tcp.fileno(),
                port=tcp.getsockname()[1],
                udp_port=udp.getsockname()[1],
                abstract=abstract,
                spool=spool,
                i386=_i386_getpid() if X86_64 else None,
            )
        finally:
            os.kill(sibling, signal.SIGKILL)
            os.waitpid(sibling, 0)


def _i386_getpid() -> Callable[[], int]:
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    _alive.append(memory)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    return lambda: int(function())


def main() -> int:
    """Make all attempts; the exit status says whether a confined one was reached."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--unconfined", action="store_true")
    parser.add_argument("--older-thread", action="store_true")
    parser.add_argument("--uid", type=int, default=0)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (most, most))  # as after "ulimit -s unlimited"
    with tempfile.TemporaryDirectory() as folder:
        if arguments.uid:
            os.chown(folder, arguments.uid, arguments.uid)
            os.setgroups([])
            os.setresgid(*[arguments.uid] * 3)
            os.setresuid(*[arguments.uid] * 3)
        with gateway(Path(folder)) as target:
            outcomes = {
                name: attempt(
                    name,
                    target,
                    confined=not arguments.unconfined,
                    older_thread=arguments.older_thread,
                )
                for name in attempts()
            }
    sys.stdout.write(json.dumps(outcomes, indent=1))
    return 0 if arguments.unconfined or REACHED not in outcomes.values() else 1


if __name__ == "__main__":
    sys.exit(main())
