"""What `corecompress data show` prints of a corpus."""

from __future__ import annotations

from typing import Any

import numpy as np

from corecompress.components import DataReport
from corecompress_text.options import Options
from corecompress_text.prepare import Prepared, Wanted
from corecompress_text.splitting import SPLITS
from corecompress_text.vocabulary import TRAINED


def make_report(corpus: Prepared, wanted: Wanted, options: Options) -> DataReport:
    """Figures, a table of the cleaning steps, one of the splits, and samples."""
    meta = corpus.meta
    trained = wanted.tokenizer in TRAINED
    tokenizer = f"{wanted.tokenizer}, trained, in {corpus.folder / 'tokenizer'}" if trained else wanted.tokenizer
    figures: dict[str, Any] = {
        "source": meta["source"],
        "encoding": ", ".join(meta["encodings"]) or "–",
        "undecodable bytes": meta["undecodable"],
        "form": f"{wanted.form}, length {wanted.length}" if wanted.form != "vectors" else "vectors",
        "split by": options.split,
        "tokenizer": tokenizer,
        **_vocabulary(corpus),
        "prepared in seconds": meta["seconds"],
    }
    steps = [
        (step.name, step.documents_in, step.documents_out, step.characters_removed, round(step.seconds, 3))
        for step in corpus.steps
    ]
    tables = {}
    if steps:
        tables["cleaning"] = (("step", "documents in", "out", "characters removed", "seconds"), steps)
    tables["splits"] = (
        ("split", "documents", "rows", "characters", "tokens", "tokens a row: median", "90 %", "longest"),
        [_split_row(corpus, split) for split in SPLITS],
    )
    samples = [f"[{sample['split']}] {sample['text']}\n  {' '.join(sample['tokens'])}" for sample in meta["samples"]]
    return DataReport(figures, tables, samples)


def _split_row(corpus: Prepared, split: str) -> tuple[Any, ...]:
    rows = corpus.rows[split]
    lengths = rows.lengths()
    median, most, longest = (int(np.percentile(lengths, q)) for q in (50, 90, 100)) if len(lengths) else (0, 0, 0)
    return (
        split,
        rows.distinct_documents(),
        len(rows),
        corpus.meta["characters"][split],
        rows.tokens,
        median,
        most,
        longest,
    )


def _vocabulary(corpus: Prepared) -> dict[str, Any]:
    known = corpus.vocabulary
    counts = sum(corpus.rows[split].counts(known.size) for split in SPLITS)
    total = max(int(np.sum(counts)), 1)
    unknown = int(counts[known.unknown]) if known.unknown is not None else 0
    return {
        "vocabulary": known.size,
        "entries that occur": int(np.count_nonzero(counts)),
        "unknown tokens": f"{100 * unknown / total:.3f} %",
        "characters a token": round(sum(corpus.meta["characters"].values()) / total, 2),
    }
