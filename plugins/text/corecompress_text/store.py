"""Prepared rows on disk: one Arrow file a split, mapped into memory, so that a corpus may be larger than it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]


class Writer:
    """Appends rows (document, ids, tags) to an Arrow file, a record batch a call."""

    def __init__(self, path: Path, tagged: bool):
        columns = [("document", pa.int64()), ("characters", pa.int32()), ("ids", pa.list_(pa.uint32()))]
        self.schema = pa.schema(columns + ([("tags", pa.list_(pa.uint8()))] if tagged else []))
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, self.schema)

    def add(self, documents: list[int], characters: list[int], ids: list[list[int]], tags: list[list[int]]) -> None:
        """One row each; tags only where the file has them."""
        values: list[Any] = [documents, characters, ids, tags][: len(self.schema)]
        arrays = [pa.array(value, field.type) for value, field in zip(values, self.schema, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, schema=self.schema))

    def close(self) -> None:
        self._writer.close()
        self._file.close()


class Rows:
    """A split's rows, read by number, and its tokens, read by their place as one long sequence."""

    def __init__(self, path: Path):
        self._path = path
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self.tagged = "tags" in self._reader.schema.names
        counts = [self._shape(i) for i in range(self._reader.num_record_batches)]
        rows, tokens = [rows for rows, _ in counts], [tokens for _, tokens in counts]
        self._row_start = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])
        self._token_start = np.concatenate([[0], np.cumsum(tokens, dtype=np.int64)])
        self._opened: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return int(self._row_start[-1])

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return int(self._token_start[-1])

    def _shape(self, number: int) -> tuple[int, int]:
        batch = self._reader.get_batch(number)
        return batch.num_rows, len(batch.column("ids").flatten())

    def _batch(self, number: int) -> Any:
        if self._opened[0] != number:
            self._opened = (number, _Batch(self._reader.get_batch(number), self.tagged))
        return self._opened[1]

    def _scan(self) -> Iterator[_Batch]:
        """All batches, read rather than mapped: pages of a map that were once touched count as memory."""
        with pa.OSFile(str(self._path)) as file:
            reader = pa.ipc.open_file(file)
            for i in range(reader.num_record_batches):
                yield _Batch(reader.get_batch(i), self.tagged)

    def row(self, number: int) -> tuple[int, Ints, Ints | None]:
        """(document, ids [n], tags [n] or None) of one row."""
        at = int(np.searchsorted(self._row_start, number, "right")) - 1
        batch = self._batch(at)
        inside = number - int(self._row_start[at])
        first, last = batch.offsets[inside], batch.offsets[inside + 1]
        tags = batch.tags[first:last] if batch.tags is not None else None
        return int(batch.documents[inside]), batch.ids[first:last], tags

    def span(self, start: int, stop: int) -> tuple[Ints, Ints, Ints | None]:
        """(ids, document of each, tags of each or None) of the tokens start … stop of the whole sequence."""
        ids, documents, tags = [], [], []
        at = int(np.searchsorted(self._token_start, start, "right")) - 1
        while start < stop:
            batch, base = self._batch(at), int(self._token_start[at])
            end = min(stop, int(self._token_start[at + 1]))
            places = np.arange(start - base, end - base)
            ids.append(batch.ids[start - base : end - base])
            documents.append(batch.documents[np.searchsorted(batch.offsets, places, "right") - 1])
            if batch.tags is not None:
                tags.append(batch.tags[start - base : end - base])
            start, at = end, at + 1
        return np.concatenate(ids), np.concatenate(documents), np.concatenate(tags) if tags else None

    def lengths(self) -> NDArray[np.int64]:
        """How many rows have 0, 1, 2, … tokens, int64 [longest + 1], because a list of all rows might be long."""
        found = np.zeros(1, np.int64)
        for batch in self._scan():
            more = np.bincount(np.diff(batch.offsets), minlength=len(found))
            more[: len(found)] += found
            found = more
        return found

    def counts(self, size: int) -> NDArray[np.int64]:
        """How often each id occurs, int64 [size]."""
        total = np.zeros(size, np.int64)
        for batch in self._scan():
            total += np.bincount(batch.ids, minlength=size)
        return total

    def distinct_documents(self) -> int:
        """Documents that have a row. Rows are in the order of their documents."""
        last, count = -1, 0
        for batch in self._scan():
            numbers = batch.documents
            count += int(np.count_nonzero(np.diff(numbers, prepend=last)))
            last = numbers[-1] if len(numbers) else last
        return count


class _Batch:
    """A record batch as numpy views."""

    def __init__(self, batch: Any, tagged: bool):
        column = batch.column("ids")
        self.documents = batch.column("document").to_numpy()
        self.ids = column.flatten().to_numpy()
        self.offsets = column.offsets.to_numpy() - column.offsets[0].as_py()
        self.tags = batch.column("tags").flatten().to_numpy() if tagged else None
