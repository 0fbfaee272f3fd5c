"""A folder of images, as the ImageFolder of `datasets` has it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corecompress.errors import CorecompressError
from corecompress_captioned.columns import CAPTIONS, Columns, text_of
from corecompress_captioned.images import Images, decode, digest, kind_of

KNOWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
PARTS = frozenset("train training test testing val valid validation dev eval evaluation images data".split())
"""Folder names that say which part of a set it is, and no class."""

Row = tuple[Path, str, str | None]
"""Image, caption ("" where it has none), class."""


def folder_images(folder: Path, columns: Columns) -> Images:
    """Captions and classes of metadata.jsonl or metadata.csv; else a folder a class, whose name is the caption; else
    captions of text files beside the images. Raises CorecompressError for one without images."""
    listed = next((path for name in ("jsonl", "csv") if (path := folder / f"metadata.{name}").is_file()), None)
    if listed is None and any((columns.image, columns.caption, columns.label)):
        raise CorecompressError(f"captioned:{folder}: has no metadata.jsonl, so no columns; leave out their names")
    rows = _listed(listed, columns) if listed else _found(folder)
    if not rows:
        raise CorecompressError(f"captioned:{folder}: holds no image ({', '.join(KNOWN)})")
    paths = [path for path, _, _ in rows]
    digests, kinds = [], []
    for path in paths:
        content = path.read_bytes()
        digests.append(digest(content))
        kinds.append(kind_of(content, str(path)))
    named = [name for _, _, name in rows if name is not None]
    classes = tuple(sorted(set(named), key=_naturally)) if len(named) == len(rows) else ()
    number = {name: at for at, name in enumerate(classes)}
    return Images(
        origin=str(folder),
        read=lambda n: decode(paths[n], str(paths[n])),
        where=lambda n: str(paths[n]),
        captions=[caption for _, caption, _ in rows],
        digests=np.array(digests, np.uint64),
        kinds=kinds,
        labels=np.array([number[name] for name in named], np.int64) if classes else None,
        classes=classes,
        unlisted=len({p.resolve() for p in _images(folder)} - {p.resolve() for p in paths}) if listed else 0,
    )


def _naturally(name: str) -> tuple[int, str]:
    """Whole numbers in their order, so that labels that are numbers already stay what they are."""
    return (int(name), "") if name.isdecimal() else (-1, name)


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in KNOWN and p.is_file() and not _hidden(p, folder))


def _found(folder: Path) -> list[Row]:
    rows = []
    for path in _images(folder):
        inside = path.parent != folder and path.parent.name.lower() not in PARTS
        name = path.parent.name.replace("_", " ") if inside else None
        beside = path.with_suffix(".txt")
        caption = _text(beside) if beside.is_file() else name or ""
        rows.append((path, caption, name))
    return rows


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _text(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError:
        raise CorecompressError(f"{path}: is no UTF-8 text; save it as such") from None


def _listed(path: Path, columns: Columns) -> list[Row]:
    found = []
    image_column = columns.image or "file_name"
    for number, row in _rows(path):
        if image_column not in row:
            raise CorecompressError(f"{path}, line {number}: is no object with a {image_column}")
        image = path.parent / str(row[image_column])
        if not image.is_file():
            raise CorecompressError(f"{path}, line {number}: names {row[image_column]}, which isn't there")
        for wanted in (columns.caption, columns.label):
            if wanted is not None and wanted not in row:
                raise CorecompressError(f"{path}, line {number}: has no '{wanted}'; it has {', '.join(row)}")
        caption = next((text_of(row[name]) for name in (columns.caption, *CAPTIONS) if name in row), "")
        label = row.get(columns.label or "label")
        found.append((image, caption, None if label in (None, "") else str(label)))
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise CorecompressError(f"{path}: is no UTF-8 text; save it as such") from None
    if path.suffix == ".csv":
        yield from enumerate(csv.DictReader(lines), 2)
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise CorecompressError(f"{path}, line {number}: is no JSON object with a file_name")
            yield number, row
