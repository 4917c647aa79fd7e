"""Command lines of workers that have turned against the gateway."""

import sys

from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.launch import Command

_WORDS = """
import array, ctypes, os, socket, subprocess, sys, threading, time
from vipsrv.errors import Cancelled, CorruptImage, DeadlineExceeded, InternalError
from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.workers.channel import JOB_SIZE, JobHead, Ready, ReplyHead
channel = socket.socket(fileno=int(sys.argv[1]))
def ready():
    channel.sendall(Ready(pid=1, readers={"jpeg": "libvips"}, writers=("jpeg",)).pack())
def job():
    head = JobHead.unpack(channel.recv(JOB_SIZE, socket.MSG_WAITALL))
    channel.recv(head.options_size, socket.MSG_WAITALL)
    return head.job_id
def reply(job_id, size, count=1):
    source = ImageInfo(format="jpeg", width=9, height=9, pages=1, has_alpha=False, orientation=1, size=9)
    outputs = (OutputInfo(width=9, height=9, format="jpeg", quality=85, size=size),) * count if size else ()
    channel.sendall(ReplyHead(job_id=job_id, source=source, outputs=outputs).pack() + b"abc")
def heavy(job_id, memory=1 << 30):
    channel.sendall(ReplyHead(job_id=job_id, needs=memory, needs_ms=1500).pack())
def fail(job_id, error):
    channel.sendall(ReplyHead(job_id=job_id, error=error).pack())
def sleep():
    time.sleep(600)
"""
"""The functions that a script is made of."""


def rogue(script: str) -> Command:
    """Workers that run ``script`` instead of the real program."""

    def command(inherited: list[int], _config: WorkerConfig) -> list[str]:
        return [sys.executable, "-c", _WORDS + script, str(inherited[0])]

    return command
