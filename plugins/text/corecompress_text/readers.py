"""Files to documents: one generator a format, each streaming, none knowing of options but the column's name."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import IO, Any

import zstandard

from corecompress.errors import CorecompressError

SAMPLE = 1 << 20
LONGEST = 1 << 20
"""Characters of a document that has no end: a line or paragraph longer than this is cut, so that memory is bounded."""

PACKED = {b"\x1f\x8b": ".gz", b"\x28\xb5": ".zst"}
"""How a packed file begins."""

Unit = str
"""What a document of a running text is: "file", "paragraph" or "line"."""


@dataclass
class Tally:
    """What reading noticed: bytes that are in no file's encoding, and the encodings that were found."""

    undecodable: int = 0
    encodings: dict[str, str] = field(default_factory=dict)


def open_binary(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked if it is .gz or .zst."""
    return _unpacked(path, path.suffix.lower())


def _unpacked(path: Path, suffix: str) -> IO[bytes]:
    if suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), read_across_frames=True, closefd=True)
    return open(path, "rb")


def read_sample(path: Path) -> bytes:
    """The first mebibyte. Raises CorecompressError for a file that can't be unpacked."""
    try:
        with open_binary(path) as file:
            return file.read(SAMPLE)
    except (OSError, EOFError, zstandard.ZstdError) as problem:
        raise CorecompressError(f"{path}: can't be read ({problem}); fetch it again") from None


def detect_encoding(sample: bytes, path: Path) -> str:
    """A codec's name: by byte-order mark, else UTF-8 where it (nearly) fits, else what charset-normalizer says.

    Raises CorecompressError for bytes that are no text.
    """
    marks = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"))
    for mark, name in (*marks, (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if sample.startswith(mark):
            return name
    if b"\0" in sample and (wide := _unmarked_utf16(sample)):
        return wide
    controls = sum(sample.count(bytes([code])) for code in (*range(1, 9), *range(14, 27)))
    if b"\0" in sample or controls > len(sample) // 20:
        raise CorecompressError(f"{path}: looks binary, not like text; name text files, or write encoding=…")
    decoded = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(sample)
    wrong = len(_MARKED.findall(decoded))
    if wrong == 0 or wrong * 20 < sum(character > "\x7f" for character in decoded):
        return "utf-8"
    return _guessed(sample[: 1 << 16]) or "utf-8"


def _unmarked_utf16(sample: bytes) -> str | None:
    """UTF-16 without a mark, where at least a third of the characters are Latin: every other byte of those is 0."""
    half = len(sample) // 2
    first, second = sample[0 : 2 * half : 2].count(0), sample[1 : 2 * half : 2].count(0)
    if min(first, second) * 20 > half or max(first, second) * 3 < half:
        return None
    name = "utf-16-le" if second > first else "utf-16-be"
    begin = sample[:8192].decode(name, "replace")
    readable = sum(character.isprintable() or character.isspace() for character in begin)
    return name if readable * 20 >= len(begin) * 19 else None


def _guessed(sample: bytes) -> str | None:
    """What charset-normalizer says of the whole; where a wrong byte spoils that, what it says of most of the lines."""
    from charset_normalizer import from_bytes

    sample = sample[: sample.rfind(b"\n") + 1] or sample  # not within a character
    found = from_bytes(sample)
    if found.best() is None:
        lines = sample.splitlines(keepends=True)
        step = max(1, len(lines) // 8)
        pieces = [from_bytes(b"".join(lines[at : at + step])) for at in range(0, len(lines), step)]
        names = [_name(piece) for piece in pieces if piece.best() is not None]
        return max(names, key=names.count, default=None)
    return _name(found)


def _name(matches: Any) -> str:
    best = matches.best()
    as_good = {match.encoding for match in matches if match.chaos <= best.chaos + 0.02 and match.chaos < 0.1}
    western = as_good & {"cp1252", "latin_1", "cp1250", "cp1254", "cp1257"}  # one-byte code pages look alike
    return "cp1252" if best.encoding.startswith(("cp12", "latin", "iso")) and western else str(best.encoding)


_MARK = "\udcff"
_MARKED = re.compile("[\udc80-\udcff]")


def _mark(problem: UnicodeError) -> tuple[str, int]:
    """A codec's error handler: a mark for every byte that can't be decoded ("surrogateescape" stops at ASCII ones)."""
    assert isinstance(problem, UnicodeDecodeError)
    return _MARK * (problem.end - problem.start), problem.end


codecs.register_error("corecompress-mark", _mark)


def decoded_chunks(path: Path, tally: Tally, encoding: str | None = None) -> Iterator[str]:
    """The file's characters in chunks, line ends as \\n; undecodable bytes become U+FFFD and are counted."""
    name = encoding or detect_encoding(read_sample(path), path)
    tally.encodings[str(path)] = name
    try:
        decode = codecs.getincrementaldecoder(name)("corecompress-mark")
    except LookupError:
        raise CorecompressError(f"encoding '{name}' is unknown; write one that Python knows, such as utf-8") from None
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    try:
        with open_binary(path) as file:
            while block := file.read(SAMPLE):
                yield from _mended(newlines.decode(decode.decode(block)), tally)
            yield from _mended(newlines.decode(decode.decode(b"", True), True), tally)
    except (OSError, EOFError, UnicodeError, zstandard.ZstdError) as problem:
        raise CorecompressError(f"{path}: can't be read ({problem}); fetch it again, or write encoding=…") from None


def _mended(text: str, tally: Tally) -> Iterator[str]:
    if text and not text.isascii():
        text, wrong = _MARKED.subn("�", text)
        tally.undecodable += wrong
    if text:
        yield text


def running_text(path: Path, unit: Unit, tally: Tally, encoding: str | None) -> Iterator[str]:
    """Documents of a file without records."""
    chunks = decoded_chunks(path, tally, encoding)
    if unit == "file":
        yield "".join(chunks)
        return
    end = "\n" if unit == "line" else "\n\n"
    rest = ""
    for chunk in chunks:
        rest += chunk
        *whole, rest = rest.split(end)
        yield from whole
        while len(rest) > LONGEST:
            cut = max(rest.rfind(" ", 0, LONGEST), rest.rfind("\n", 0, LONGEST), LONGEST // 2)
            yield rest[:cut]
            rest = rest[cut:]
    yield rest


def natural_unit(path: Path, encoding: str | None) -> Unit:
    """ "paragraph" where blank lines part the file's beginning, else "line"."""
    sample = "".join(decoded_chunks_of(read_sample(path), path, encoding)).strip()
    return "paragraph" if sample.count("\n\n") * 20 >= sample.count("\n") and "\n" in sample else "line"


def decoded_chunks_of(sample: bytes, path: Path, encoding: str | None) -> Iterator[str]:
    """The same as decoded_chunks for bytes at hand."""
    name = encoding or detect_encoding(sample, path)
    try:
        text = codecs.getincrementaldecoder(name)("replace").decode(sample)
    except LookupError:
        raise CorecompressError(f"encoding '{name}' is unknown; write one that Python knows, such as utf-8") from None
    yield text.replace("\r\n", "\n").replace("\r", "\n")


BLOCKS = frozenset(
    "address article aside blockquote body br caption dd div dl dt figcaption figure footer form h1 h2 h3 h4 h5 h6 "
    "header hr li main nav ol option p pre section table td th title tr ul".split()
)
SILENT = frozenset({"script", "style", "template", "noscript", "svg", "head"})


class _Paragraphs(HTMLParser):
    """Collects the text of block elements; a block ends a paragraph."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: list[str] = []
        self._parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._silent += tag in SILENT
        if tag in BLOCKS:
            self.end_paragraph()

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        if tag in BLOCKS:
            self.end_paragraph()

    def handle_endtag(self, tag: str) -> None:
        self._silent = max(0, self._silent - (tag in SILENT))
        if tag in BLOCKS:
            self.end_paragraph()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._parts.append(data)

    def end_paragraph(self) -> None:
        text = " ".join("".join(self._parts).split())
        self._parts.clear()
        if text:
            self.paragraphs.append(text)


def html_text(path: Path, unit: Unit, tally: Tally, encoding: str | None) -> Iterator[str]:
    """Paragraphs (block elements) of a page, or the page as one document."""
    parser = _Paragraphs()
    found: list[str] = []
    for chunk in decoded_chunks(path, tally, encoding):
        parser.feed(chunk)
        if unit != "file":
            yield from parser.paragraphs
        else:
            found += parser.paragraphs
        parser.paragraphs = []
    parser.close()
    parser.end_paragraph()
    if unit != "file":
        yield from parser.paragraphs
    else:
        yield "\n\n".join(found + parser.paragraphs)


def json_lines(path: Path, column: str | None, tally: Tally, encoding: str | None) -> Iterator[str]:
    """A document a line: a string, or an object's field."""
    for number, line in enumerate(_lines(decoded_chunks(path, tally, encoding)), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as problem:
            raise CorecompressError(f"{path}, line {number}: no JSON ({problem})") from None
        if isinstance(value, dict):
            column = column or choose_column({key: type(item) for key, item in value.items()}, path)
            if column not in value:
                raise _no_column(path, column, list(value), f", line {number}")
            value = value[column]
        if value is not None and not isinstance(value, str):
            raise CorecompressError(f"{path}, line {number}: '{column}' is no text; name another with field=…")
        yield value or ""


def _lines(chunks: Iterator[str]) -> Iterator[str]:
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split("\n")
        yield from whole
    yield rest


def comma_separated(path: Path, column: str | None, tally: Tally, encoding: str | None) -> Iterator[str]:
    """A document a row of .csv or .tsv, whose first row names the columns."""
    csv.field_size_limit(2**31 - 1)
    tabs = kind_of(path) == ".tsv"
    lines = (line + "\n" for line in _lines(decoded_chunks(path, tally, encoding)))
    rows = csv.reader(lines, delimiter="\t" if tabs else ",")
    try:
        head = next(rows, None)
        if not head:
            return
        head[0] = head[0].removeprefix("\ufeff")
        chosen = column or choose_column(dict.fromkeys(head, str), path)
        if chosen not in head:
            raise _no_column(path, chosen, head)
        at = head.index(chosen)
        for row in rows:
            if len(row) > at:
                yield row[at]
    except csv.Error as problem:
        raise CorecompressError(f"{path}, line {rows.line_num}: {problem}") from None


def columnar(path: Path, column: str | None, tally: Tally, encoding: str | None) -> Iterator[str]:
    """A document a row of .parquet or .arrow (file or stream format), a few thousand rows in memory at a time."""
    import pyarrow as pa

    with _seekable(path) as file:
        try:
            schema, batches = _open_columns(file, path)
            text = {f.name: str for f in schema if _holds_text(f.type)}
            if column is not None and column not in schema.names:
                raise _no_column(path, column, schema.names)
            chosen = column or choose_column(text or dict.fromkeys(schema.names, object), path)
            if chosen not in text:
                raise CorecompressError(f"{path}: column '{chosen}' holds no text; name another with field=…")
            for batch in batches(chosen):
                for value in batch.column(chosen).to_pylist():
                    yield value or ""
        except (pa.ArrowInvalid, OSError) as problem:
            reason = " ".join(str(problem).split())[:120]
            raise CorecompressError(f"{path}: can't be read ({reason}); fetch it again") from None


def _holds_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return any((pa.types.is_string(kind), pa.types.is_large_string(kind), pa.types.is_string_view(kind)))


def _open_columns(file: IO[bytes], path: Path) -> tuple[Any, Callable[[str], Iterator[Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if ".parquet" in path.name.lower():
        table = pq.ParquetFile(file)
        return table.schema_arrow, lambda name: table.iter_batches(batch_size=2048, columns=[name])
    try:
        reader = pa.ipc.open_file(file)
        return reader.schema, lambda name: (reader.get_batch(i) for i in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        file.seek(0)
        stream = pa.ipc.open_stream(file)
        return stream.schema, lambda name: iter(stream)


def _seekable(path: Path) -> IO[bytes]:
    if path.suffix.lower() not in (".gz", ".zst"):
        return open(path, "rb")
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with open_binary(path) as packed:
        shutil.copyfileobj(packed, unpacked)
    unpacked.seek(0)
    return unpacked


def choose_column(columns: dict[str, type], where: Path | str) -> str:
    """ "text", or the only column that holds text. Raises CorecompressError that lists the choices."""
    text = [name for name, kind in columns.items() if kind is str]
    if "text" in columns:
        return "text"
    if len(text) == 1:
        return text[0]
    known = ", ".join(text or columns) or "none"
    raise CorecompressError(f"{where}: has no column 'text'; choose one with field=… of: {known}")


def _no_column(path: Path | str, column: str, known: list[str], place: str = "") -> CorecompressError:
    return CorecompressError(f"{path}{place}: has no column '{column}'; its columns: {', '.join(known) or 'none'}")


RECORDS: dict[str, Callable[[Path, str | None, Tally, str | None], Iterator[str]]] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".csv": comma_separated,
    ".tsv": comma_separated,
    ".parquet": columnar,
    ".arrow": columnar,
    ".feather": columnar,
}
RUNNING = {".txt": running_text, ".text": running_text, ".md": running_text, ".markdown": running_text}
PAGES = {".html": html_text, ".htm": html_text, ".xhtml": html_text}


def kind_of(path: Path) -> str:
    """The suffix that tells the format, below .gz and .zst."""
    name = path.name.lower()
    for packed in PACKED.values():
        name = name.removesuffix(packed)
    return Path(name).suffix


def suffix_of(path: Path) -> str:
    """The suffix that a nameless file (standard input) should have, by how it begins: .txt where nothing else fits."""
    with open(path, "rb") as file:
        packed = PACKED.get(file.read(2), "")
    try:
        with _unpacked(path, packed) as file:
            begin = file.read(1 << 16)
    except (OSError, EOFError, zstandard.ZstdError):
        begin = b""
    signs = ((b"PAR1", ".parquet"), (b"ARROW1", ".arrow"), (b"\xff\xff\xff\xff", ".arrow"))
    found = next((suffix for sign, suffix in signs if begin.startswith(sign)), None)
    return (found or _kind_of_text(begin)) + packed


def _kind_of_text(begin: bytes) -> str:
    line = begin.lstrip().partition(b"\n")[0]
    if line[:5].lower() == b"<html" or line[:14].lower() == b"<!doctype html":
        return ".html"
    try:
        return ".jsonl" if isinstance(json.loads(line), dict) else ".txt"
    except ValueError:
        return ".txt"


def is_known(path: Path) -> bool:
    return kind_of(path) in RECORDS or kind_of(path) in RUNNING or kind_of(path) in PAGES
