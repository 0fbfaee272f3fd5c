"""A training that is killed, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("corecompress"))


def weights_of_both(spec: str, encoder: str, folder: Path) -> list[bytes]:
    """The weights of a run that was never killed, and of one that was at its first checkpoint, and resumed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # tests run beside it
    command = [COMMAND, "fit", "--data", spec, "--encoder", encoder, "--prior", "gaussian", "--seed", "5", "-o"]
    subprocess.run([*command, folder / "whole"], check=True, capture_output=True, env=environment)
    running = subprocess.Popen([*command, folder / "killed"], stderr=subprocess.DEVNULL, env=environment)
    scratch = folder / "killed.partial" / "training"
    until = time.monotonic() + 120
    while not list(scratch.glob("step-*")) and time.monotonic() < until:
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (folder / "killed").exists()
    done = subprocess.run([*command, folder / "killed", "--resume"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [(folder / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
