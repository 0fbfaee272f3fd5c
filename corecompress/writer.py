"""Writing a compressed folder: beside its target, in order, renamed into place when all of it is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from corecompress.artifact import PAYLOAD_INDEX, STEM, FileRecord, header_hash
from corecompress.components import TensorInfo
from corecompress.errors import CorecompressError, OutOfReach
from corecompress.hashing import hash_bytes, hash_file
from corecompress.journal import NAME as JOURNAL
from corecompress.journal import Journal, sync
from corecompress.safetensors_file import header_bytes, read_range

SHARD_BYTES = 5_000_000_000
METADATA = {"format": "pt"}
OURS = {"config.json", "encoder.json"}
"""A folder with one of these is a checkpoint or a fitted encoder, which --force may replace."""
STAGES = "stages"
"""Where stages keep what goes when the run is done."""


@contextmanager
def workplace(target: Path, *, force: bool, resume: bool, source: Path | None = None) -> Iterator[Path]:
    """A folder beside `target` to write in, locked against a second process, and published as `target` at the end.

    The body leaves it complete; it is then synced and renamed. When the body raises, it stays if something is kept that
    `resume` can go on with (`is_begun`), and goes otherwise. Raises CorecompressError, before anything is touched,
    for a target that is there already or can't be written.
    """
    partial, lock_path = partial_of(target), lock_of(target)
    check_target(target, force, source, resume)
    lock = FileLock(lock_path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        if not lock_path.exists():  # filelock waits where a file system refuses new files as well
            raise CorecompressError(f"{target}: can't be written; choose another -o") from None
        raise CorecompressError(f"{target}: another process is writing it; wait for it, or choose another -o") from None
    except OSError as problem:
        raise CorecompressError(f"{target}: can't be written ({problem.strerror}); choose another -o") from None
    try:
        check_target(target, force, source, resume)
        if partial.exists() and not resume:
            if is_begun(partial) and not force:
                raise CorecompressError(
                    f"{partial}: an unfinished run; add --resume to go on with it, or --force to start again"
                )
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        try:
            yield partial
            _publish(partial, target)
        except OutOfReach:  # another recipe must be asked for, which could not go on with this run
            shutil.rmtree(partial, ignore_errors=True)
            raise
        except OSError as problem:
            raise CorecompressError(_disk_problem(problem, target, partial)) from problem
        finally:
            if partial.exists() and not is_begun(partial):
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        lock_path.unlink(missing_ok=True)
        lock.release()


def partial_of(target: Path) -> Path:
    """The folder that a run writes in before it is published as `target`."""
    return target.with_name(target.name + ".partial")


def lock_of(target: Path) -> Path:
    """The file that keeps a second process off."""
    return target.with_name(target.name + ".lock")


def is_begun(partial: Path) -> bool:
    """Whether --resume would find something there: entries of a journal, or what a stage keeps for itself."""
    journals = (partial / JOURNAL, partial / STAGES / JOURNAL)
    if any(path.exists() and len(path.read_bytes().splitlines()) > 1 for path in journals):
        return True
    kept = (path for path in partial.glob("*/**/*") if path.parent != partial / STAGES)
    return any(path.is_file() for path in kept)


def check_target(target: Path, force: bool, source: Path | None, resume: bool = False) -> None:
    """Raises CorecompressError for a target that is there and may not be replaced; resume: the run was to go on."""
    if target.is_symlink() or target.is_file():
        raise CorecompressError(f"{target}: is no folder; choose another -o")
    if not target.exists():
        return
    inside = {path.name for path in target.iterdir()}
    if not force:
        if resume and inside & OURS:
            raise CorecompressError(
                f"{target}: exists already, and whole, so there is nothing to go on with; `corecompress evaluate` "
                "measures a compressed folder (--card writes it down), --force makes it again"
            )
        raise CorecompressError(f"{target}: exists already; choose another -o, or add --force to replace it")
    if inside and not inside & OURS:
        raise CorecompressError(f"{target}: holds no checkpoint, so --force does not replace it; choose another -o")
    if source is not None and source.resolve().is_relative_to(target.resolve()):
        raise CorecompressError(f"{target}: holds the source; choose another -o")


def _disk_problem(problem: OSError, target: Path, partial: Path) -> str:
    what = problem.strerror or str(problem)
    where = problem.filename or partial
    if is_begun(partial):
        return f"{where}: {what}; what is done is kept in {partial}: mend it and add --resume"
    return f"{where}: {what}; nothing was written to {target}"


def _publish(partial: Path, target: Path) -> None:
    (partial / JOURNAL).unlink(missing_ok=True)
    for parent, _, files in os.walk(partial):
        for file in files:
            sync(Path(parent) / file)
        sync(Path(parent))
    if target.exists():
        replaced = target.with_name(target.name + ".replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
        partial.rename(target)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        partial.rename(target)
    sync(target.parent)


class PayloadWriter:
    """The payload files as they grow: every addition is journaled, in the order of `keys`.

    keys: names of all tensors that will be added; most: an upper bound of their bytes together, which decides how
    many digits the header must have room for; limit: bytes of one file.
    """

    def __init__(self, folder: Path, keys: list[str], most: int, journal: Journal, limit: int = SHARD_BYTES):
        self.folder, self.journal, self.limit = folder, journal, limit
        self._digits, self._left = len(str(max(most, limit))) + 1, list(keys)
        self._files: list[list[TensorInfo]] = []
        self._starts: list[int] = []
        self._out: Any = None
        self._replay()

    def add(self, key: str, parts: list[Any], entry: dict[str, Any]) -> None:
        """Append one tensor, its parts (bytes or uint8 arrays) one after the other, and journal it with `entry`."""
        nbytes = sum(map(len, parts))
        if not self._files or (self._files[-1] and self._filled() + nbytes > self.limit):
            self._open_next()
        for part in parts:
            self._out.write(part)
        self._out.flush()
        self._note(key, nbytes)
        self.journal.add(
            {**entry, "key": key, "file": len(self._files), "bytes": nbytes, "stored_sha256": hash_bytes(*parts)}
        )

    def finish(self) -> list[FileRecord]:
        """Write the headers (and the index of several files) and give the files their names."""
        if not self._files:
            self._open_next()
        self._out.close()
        count = len(self._files)
        records: list[FileRecord] = []
        weight_map: dict[str, str] = {}
        for number, (infos, start) in enumerate(zip(self._files, self._starts, strict=True), 1):
            name = f"{STEM}.safetensors" if count == 1 else f"{STEM}-{number:05d}-of-{count:05d}.safetensors"
            path = self._path(number)
            header = header_bytes(infos, METADATA, start)
            assert len(header) == start, "the header outgrew the room that was kept for it"
            with open(path, "r+b") as file:
                file.write(header)
            path = path.rename(self.folder / name)
            records.append(FileRecord(name, path.stat().st_size, header_hash(path, start)))
            weight_map |= {info.name: name for info in infos}
        if count > 1:
            index = {
                "metadata": {"total_size": sum(i.nbytes for f in self._files for i in f)},
                "weight_map": weight_map,
            }
            (self.folder / PAYLOAD_INDEX).write_text(
                json.dumps(index, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        return records

    def _path(self, number: int) -> Path:
        return self.folder / f"payload-{number}"

    def _filled(self) -> int:
        return sum(info.nbytes for info in self._files[-1])

    def _note(self, key: str, nbytes: int) -> None:
        self._files[-1].append(TensorInfo(key, "U8", (nbytes,)))
        self._left.remove(key)

    def _open_next(self, mode: str = "wb") -> None:
        """Begin a file, with room in front for a header that names everything still to come."""
        if self._out is not None:
            self._out.close()
        fixed = len('"":{"dtype":"U8","shape":[],"data_offsets":[,]},') + 3 * self._digits
        room = 64 + sum(len(json.dumps(key, ensure_ascii=False).encode()) + fixed for key in self._left)
        self._files.append([])
        self._starts.append(-(-room // 8) * 8)
        self._out = open(self._path(len(self._files)), mode)  # noqa: SIM115  (open across calls)
        self._out.seek(self._starts[-1])

    def _replay(self) -> None:
        """Take over what the journal says is written, as far as the bytes are really there."""
        for count, entry in enumerate(list(self.journal.entries)):
            if not self._is_there(entry):
                self.journal.keep(count)
                break
            self._note(entry["key"], entry["bytes"])
        if self._files:
            self._out.seek(self._starts[-1] + self._filled())
            self._out.truncate()

    def _is_there(self, entry: dict[str, Any]) -> bool:
        path = self._path(entry["file"])
        if len(self._files) < entry["file"]:
            if not path.exists():
                return False
            self._open_next("r+b")
        try:
            there = read_range(path, self._starts[-1] + self._filled(), entry["bytes"])
        except CorecompressError:
            return False
        return bool(hash_bytes(there) == entry["stored_sha256"])


def carry_files(folder: Path, names: dict[str, str], target: Path) -> list[FileRecord]:
    """Copy files (relative path in `folder` -> relative path in `target`); their records in the manifest."""
    records = []
    for name, new in names.items():
        (target / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target / new)
        records.append(file_record(target, new))
    return records


def file_record(folder: Path, name: str) -> FileRecord:
    """Size and hash of a file as it now stands in `folder`."""
    return FileRecord(name, (folder / name).stat().st_size, hash_file(folder / name))
