"""Files out of a Debian package, on any system: a .deb is an `ar` archive around a tar.xz."""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from corecompress.demo import cache_folder
from corecompress.errors import CorecompressError
from corecompress.hashing import hash_bytes

MIRROR = "https://deb.debian.org/debian"


@dataclass(frozen=True)
class Package:
    """One pinned package. pool: its folder on a Debian mirror."""

    name: str
    version: str
    pool: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.name}_{self.version}_all.deb"


def fetch_from_deb(package: Package, inside: str) -> Path:
    """The folder of what the package has below `inside`, fetched once into the cache. A .deb that was put into the
    cache folder by hand is taken instead. Raises CorecompressError when it can't be had or has another hash."""
    folder = cache_folder() / f"{package.name}-{package.version}"
    if folder.is_dir():
        return folder
    content = _downloaded(package)
    if hash_bytes(content) != package.sha256:
        raise CorecompressError(f"{package.file}: has another SHA-256 than the pinned one; not used")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        with tarfile.open(fileobj=io.BytesIO(_member(content, "data.tar.xz")), mode="r:xz") as tar:
            for entry in tar:
                name = entry.name.removeprefix("./")
                if entry.isfile() and name.startswith(inside):
                    target = unpacked / name.removeprefix(inside)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    packed = tar.extractfile(entry)
                    assert packed is not None
                    with packed, open(target, "wb") as file:
                        shutil.copyfileobj(packed, file)
        if not folder.exists():
            unpacked.rename(folder)
    return folder


def _downloaded(package: Package) -> bytes:
    by_hand = cache_folder() / package.file
    if by_hand.is_file():
        return by_hand.read_bytes()
    address = f"{MIRROR}/{package.pool}/{package.file}"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return bytes(answer.read())
    except OSError as problem:
        raise CorecompressError(
            f"{address}: can't be fetched ({problem}); check the network, or put that file into {by_hand.parent}"
        ) from None


def _member(archive: bytes, name: str) -> bytes:
    """A member of an `ar` archive: each has a head of 60 bytes, name first, size at 48, and begins at an even place."""
    at = len(b"!<arch>\n")
    while at + 60 <= len(archive):
        size = int(archive[at + 48 : at + 58])
        if archive[at : at + 16].decode().strip().rstrip("/") == name:
            return archive[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise CorecompressError(f"a Debian package without {name}; not used")
