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
        **_cut_off(corpus, wanted),
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
    unit = {"windows": "document", "sentences": "sentence", "vectors": "document"}[wanted.form]
    columns = ("split", "documents", "characters", "tokens", wanted.form, f"tokens a {unit}: median", "90 %", "longest")
    tables["splits"] = (columns, [_split_row(corpus, split, wanted) for split in SPLITS])
    samples = [f"[{sample['split']}] {sample['text']}\n  {' '.join(sample['tokens'])}" for sample in meta["samples"]]
    return DataReport(figures, tables, samples)


def _split_row(corpus: Prepared, split: str, wanted: Wanted) -> tuple[Any, ...]:
    rows = corpus.rows[split]
    up_to = np.cumsum(rows.lengths())
    typical = [int(np.searchsorted(up_to, share * up_to[-1])) if len(rows) else 0 for share in (0.5, 0.9, 1)]
    characters = corpus.meta["characters"][split]
    return (split, rows.distinct_documents(), characters, rows.tokens, corpus.samples(split, wanted), *typical)


def _cut_off(corpus: Prepared, wanted: Wanted) -> dict[str, str]:
    """What of the tokens lies beyond the longest sentence that the model shall see."""
    if wanted.form != "sentences":
        return {}
    lengths = [corpus.rows[split].lengths() for split in SPLITS]
    beyond = sum(int((np.maximum(np.arange(len(n)) - corpus.room(wanted.length), 0) * n).sum()) for n in lengths)
    total = sum(rows.tokens for rows in corpus.rows.values())
    return {"cut off behind the length": f"{100 * beyond / max(total, 1):.2f} % of the tokens"}


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
