"""The data component `text`, found by its entry point: splits, batches, tokenizers, cache, bad input."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from corpora import data, documents_of, paragraphs, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corecompress.errors import CorecompressError

pytestmark = pytest.mark.usefixtures("own_cache")


# Splits and batches -----------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.sampled_from(paragraphs(40)), min_size=8, max_size=60),
    calibration=st.floats(0.1, 0.6),
    evaluation=st.floats(0.1, 0.4),
    cut=st.sampled_from(["hash", "order"]),
    form=st.sampled_from(["windows", "sentences", "vectors"]),
    length=st.integers(3, 40),
)
def test_no_window_of_two_splits_shares_a_document(
    tmp_path: Path, texts: list[str], calibration: float, evaluation: float, cut: str, form: str, length: int
) -> None:
    path = write(tmp_path / "a.txt", texts)
    spec = f"text(split={cut}, calibration={calibration}, evaluation={evaluation}, form={form}, length={length}, tokenizer=words):{path}"
    component = data(spec)
    found = []
    for split in ("calibration", "training", "evaluation"):
        try:
            found.append(documents_of(component, split))
        except CorecompressError as problem:
            assert "holds" in str(problem) or "share of 0" in str(problem)
            found.append(set())
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert not found[1] & found[2]
    if cut == "hash":  # the same text never sits in two splits, however often it occurs
        by_split = [{texts[d] for d in part} for part in found]
        assert not by_split[0] & by_split[2]
        assert not by_split[0] & by_split[1]
    elif form != "windows":
        assert max(found[0], default=-1) < min(found[2], default=len(texts))


def test_batches_are_deterministic_and_restart_in_the_middle(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", paragraphs(300))
    spec = f"text(tokenizer=words, length=24, batch=4):{path}"
    one, two = list(data(spec).batches(7)), list(data(spec).batches(7))
    other = list(data(spec).batches(8))
    assert len(one) > 10
    assert all(np.array_equal(a["input_ids"], b["input_ids"]) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a["input_ids"], b["input_ids"]) for a, b in zip(one, other, strict=True))
    rest = list(data(spec).batches(7, start=5))
    assert all(np.array_equal(a["document"], b["document"]) for a, b in zip(one[5:], rest, strict=True))


def test_windows_hold_the_text_whole_and_in_order(tmp_path: Path) -> None:
    """All windows, sorted by their documents, are the tokenised text but for what fills no window."""
    texts = paragraphs(60)
    component = data(
        f"text(tokenizer=bpe, vocabulary=300, calibration=1, evaluation=0, split=order, length=18):{write(tmp_path / 'a.txt', texts)}"
    )
    rows = component.corpus.rows["calibration"]
    ids, documents, _ = rows.span(0, rows.tokens)
    tokenizer = component.corpus.folder / "tokenizer"
    from transformers import AutoTokenizer

    decoded = AutoTokenizer.from_pretrained(tokenizer).decode(ids.tolist())
    assert decoded.strip() == "\n\n".join(texts).strip()
    assert documents.tolist() == sorted(documents.tolist())
    windows = np.concatenate([b["input_ids"] for b in component.batches(0)])
    assert windows.shape == (rows.tokens // 16, 18)  # <s> and </s> around 16
    inner = {tuple(row[1:-1].tolist()) for row in windows}
    assert inner == {tuple(ids[i : i + 16].tolist()) for i in range(0, rows.tokens // 16 * 16, 16)}


def test_sentences_are_padded_with_masks(tmp_path: Path, minilm: Path) -> None:
    texts = [
        "This is the first sentence here. A second one follows, quite a bit longer than it.",
        "Only one sentence stands in this one.",
    ]
    component = data(f"text(calibration=1, evaluation=0):{write(tmp_path / 'a.txt', texts)}", minilm)
    (batch,) = component.batches(0)
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert sorted(batch["document"].tolist()) == [0, 0, 1]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    expected = {
        tuple(tokenizer(t)["input_ids"])
        for t in ("This is the first sentence here.", "A second one follows, quite a bit longer than it.", texts[1])
    }
    assert {
        tuple(row[mask == 1].tolist()) for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    } == expected


def test_vectors_are_normalised_tfidf(tmp_path: Path) -> None:
    texts = ["cat cat dog"] * 3 + ["dog bird"] * 3
    spec = "text(form=vectors, weighting={}, calibration=1, evaluation=0, document=line):{}"
    path = tmp_path / "a.txt"
    path.write_text("\n".join(texts))
    for weighting in ("counts", "tfidf"):
        (batch,) = data(spec.format(weighting, path)).batches(0)
        assert np.allclose(np.linalg.norm(batch["vectors"], axis=1), 1, atol=1e-6)
        assert batch["vectors"].dtype == np.float32
    entries = Counter(np.round(row[row > 0], 4).tobytes() for row in batch["vectors"])
    assert sorted(entries.values()) == [3, 3]
    idf = {"cat": np.log(7 / 4) + 1, "dog": np.log(7 / 7) + 1}
    expected = np.array([2 * idf["cat"], idf["dog"]]) / np.hypot(2 * idf["cat"], idf["dog"])
    rows = [np.sort(row[row > 0]) for row in batch["vectors"]]
    assert any(len(row) == 2 and np.allclose(row, np.sort(expected), atol=1e-4) for row in rows)


@pytest.mark.parametrize("kind", ["bpe", "unigram", "words"])
def test_a_trained_tokenizer_is_an_ordinary_one_and_never_saw_the_evaluation_split(tmp_path: Path, kind: str) -> None:
    texts = [f"{t} secret{n}word" for n, t in enumerate(paragraphs(100))]
    component = data(
        f"text(tokenizer={kind}, vocabulary=400, length=16, split=order):{write(tmp_path / 'a.txt', texts)}"
    )
    assert next(iter(component.batches(0)))["input_ids"].shape[1] == 16
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(component.corpus.folder / "tokenizer")
    assert tokenizer("the quick fox")["input_ids"][0] == tokenizer.bos_token_id
    if kind == "words":
        assert "secret5word" in tokenizer.get_vocab()
        assert "secret95word" not in tokenizer.get_vocab()


def test_tags_run_parallel_to_tokens(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", ["The dog sees a red house."] * 20)
    component = data(f"text(tags=true, tokenizer=words, calibration=1, evaluation=0, length=9):{path}")
    batch = next(iter(component.batches(0)))
    assert batch["tags"].shape == batch["input_ids"].shape
    from transformers import AutoTokenizer

    from corecompress_text.cleaning import UPOS

    tokenizer = AutoTokenizer.from_pretrained(component.corpus.folder / "tokenizer")
    pairs = {
        (tokenizer.convert_ids_to_tokens(int(i)), UPOS[t - 1] if t else "")
        for i, t in zip(batch["input_ids"].ravel(), batch["tags"].ravel(), strict=True)
    }
    assert {
        ("The", "DET"),
        ("dog", "NOUN"),
        ("sees", "VERB"),
        ("red", "ADJ"),
        ("house", "NOUN"),
        (".", "PUNCT"),
    } <= pairs
    assert ("<s>", "") in pairs


def test_the_report_tells_what_the_model_will_see(tmp_path: Path, minilm: Path) -> None:
    path = write(tmp_path / "a.txt", paragraphs(100))
    component = data(f"text(tokenizer=words, length=34, calibration=0.5, evaluation=0.5):{path}")
    columns, rows = component.report().tables["splits"]
    shown = dict(zip(columns, zip(*rows, strict=True), strict=True))
    assert sum(shown["documents"]) == 100
    assert [windows > 0 for windows in shown["windows"]] == [True, False, True]
    for split, windows, tokens in zip(shown["split"], shown["windows"], shown["tokens"], strict=True):
        assert windows == tokens // 32
        assert not windows or windows == sum(len(b["input_ids"]) for b in component.batches(0, split))
    assert set(shown["longest"]) == {33, 0}  # 30 words, "number", n, "."
    cut = data(f"text(length=20, form=sentences):{path}", minilm).report()
    assert 0 < float(cut.figures["cut off behind the length"].split()[0]) < 100


# The cache --------------------------------------------------------------------------------------------------------


def test_a_changed_file_or_option_never_serves_a_stale_cache(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", paragraphs(50))
    spec = f"text(tokenizer=words, length=8, calibration=1, evaluation=0):{path}"
    first = data(spec)
    before = [b["document"].size for b in first.batches(0)]
    stamp = path.stat()
    changed = path.read_text().replace("number 7.", "number 9.")
    path.write_text(changed)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size
    second = data(spec)
    assert first.fingerprint() != second.fingerprint()
    assert second.corpus.folder != first.corpus.folder
    assert [b["document"].size for b in second.batches(0)] == before
    assert data(spec.replace("length=8", "length=9")).fingerprint() != second.fingerprint()
    assert data(spec.replace("length=8", "length=8, lowercase=true")).corpus.folder != second.corpus.folder
    assert data(spec).fingerprint() == second.fingerprint()
    made = second.corpus.folder.stat().st_ino
    assert data(spec).corpus.folder.stat().st_ino == made  # found, not made again


def test_what_nobody_used_for_a_month_is_removed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", paragraphs(50))
    old, used = (data(f"text(tokenizer=words, length={n}, documents={n}):{path}").corpus.folder for n in (8, 9))
    os.utime(old, (0, 0))
    assert data(f"text(tokenizer=words, length=10, documents=10):{path}").corpus.folder.is_dir()
    assert used.is_dir()
    assert not old.exists()


def test_a_killed_preparation_leaves_nothing_that_looks_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import corecompress_text.prepare as prepare

    path = write(tmp_path / "a.txt", paragraphs(50))
    spec = f"text(tokenizer=words, length=8):{path}"
    with monkeypatch.context() as patch:
        patch.setattr(prepare._Store, "close", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            next(iter(data(spec).batches(0)))
    assert not [p for p in (tmp_path / "cache" / "text").iterdir() if p.is_dir() and p.name != "stdin"]
    assert next(iter(data(spec).batches(0)))


# Bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    def show(spec: str) -> str:
        return refused("data", "show", spec, CORECOMPRESS_CACHE=str(tmp_path / "cache"))

    (tmp_path / "empty.txt").write_text("")
    assert "no document" in show(f"text:{tmp_path}/empty.txt")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 100)
    assert "looks binary" in show(f"text:{tmp_path}/binary.txt")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    assert "'text'" in show(f"text:{tmp_path}/rows.csv")
    assert show(f"text(field=c):{tmp_path}/rows.csv").startswith(
        f"corecompress: {tmp_path}/rows.csv: has no column 'c'"
    )
    (tmp_path / "bad.jsonl").write_text('{"text": "x"}\nnot json\n')
    assert "line 2" in show(f"text:{tmp_path}/bad.jsonl")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but no more")
    assert "bad.parquet" in show(f"text:{tmp_path}/bad.parquet")
    (tmp_path / "bad.txt.gz").write_bytes(b"\x1f\x8b broken")
    assert "bad.txt.gz" in show(f"text:{tmp_path}/bad.txt.gz")
    assert "no such file" in show(f"text:{tmp_path}/gone.txt")
    assert "no room beside 2 special tokens" in show(
        f"text(length=2, tokenizer=words):{write(tmp_path / 'few.txt', paragraphs(9))}"
    )
    assert "no text file" in show(f"text:{(tmp_path / 'nothing').mkdir() or tmp_path / 'nothing'}")
    assert "encoding 'klingon'" in show(f"text(encoding=klingon):{write(tmp_path / 'a.txt', paragraphs(3))}")
    assert "together not above 1" in show(f"text(calibration=0.8, evaluation=0.4):{tmp_path}/a.txt")
    assert "is not known" in show(f"text(language=xx):{tmp_path}/a.txt")
    assert "left nothing" in show(f"text(min_characters=5000):{tmp_path}/a.txt")
    assert "tokenizer" in show(f"text(tokenizer={tmp_path}/nowhere/at/all):{tmp_path}/a.txt")
    assert "gone/set" in show("text:gone/set")


def test_a_short_corpus_says_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", paragraphs(3))
    with pytest.raises(CorecompressError, match="less than one window of 512"):
        next(iter(data(f"text(tokenizer=words, calibration=1, evaluation=0):{path}").batches(0)))
    with pytest.raises(CorecompressError, match="share of 0"):
        next(iter(data(f"text(tokenizer=words, calibration=1, evaluation=0):{path}").batches(0, "evaluation")))
    with pytest.raises(CorecompressError, match="no split"):
        next(iter(data(f"text(tokenizer=words):{path}").batches(0, "test")))
