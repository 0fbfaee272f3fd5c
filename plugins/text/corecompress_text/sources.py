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
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
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
SPOOLED = "CORECOMPRESS_TEXT_STDIN"
"""Environment variable: where a process that was started by us finds what came in by standard input."""

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
    """Files that `text` names; FILE:COLUMN, DIR:COLUMN or PATTERN:COLUMN names a column as well."""
    files = _files(text)
    if not files and ":" in text:
        head, _, named = text.rpartition(":")
        files = _files(head)
        column = named if files else column
    return files, column


def _files(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and readers.is_known(p) and not _hidden(p, path))
        if not files:
            known = ", ".join((*readers.RUNNING, *readers.PAGES, *readers.RECORDS))
            raise CorecompressError(f"text:{text}: no text file in that folder; known are {known}, also .gz and .zst")
        return files
    if path.exists():
        return [path]
    matches = sorted(Path(p) for p in glob.glob(str(path), recursive=True)) if _is_pattern(text) else []
    return [p for p in matches if p.is_file()]


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _spooled_input() -> Path:
    """Standard input as a file, named by its content, so that it can be read again, also by processes of ours."""
    if SPOOLED in os.environ:
        return Path(os.environ[SPOOLED])
    if sys.stdin is None or sys.stdin.isatty():
        raise CorecompressError("text:-: standard input is a terminal; pipe text into it")
    folder = cache_folder() / "text" / "stdin"
    folder.mkdir(parents=True, exist_ok=True)
    digest = xxhash.xxh3_128()
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        while block := sys.stdin.buffer.read(1 << 20):
            digest.update(block)
            file.write(block)
    path = folder / f"{digest.hexdigest()}{readers.suffix_of(Path(file.name))}"
    os.replace(file.name, path)
    os.environ[SPOOLED] = str(path)
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
        with self._named():
            return self._found_unit()

    def _found_unit(self) -> str:
        running = [path for path in self.paths if not self._has_columns(path)]
        if self.unit != "auto" or not running:
            return "paragraph" if self.unit == "auto" else self.unit
        if readers.kind_of(running[0]) in readers.PAGES:
            return "paragraph"
        return readers.natural_unit(running[0], self.encoding)

    @property
    def joiner(self) -> str | None:
        if all(map(self._has_columns, self.paths)):
            return None
        return {"paragraph": "\n\n", "line": "\n", "file": None}[self._unit]

    def _has_columns(self, path: Path) -> bool:
        return readers.kind_of(path) in readers.RECORDS

    def texts(self) -> Iterator[str]:
        self.tally = Tally()
        given = 0
        for path in self.paths:
            with self._named():
                for text in self._of(path):
                    if text.strip():
                        yield text.strip("\n")
                        given += 1
                        if given == self.documents:
                            return

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors name standard input, not the file that we keep of it."""
        try:
            yield
        except CorecompressError as problem:
            if self.name != STDIN:
                raise
            raise CorecompressError(str(problem).replace(str(self.paths[0]), STDIN)) from None

    def _of(self, path: Path) -> Iterator[str]:
        kind = readers.kind_of(path)
        if kind in readers.RECORDS:
            return readers.RECORDS[kind](path, self.column, self.tally, self.encoding)
        if self.column is not None and not any(map(self._has_columns, self.paths)):
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
        units = {"row" if self._has_columns(path) else self._unit for path in self.paths}
        return f"{files}, a document a {' or '.join(sorted(units))}"


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
        column = self.column
        for row in self._rows():
            if column is None:
                column = readers.choose_column({key: type(value) for key, value in row.items()}, self.name)
            if column not in row:
                known = ", ".join(row)
                raise CorecompressError(f"text:{self.name}: has no column '{column}'; its columns: {known}")
            if row[column] is not None and not isinstance(row[column], str):
                raise CorecompressError(f"text:{self.name}: column '{column}' holds no text; name another")
            if row[column] and row[column].strip():
                yield row[column]

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            import datasets
            from huggingface_hub.utils import logging

            datasets.disable_progress_bars()
            logging.set_verbosity_error()  # it tells of every try; the error says it once
            rows = datasets.load_dataset(self.name, self.config, split=self.split, streaming=True)
            yield from islice(rows, self.documents)
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


def remove(path: Path) -> None:
    """A folder or file that may be gone already."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
