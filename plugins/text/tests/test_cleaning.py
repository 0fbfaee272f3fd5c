"""The cleaning steps: each by what it does to text, all together by their counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corecompress_text.cleaning import UPOS, Cleaner, CleaningOptions, Document


def clean(tmp_path: Path, texts: list[str], **options: object) -> list[Document]:
    scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
    scratch.mkdir()
    cleaner = Cleaner(CleaningOptions(**options), scratch)
    return list(cleaner.run(Document(n, text) for n, text in enumerate(texts)))


def one(tmp_path: Path, text: str, **options: object) -> str:
    (document,) = clean(tmp_path, [text], **options)
    return document.text


def test_without_steps_the_same_objects_come_out(tmp_path: Path) -> None:
    documents = [Document(0, " \x00 <b>x</b> "), Document(1, "")]
    assert all(a is b for a, b in zip(documents, Cleaner(CleaningOptions(), tmp_path).run(documents), strict=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <b>bold</b> word", "a bold word"),
        ("3 < 5 and 7 > 2", "3 < 5 and 7 > 2"),
        ("<p>One</p><script>x < 1</script><p>Two &amp; three</p>", "One\n \nTwo & three"),
        ("# Head\nsome *soft* and **hard** `code`", "Head\nsome soft and hard code"),
        ("a [link](http://x.y/z_(w)) and ![picture](p.png)", "a link and picture"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        ("```python\nx = 1\n```", "x = 1"),
    ],
)
def test_markup(tmp_path: Path, text: str, expected: str) -> None:
    assert one(tmp_path, text, markup=True).split() == expected.split()


def test_mojibake_and_composition(tmp_path: Path) -> None:
    assert one(tmp_path, "schÃ¶n â€” cafe\u0301", unicode=True) == "schön — café"


def test_noise(tmp_path: Path) -> None:
    assert one(tmp_path, "a\x00b\u200bc  \t d!!!!!!!\n\n\n\ne \ufeff", noise=True) == "abc d!!!\n\ne"


def test_exact_and_near_duplicates(tmp_path: Path) -> None:
    text = "It is a truth universally acknowledged, that a single man in possession of a good fortune must want a wife."
    near = text.replace("universally", "generally").replace("wife.", "wife!")
    other = "However little known the feelings or views of such a man may be on his first entering a neighbourhood."
    texts = [text, text.upper(), near, other, text]
    assert [d.number for d in clean(tmp_path, texts, duplicates="exact")] == [0, 2, 3]
    long = " ".join(f"{text} {n}" for n in range(20))
    changed = long.replace("good fortune", "large fortune", 2)
    assert [d.number for d in clean(tmp_path, [long, changed, other], duplicates="near")] == [0, 2]


def test_language(tmp_path: Path) -> None:
    texts = [
        "This is plainly an English sentence about nothing.",
        "这是一个关于天气的中文句子。",
        "Dies ist ein deutscher Satz über das Wetter.",
    ]
    assert [d.number for d in clean(tmp_path, texts, language="en")] == [0]
    assert [d.number for d in clean(tmp_path, texts, language="zh")] == [1]


def test_words_of_english_and_chinese(tmp_path: Path) -> None:
    (document,) = clean(tmp_path, ["Don't panic, it's 3.14! 我来到北京清华大学。"], segment=True)
    assert document.words == ["Don't", "panic", ",", "it's", "3.14", "!", "我", "来到", "北京", "清华大学", "。"]
    assert document.text == " ".join(document.words)


def test_punctuation_and_stop_words_thin_out_words_and_tags_together(tmp_path: Path) -> None:
    options = {"tags": True, "punctuation": True, "stopwords": True, "lowercase": True}
    (document,) = clean(tmp_path, ["The dog, of course, chases a red house."], **options)
    assert document.words == ["dog", "chases", "red", "house"]
    assert [UPOS[tag - 1] for tag in document.tags] == ["NOUN", "VERB", "ADJ", "NOUN"]
    (chinese,) = clean(tmp_path, ["我们的学校在北京。"], **options)
    assert "学校" in chinese.words
    assert "的" not in chinese.words
    assert len(chinese.tags) == len(chinese.words)


def test_tags_of_a_plain_english_text(tmp_path: Path) -> None:
    """Tags by hand; nine of ten must be right."""
    text = "She quickly gave the old man three books and walked to London because it was raining ."
    hand = "PRON ADV VERB DET ADJ NOUN NUM NOUN CCONJ VERB PART PROPN ADP PRON AUX VERB PUNCT".split()
    (document,) = clean(tmp_path, [text], tags=True)
    found = [UPOS[tag - 1] for tag in document.tags]
    assert len(found) == len(hand)
    assert sum(a == b for a, b in zip(found, hand, strict=True)) >= 15, list(zip(document.words, found, strict=True))


def test_bounds(tmp_path: Path) -> None:
    assert [d.text for d in clean(tmp_path, ["a", "abc", "abcdef"], min_characters=2, max_characters=5)] == ["abc"]


def test_the_report_counts_every_step_in_order(tmp_path: Path) -> None:
    cleaner = Cleaner(CleaningOptions(clean="all"), tmp_path)
    list(
        cleaner.run(
            Document(n, text) for n, text in enumerate(["<b>Green</b> apples grow", "<b>Green</b> apples grow", "the"])
        )
    )
    report = {step.name: step for step in cleaner.report()}
    names = "markup unicode noise duplicates segment tags punctuation stopwords lowercase empty".split()
    assert list(report) == names
    assert report["markup"].characters_removed == 14
    assert (report["duplicates"].documents_in, report["duplicates"].documents_out) == (3, 2)
    assert report["empty"].documents_out == 1


def test_long_documents_do_not_pile_up(tmp_path: Path) -> None:
    """At most some megabytes go through the steps together, whatever the number of documents."""
    begun: list[int] = []
    cleaner = Cleaner(CleaningOptions(lowercase=True), tmp_path)
    texts = (begun.append(n) or Document(n, "A" * 1_000_000) for n in range(100))
    next(cleaner.run(texts))
    assert len(begun) < 10


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=60), max_size=8))
def test_any_text_goes_through_all_steps(tmp_path: Path, texts: list[str]) -> None:
    for document in clean(tmp_path, texts, clean="all"):
        assert document.words is not None
        assert document.tags is not None
        assert len(document.words) == len(document.tags)
        assert document.text == " ".join(document.words)
        assert all(0 <= tag <= len(UPOS) for tag in document.tags)
