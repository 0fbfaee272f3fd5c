"""The data component `text`, found by its entry point: sources, splits, batches, tokenizers, cache, bad input."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import corecompress.api
from corecompress.errors import CorecompressError

WORDS = "the quick brown fox jumps over a lazy dog while seven wise owls watch from their old oak".split()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minilm: Path) -> None:
    monkeypatch.setenv("CORECOMPRESS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def refused() -> Callable[..., str]:
    """Run the command, expect bad input, and return the one line that was said."""

    def run(*arguments: object, **environment: str) -> str:
        command = [str(Path(sys.executable).with_name("corecompress")), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1", **environment}
        )
        lines = done.stderr.splitlines()
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        assert len(lines) == 1, done.stderr
        assert "a bug" not in lines[0], lines[0]
        return lines[0]

    return run


@pytest.fixture(scope="session")
def minilm() -> Path:
    from corecompress.demo import demo_folder

    return demo_folder()


def paragraphs(count: int, seed: int = 0, length: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) + f" number {n}." for n in range(count)]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("\n\n".join(texts), encoding="utf-8")
    return path


def data(spec: str, checkpoint: Path | None = None) -> Any:
    return corecompress.api.open_data(spec, checkpoint)


def documents_of(component: Any, split: str) -> set[int]:
    found = {int(d) for batch in component.batches(0, split) for d in np.unique(batch["document"])}
    return found - {-1}


def texts_of(spec: str) -> list[str]:
    return list(data(spec).source.texts())


# Sources ----------------------------------------------------------------------------------------------------------


def test_every_format_gives_the_same_documents(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ["one, with a comma", 'two "quoted"\nin two lines', "drei, Übermut", "四个中文字"]
    table = pa.table({"id": [1, 2, 3, 4], "text": texts})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"n": 1, "text": t}) for t in texts))
    with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as file:
        import csv

        csv.writer(file).writerows([["id", "text"], *([n, t] for n, t in enumerate(texts))])
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        packed = (tmp_path / name).read_bytes()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(packed))
        (tmp_path / f"{name}.zst").write_bytes(zstandard.compress(packed))
    for path in sorted(tmp_path.glob("a.*")):
        assert texts_of(f"text:{path}") == texts, path.name
        assert texts_of(f"text:{path}:text") == texts, path.name


def test_folders_patterns_and_standard_input(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    write(folder / "a.txt", ["first", "second"])
    write(folder / "deep" / "b.md", ["third", "fourth"])
    (folder / "picture.png").write_bytes(b"\x89PNG\0\0")
    assert texts_of(f"text:{folder}") == ["first", "second", "third", "fourth"]
    assert texts_of(f"text:{folder}/*.txt") == ["first", "second"]
    command = [str(Path(sys.executable).with_name("corecompress")), "data", "show", "text:-", "--json"]
    done = subprocess.run(command, input="\n\n".join(paragraphs(50)).encode(), capture_output=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert sum(row[1] for row in shown["tables"]["splits"][1]) == 50


def test_standard_input_may_be_of_any_format_and_is_kept_for_our_own_processes(tmp_path: Path) -> None:
    texts = paragraphs(50)
    rows = "\n".join(json.dumps({"text": t}) for t in texts).encode()
    command = [str(Path(sys.executable).with_name("corecompress")), "data", "show", "text:-", "--json"]
    for piped in (rows, gzip.compress(rows), zstandard.compress("\n\n".join(texts).encode())):
        done = subprocess.run(command, input=piped, capture_output=True, env=os.environ)
        assert done.returncode == 0, done.stderr
        assert sum(row[1] for row in json.loads(done.stdout)["tables"]["splits"][1]) == 50
    twice = "from corecompress.api import open_data as o; print(*(o('text:-').fingerprint() for _ in range(2)))"
    done = subprocess.run([sys.executable, "-c", twice], input=rows, capture_output=True, env=os.environ, check=True)
    first, second = done.stdout.split()
    assert first == second
    refused = subprocess.run(command, input=bytes(range(256)) * 9, capture_output=True, env=os.environ)
    assert refused.returncode == 2
    assert refused.stderr.startswith(b"corecompress: standard input: looks binary")


def test_columns_of_folders_and_patterns_and_of_every_type_of_string(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ["eins", "zwei", "eins"]
    folder = tmp_path / "rows"
    folder.mkdir()
    kinds = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    for n, kind in enumerate(kinds):
        pq.write_table(pa.table({"body": pa.array(texts).cast(kind), "note": texts}), folder / f"{n}.parquet")
    assert texts_of(f"text:{folder}:body") == texts * len(kinds)
    assert texts_of(f"text:{folder}/[01].parquet:body") == texts * 2
    write(folder / "README.md", ["Running text beside rows has no columns."])
    assert len(texts_of(f"text(field=body):{folder}")) == 3 * len(kinds) + 1


def test_a_set_of_the_hub_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder laid out as a set of the hub is, which `datasets` loads by its name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme" / "set" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        table = pa.table({"title": ["x"] * 30, "body": [f"{split} {n}" for n in range(30)], "n": list(range(30))})
        pq.write_table(table, tmp_path / "acme" / "set" / "data" / f"{split}-00000-of-00001.parquet")
    assert texts_of("text:acme/set:default:test:body") == [f"test {n}" for n in range(30)]
    assert texts_of("text(documents=5, field=body):acme/set:default:train") == [f"train {n}" for n in range(5)]
    assert data("text:acme/set::test:body").fingerprint() != data("text:acme/set::train:body").fingerprint()
    for spec, says in (
        ("text:acme/set::none:body", "Bad split"),
        ("text:acme/set::test:gone", "its columns: title, body, n"),
        ("text:acme/set::test:n", "holds no text"),
        ("text:acme/set::test", "choose one with field=… of: title, body"),
    ):
        with pytest.raises(CorecompressError, match=says):
            texts_of(spec)


def test_demo_is_there_on_every_machine(tmp_path: Path) -> None:
    found = texts_of("text:demo")
    assert len(found) > 1000
    assert any("with" in text for text in found)
    assert texts_of("text(documents=7):demo") == found[:7]
    assert documents_of(data("text(tokenizer=words, length=64):demo"), "evaluation")


def test_html_is_read_by_its_blocks(tmp_path: Path) -> None:
    page = "<html><head><title>no</title><script>var x = 1 < 2;</script></head><body><h1>Head</h1>"
    page += "<p>One &amp; two,<br>3 &lt; 5.</p><div>Three <b>bold</b></div><style>p{}</style></body></html>"
    (tmp_path / "a.html").write_text(page)
    assert texts_of(f"text:{tmp_path}/a.html") == ["Head", "One & two,", "3 < 5.", "Three bold"]


def test_lines_paragraphs_and_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n\nthree\n")
    assert texts_of(f"text(document=line):{path}") == ["one", "two", "three"]
    assert texts_of(f"text(document=paragraph):{path}") == ["one\ntwo", "three"]
    assert texts_of(f"text(document=file):{path}") == ["one\ntwo\n\nthree"]
    assert len(texts_of(f"text(documents=2, document=line):{path}")) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "latin-1", "gb18030", "cp1252"])
def test_encodings_are_detected(tmp_path: Path, encoding: str) -> None:
    text = (
        "中文的句子在这里，很长很长的一段文字。" * 40
        if encoding == "gb18030"
        else "Élan, déjà vu; the façade’s naïve crème brûlée. " * 40
    )
    text = text if encoding not in ("latin-1",) else text.replace("’", "'")
    path = tmp_path / "a.txt"
    path.write_bytes(text.strip().encode(encoding))
    assert "".join(texts_of(f"text:{path}")).split() == text.split()


def test_undecodable_bytes_are_counted_not_fatal(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("naïve café — “quoted” text, ".encode() * 20 + b"bad \xff\xfe bytes\n")
    component = data(f"text(document=line):{path}")
    assert "�" in "".join(component.source.texts())
    assert component.source.tally.undecodable == 2


@pytest.mark.parametrize(
    ("encoding", "found", "damage"),
    [
        ("gbk", "gb18030", b"\x81"),
        ("utf-16", "utf-16", b"A"),
        ("cp1252", "cp1252", b"\x81"),
        ("utf-16-le", "utf-16-le", b""),
    ],
)
def test_a_damaged_byte_changes_neither_the_encoding_nor_the_rest(
    tmp_path: Path, encoding: str, found: str, damage: bytes
) -> None:
    line = "今天天气很好，我们去公园散步。" if encoding == "gbk" else "Élan, déjà vu; the naïve crème brûlée."
    path = tmp_path / "a.txt"
    path.write_bytes("\n".join([line] * 300).encode(encoding) + damage)
    component = data(f"text:{path}")
    texts = list(component.source.texts())
    assert texts[:-1] == [line] * 299
    assert texts[-1] == line + "�" * bool(damage)
    assert component.source.tally.undecodable == len(damage)
    assert list(component.source.tally.encodings.values()) == [found]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip), min_size=1, max_size=20
    )
)
def test_any_text_survives_json_lines(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"text": t}) for t in texts), encoding="utf-8")
    assert [t.strip("\n") for t in texts if t.strip()] == texts_of(f"text:{path}")


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """The same reading and cutting of 8 MB and of 80 MB, all steps on, in fresh processes."""
    script = """
import sys
from pathlib import Path
from corecompress.api import open_data
from corecompress_text.cleaning import Cleaner, Document
component = open_data(sys.argv[1])
cleaner = Cleaner(component.options, Path(sys.argv[2]))
count = sum(1 for _ in cleaner.run(Document(n, t) for n, t in enumerate(component.source.texts())))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(count, peak)
"""
    peaks = []
    for size in (20_000, 200_000):
        path = write(tmp_path / f"{size}.txt", paragraphs(2000, length=60) * (size // 2000))
        scratch = tmp_path / f"scratch-{size}"
        scratch.mkdir()
        spec = f"text(duplicates=exact, noise=true, unicode=true):{path}"
        done = subprocess.run(
            [sys.executable, "-c", script, spec, str(scratch)], capture_output=True, text=True, check=True
        )
        count, peak = map(int, done.stdout.split())
        assert count == 2000
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 30_000  # kilobytes


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
