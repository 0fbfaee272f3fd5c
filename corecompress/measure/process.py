"""Commands in processes of their own: what they said, what they took."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO

from corecompress.errors import CorecompressError
from corecompress.plugins import environment

OURS = """
import os, sys, threading
from corecompress.cli import main

def end_with_parent():
    while os.read(0, 1):
        pass
    os._exit(1)

threading.Thread(target=end_with_parent, daemon=True).start()
main()
"""
"""Our command line, which ends when standard input does: a command whose parent was killed would go on for hours."""


@dataclass(frozen=True)
class Ran:
    """seconds: wall; cpu: processor seconds of all threads; peak: bytes of resident memory; said: standard output."""

    seconds: float
    cpu: float
    peak: int
    said: str


def run_command(arguments: list[str]) -> Ran:
    """Run our command line. Raises CorecompressError with the line that it ended with."""
    return run_process([sys.executable, "-c", OURS, *arguments], arguments[0])


def run_process(command: list[str], name: str) -> Ran:
    """Run a command, called `name` where it says nothing itself. Raises CorecompressError when it fails."""
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as problems:
        environ = os.environ | environment()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=problems, env=environ)
        _, status, usage = os.wait4(process.pid, 0)
        assert process.stdin is not None
        process.stdin.close()
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        said, complaint = (_text(file) for file in (out, problems))
    if process.returncode:
        lines = complaint.strip().splitlines() or [f"{name} ended with exit code {process.returncode}"]
        raise CorecompressError(lines[-1].removeprefix("corecompress: "))
    scale = 1 if sys.platform == "darwin" else 1024
    return Ran(round(seconds, 3), round(usage.ru_utime + usage.ru_stime, 3), usage.ru_maxrss * scale, said)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
