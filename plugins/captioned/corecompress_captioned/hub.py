"""A set of the hub, or whatever `datasets` loads by name: its first rows, kept as Arrow files in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from corecompress.demo import cache_folder
from corecompress.errors import CorecompressError
from corecompress_captioned.columns import CAPTIONS, Columns, text_of
from corecompress_captioned.images import Images, decode, digest, kind_of

ROWS = 20_000
"""Rows that are read unless `images` says otherwise: such sets may be terabytes."""


def hub_images(name: str, config: str | None, split: str, columns: Columns, rows: int | None) -> Images:
    """The set's first rows. Raises CorecompressError for one that can't be had, or whose columns are unclear."""
    table = _table(name, config, split, rows or ROWS)
    if not len(table):
        raise CorecompressError(f"captioned:{name}: its split {split} is empty")
    chosen = _choose(name, table.features, columns)
    assert chosen.image is not None
    encoded = table.select_columns([chosen.image])
    contents = (_content(encoded[n][chosen.image], f"{name}, row {n}") for n in range(len(table)))
    digests, kinds = zip(*((digest(c), kind_of(c, f"{name}, row {n}")) for n, c in enumerate(contents)), strict=True)
    names = tuple(table.features[chosen.label].names) if chosen.label else ()
    labels = np.array(table[chosen.label], np.int64) if chosen.label else None
    if labels is not None and (labels < 0).any():
        labels, names = None, ()  # the hub's test sets hide their labels as −1
    if chosen.caption:
        captions = [text_of(value) for value in table[chosen.caption]]
    elif labels is not None:
        captions = [names[label].replace("_", " ") for label in labels]
    else:
        captions = [""] * len(table)
    return Images(
        origin=f"hub set {name}{f', {config}' if config else ''}, split {split}",
        read=lambda n: decode(_content(encoded[n][chosen.image], f"{name}, row {n}"), f"{name}, row {n}"),
        where=lambda n: f"{name}, row {n}",
        captions=captions,
        digests=np.array(digests, np.uint64),
        kinds=list(kinds),
        labels=labels,
        classes=names,
    )


def _table(name: str, config: str | None, split: str, rows: int) -> Any:
    """A `datasets.Dataset` whose images stay encoded. What the hub has is streamed; a commit that was read before, and
    what lies here, comes from the cache."""
    try:
        import datasets
        from huggingface_hub.utils import logging

        datasets.disable_progress_bars()
        logging.set_verbosity_error()  # it tells of every try; the error says it once
        place = str(cache_folder() / "captioned")
        commit = _commit(name)
        if commit is None:
            table = datasets.load_dataset(name, config, split=split, cache_dir=place)
            table = table.select(range(min(rows, len(table))))
        else:
            asked = {"name": name, "config": config, "split": split, "commit": commit, "rows": rows}
            features = _stream(**asked).features
            table = datasets.Dataset.from_generator(_stream_rows, features=features, cache_dir=place, gen_kwargs=asked)
        return _encoded(table)
    except Exception as problem:
        reason = " ".join(str(problem).split())[:160]
        raise CorecompressError(
            f"captioned:{name}: neither a folder here nor a set that can be had ({type(problem).__name__}: {reason}); "
            "check the name (HUB/NAME:config:split) and the network"
        ) from None


def _commit(name: str) -> str | None:
    """The commit that the hub has; None for what lies here, or when the hub can't be asked."""
    if Path(name).is_dir():
        return None
    try:
        from huggingface_hub import HfApi

        return HfApi().dataset_info(name, timeout=20).sha
    except Exception:  # offline: what datasets has in its cache may do
        return None


def _stream(name: str, config: str | None, split: str, commit: str, rows: int) -> Any:
    import datasets

    return _encoded(datasets.load_dataset(name, config, split=split, revision=commit, streaming=True)).take(rows)


def _encoded(table: Any) -> Any:
    """The same set with its images as the bytes that they are stored as."""
    import datasets

    for column, feature in (table.features or {}).items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    return table


def _stream_rows(**asked: Any) -> Iterator[dict[str, Any]]:
    yield from _stream(**asked)


def _content(value: Any, where: str) -> bytes:
    """The encoded image of a cell, which holds it or says where it lies."""
    if value and value.get("bytes"):
        return bytes(value["bytes"])
    if value and value.get("path") and Path(value["path"]).is_file():
        return Path(value["path"]).read_bytes()
    raise CorecompressError(f"{where}: holds no image; take another set, or images= fewer than its number")


def _choose(name: str, features: Any, given: Columns) -> Columns:
    import datasets

    def texts(feature: Any) -> bool:
        inner = getattr(feature, "feature", feature)
        return getattr(inner, "dtype", None) in ("string", "large_string")

    images = [key for key, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    captions = [key for key, feature in features.items() if texts(feature)]
    for option, wanted, known in (
        ("image_column", given.image, images),
        ("caption_column", given.caption, captions),
        ("label_column", given.label, labels),
    ):
        if wanted is not None and wanted not in known:
            raise CorecompressError(
                f"captioned:{name}: {option}={wanted} is no such column; there are {', '.join(known) or 'none'}"
            )
    image = given.image or _one(name, "image", images, ("image",), needed=True)
    label = given.label or _one(name, "label", labels, ("label",), needed=False)
    caption = given.caption or _one(name, "caption", captions, CAPTIONS, needed=not labels and len(captions) > 1)
    return Columns(image, caption, label)


def _one(name: str, kind: str, known: list[str], usual: tuple[str, ...], needed: bool) -> str | None:
    """The column of the usual name, or the only one. Raises CorecompressError where it is needed and unclear."""
    found = next((each for each in usual if each in known), known[0] if len(known) == 1 else None)
    if found is None and needed:
        listed = f"choose one with {kind}_column=… of: {', '.join(known)}" if known else "take another set"
        raise CorecompressError(f"captioned:{name}: it is unclear which column holds the {kind}s; {listed}")
    return found
