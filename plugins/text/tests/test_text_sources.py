"""Where texts come from: formats, folders, the hub, standard input, encodings; found by the entry point `text`."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from corpora import data, documents_of, paragraphs, texts_of, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corecompress.errors import CorecompressError

pytestmark = pytest.mark.usefixtures("own_cache")


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
