"""Where text comes from: files, a folder, a pattern, standard input, a set of the hub, or `demo`.

A source is restartable: `texts()` gives the same documents in the same order each time, streamed.
"""

from __future__ import annotations

import glob
import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import xxhash

from corecompress.demo import cache_folder
from corecompress.errors import CorecompressError
from corecompress_text import readers
from corecompress_text.readers import Tally

HUB_DOCUMENTS = 20_000
"""Documents that are read of a hub set unless `documents` says otherwise: such sets may be terabytes."""

STDIN = "standard input"

HUB_SET = re.compile(r"(?P<name>[\w][\w.-]*(?:/[\w][\w.-]*)?)(?P<rest>(?::[^:]*){0,3})")


class Source(Protocol):
    """A stream of documents. tally: what the last pass noticed; joiner: what stands between two documents in running
    text, None where they are unrelated records (a tokenizer's end-of-text token parts those)."""

    tally: Tally
    joiner: str | None

    def texts(self) -> Iterator[str]: ...

    def fingerprint(self) -> str: ...

    def describe(self) -> str: ...


def open_source(text: str, unit: str, column: str | None, encoding: str | None, documents: int | None) -> Source:
    """The source that a SPEC names. Raises CorecompressError for a file that isn't there, and says what was tried."""
    if text == "demo" and not Path(text).exists():
        return Reference(documents)
    if text == "-":
        return Files([_spooled_input()], unit, column, encoding, documents, STDIN)
    paths, column = _local(text, column)
    if paths:
        return Files(paths, unit, column, encoding, documents, text)
    found = HUB_SET.fullmatch(text)
    if found and not text.startswith((".", "~")) and not readers.is_known(Path(found["name"])):
        config, split, named = [*found["rest"].split(":")[1:], "", "", ""][:3]
        return HubSet(found["name"], config or None, split or "train", named or column, documents or HUB_DOCUMENTS)
    raise CorecompressError(f"text:{text}: no such file, folder or pattern; give one, a hub set (org/name) or -")


def _local(text: str, column: str | None) -> tuple[list[Path], str | None]:
    """Files that `text` names; FILE:COLUMN names a column as well."""
    path = Path(text).expanduser()
    if not path.exists() and ":" in text and Path(text.rpartition(":")[0]).expanduser().is_file():
        text, _, column = text.rpartition(":")
        path = Path(text).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and readers.is_known(p) and not _hidden(p, path))
        if not files:
            known = ", ".join((*readers.RUNNING, *readers.PAGES, *readers.RECORDS))
            raise CorecompressError(f"text:{text}: no text file in that folder; known are {known}, also .gz and .zst")
        return files, column
    if path.exists():
        return [path], column
    matches = sorted(Path(p) for p in glob.glob(os.path.expanduser(text), recursive=True)) if _is_pattern(text) else []
    return [p for p in matches if p.is_file()], column


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _spooled_input() -> Path:
    """Standard input as a file, named by its content, so that it can be read again."""
    if sys.stdin is None or sys.stdin.isatty():
        raise CorecompressError("text:-: standard input is a terminal; pipe text into it")
    folder = cache_folder() / "text" / "stdin"
    folder.mkdir(parents=True, exist_ok=True)
    digest = xxhash.xxh3_128()
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        while block := sys.stdin.buffer.read(1 << 20):
            digest.update(block)
            file.write(block)
    path = folder / f"{digest.hexdigest()}.txt"
    os.replace(file.name, path)
    return path


@dataclass
class Files:
    """Local files, one after the other. unit: "auto", "file", "paragraph" or "line", of running text."""

    paths: list[Path]
    unit: str
    column: str | None
    encoding: str | None
    documents: int | None
    name: str
    tally: Tally = field(default_factory=Tally)

    @cached_property
    def _unit(self) -> str:
        running = [path for path in self.paths if self._is_running(path)]
        if self.unit != "auto" or not running:
            return "paragraph" if self.unit == "auto" else self.unit
        if readers.kind_of(running[0]) in readers.PAGES:
            return "paragraph"
        return readers.natural_unit(running[0], self.encoding)

    @property
    def joiner(self) -> str | None:
        if not any(self._is_running(path) for path in self.paths):
            return None
        return {"paragraph": "\n\n", "line": "\n", "file": None}[self._unit]

    def _is_running(self, path: Path) -> bool:
        return readers.kind_of(path) not in readers.RECORDS

    def texts(self) -> Iterator[str]:
        self.tally = Tally()
        given = 0
        for path in self.paths:
            for text in self._of(path):
                if text.strip():
                    yield text.strip("\n")
                    given += 1
                    if given == self.documents:
                        return

    def _of(self, path: Path) -> Iterator[str]:
        kind = readers.kind_of(path)
        if kind in readers.RECORDS:
            return readers.RECORDS[kind](path, self.column, self.tally, self.encoding)
        if self.column is not None:
            raise CorecompressError(f"{path}: running text has no columns; leave out field={self.column}")
        if kind in readers.PAGES:
            return readers.html_text(path, self._unit, self.tally, self.encoding)
        return readers.running_text(path, self._unit, self.tally, self.encoding)

    def fingerprint(self) -> str:
        digest = xxhash.xxh3_128()
        digest.update(repr((self._unit, self.column, self.encoding, self.documents)).encode())
        for path in self.paths:
            digest.update(f"{path.name} {path.stat().st_size}\n".encode())
            with open(path, "rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()

    def describe(self) -> str:
        files = (
            f"{len(self.paths)} files"
            if len(self.paths) > 1
            else self.name
            if self.name == STDIN
            else self.paths[0].name
        )
        running = any(self._is_running(path) for path in self.paths)
        return f"{files}, a document a {self._unit if running else 'row'}"


@dataclass
class Reference:
    """Python's language reference, which comes with Python: paragraphs of technical English, for trying things out."""

    documents: int | None
    tally: Tally = field(default_factory=Tally)
    joiner: str | None = "\n\n"

    def texts(self) -> Iterator[str]:
        from pydoc_data.topics import topics

        paragraphs = (part for topic in topics.values() for part in topic.split("\n\n"))
        return itertools.islice((p.strip("\n") for p in paragraphs if len(p.strip()) > 40), self.documents)

    def fingerprint(self) -> str:
        return xxhash.xxh3_128("\0".join(self.texts()).encode()).hexdigest()

    def describe(self) -> str:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return f"the language reference of Python {version}, a document a paragraph"


@dataclass
class HubSet:
    """A set of the hub (or anything that `datasets` loads by name), streamed."""

    name: str
    config: str | None
    split: str
    column: str | None
    documents: int
    tally: Tally = field(default_factory=Tally)
    joiner: str | None = None

    def texts(self) -> Iterator[str]:
        rows = self._load()
        column = self.column
        for number, row in enumerate(rows):
            if number == self.documents:
                return
            if column is None:
                column = readers.choose_column({key: type(value) for key, value in row.items()}, self.name)
            if column not in row:
                known = ", ".join(row)
                raise CorecompressError(f"text:{self.name}: has no column '{column}'; its columns: {known}")
            if row[column] is not None and not isinstance(row[column], str):
                raise CorecompressError(f"text:{self.name}: column '{column}' holds no text; name another")
            if row[column] and row[column].strip():
                yield row[column]

    def _load(self) -> Any:
        try:
            import datasets

            datasets.disable_progress_bars()
            return datasets.load_dataset(self.name, self.config, split=self.split, streaming=True)
        except Exception as problem:
            reason = " ".join(str(problem).split())[:160]
            raise CorecompressError(
                f"text:{self.name}: neither a file here nor a set that can be had "
                f"({type(problem).__name__}: {reason}); "
                "check the name (HUB/NAME:config:split:field) and the network"
            ) from None

    def fingerprint(self) -> str:
        """The hub's commit where the hub can be asked; else no stored preparation may be used again."""
        try:
            from huggingface_hub import HfApi

            commit = HfApi().dataset_info(self.name, timeout=20).sha
        except Exception:
            commit = None
        if commit is None:
            digest = xxhash.xxh3_128()
            for text in self.texts():
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
            commit = digest.hexdigest()
        asked = (self.name, commit, self.config, self.split, self.column, self.documents)
        return xxhash.xxh3_128(repr(asked).encode()).hexdigest()

    def describe(self) -> str:
        config = f", {self.config}" if self.config else ""
        return f"hub set {self.name}{config}, split {self.split}, at most {self.documents:,} rows"


def remove(folder: Path) -> None:
    """A folder that may be gone already."""
    shutil.rmtree(folder, ignore_errors=True)
