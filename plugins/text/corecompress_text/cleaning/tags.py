"""Part-of-speech tags: English by Brill's rules (1992) with the lexicon that TextBlob carries, Chinese by jieba.

Brill's rules are applied as he did, one rule after the other over the whole text, here as operations on arrays of a
batch, which is why they are fast. Words of other languages get X, numbers and punctuation their own tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

from corecompress_text.cleaning.document import UPOS, Document

ID = {name: number + 1 for number, name in enumerate(UPOS)}

PENN = {
    **dict.fromkeys(("JJ", "JJR", "JJS"), "ADJ"),
    **dict.fromkeys(("IN", "RP"), "ADP"),
    **dict.fromkeys(("RB", "RBR", "RBS", "WRB"), "ADV"),
    **dict.fromkeys(("DT", "PDT", "WDT"), "DET"),
    **dict.fromkeys(("NN", "NNS"), "NOUN"),
    **dict.fromkeys(("NNP", "NNPS"), "PROPN"),
    **dict.fromkeys(("EX", "PRP", "PRP$", "WP", "WP$"), "PRON"),
    **dict.fromkeys(("VB", "VBD", "VBG", "VBN", "VBP", "VBZ"), "VERB"),
    **dict.fromkeys(("POS", "TO"), "PART"),
    **{"CC": "CCONJ", "CD": "NUM", "MD": "AUX", "UH": "INTJ", "SYM": "SYM", "FW": "X", "LS": "X"},
}
"""Penn Treebank to universal tags (universaldependencies.org/tagset-conversion)."""

AUXILIARIES = frozenset("am is are was were be been being 's 're 'm isn't aren't wasn't weren't".split())

JIEBA = {
    **dict.fromkeys(("nr", "nrt", "nrfg", "ns", "nt", "nz"), "PROPN"),
    **{"a": "ADJ", "b": "ADJ", "z": "ADJ", "d": "ADV", "p": "ADP", "c": "CCONJ", "e": "INTJ", "y": "PART", "u": "PART"},
    **{"o": "INTJ", "m": "NUM", "r": "PRON", "v": "VERB", "w": "PUNCT", "vn": "NOUN", "an": "NOUN", "f": "ADP"},
    **dict.fromkeys(("n", "q", "t", "s", "i", "l", "j", "g", "h", "k"), "NOUN"),
}
"""jieba's flags to universal tags, the longest prefix that is listed."""

_NUMBER = re.compile(r"[+-]?\d[\d.,:/-]*(?:st|nd|rd|th|%)?$")
_LETTER = regex.compile(r"\p{L}")
_LATIN = regex.compile(r"\p{Latin}")


@dataclass(frozen=True)
class _Rule:
    old: str
    new: str
    kind: str
    first: str
    second: str


class Brill:
    """Lexicon, rules for unknown words, rules of context. Tags are numbers inside; 0 stands beyond a document."""

    def __init__(self, folder: Path):
        self.lexicon = dict(_pairs(folder / "en-lexicon.txt"))
        self.morphology = [line.split() for line in _rules(folder / "en-morphology.txt")]
        contexts = [[*line.split(), ""][:5] for line in _rules(folder / "en-context.txt")]
        self.contexts = [_Rule(*fields) for fields in contexts if fields[0] != "*"]
        named = {tag for rule in self.contexts for tag in (rule.old, rule.new, rule.first, rule.second)}
        self.names = ["", *sorted(set(self.lexicon.values()) | set(PENN) | named)]
        self.number = {name: number for number, name in enumerate(self.names)}
        self.memory: dict[str, int] = {}
        spoken = {word for rule in self.contexts for word in _words_of(rule)}
        self.word_number = {word: number + 1 for number, word in enumerate(sorted(spoken))}
        universal = [ID["PUNCT"] if name and not name[0].isalpha() else ID[PENN.get(name, "X")] for name in self.names]
        self.universal = np.array([0, *universal[1:]], np.uint8)

    def tag(self, documents: list[list[str]]) -> NDArray[np.uint8]:
        """Universal tags of all words of all documents, one after the other with three zeros between."""
        words: list[str] = []
        for document in documents:
            words += ["", "", "", *document]
        words += ["", "", ""]
        memory = self.memory
        tags = np.array([memory[w] if w in memory else self._lookup(w) for w in words], np.int16)
        self._first_words(words, tags)
        numbers = self.word_number
        spoken = np.array([numbers.get(word, 0) for word in words], np.int16)
        for rule in self.contexts:
            self._apply(rule, tags, spoken)
        out = self.universal[tags]
        auxiliary = [i for i, word in enumerate(words) if word in AUXILIARIES]
        out[auxiliary] = ID["AUX"]
        return out

    def _first_words(self, words: list[str], tags: NDArray[np.int16]) -> None:
        """A document's first word has a capital letter for another reason."""
        for at in np.flatnonzero((tags[:-1] == 0) & (tags[1:] != 0)) + 1:
            word = words[at]
            if word not in self.lexicon and word.lower() in self.lexicon:
                tags[at] = self.number[self.lexicon[word.lower()]]

    def _lookup(self, word: str) -> int:
        if not word:
            return 0
        if len(self.memory) > 500_000:
            self.memory.clear()
        self.memory[word] = number = self.number.get(self._guess(word), 0)
        return number

    def _guess(self, word: str) -> str:
        if word in self.lexicon:
            return self.lexicon[word]
        if not any(map(str.isalnum, word)):
            return "."
        if "'" in word or "’" in word:
            return self._guess(re.split("['’]", word)[0]) or "NN"
        if word.istitle():
            return "NNP"
        if _NUMBER.match(word):
            return "CD"
        tag = "NN"
        for rule in self.morphology:
            tag = self._morphological(rule, word, tag)
        return tag

    def _morphological(self, rule: list[str], word: str, tag: str) -> str:
        """One lexical rule: `x command n new x`, or with a leading tag (command fx) that the word must have."""
        if rule[1] in _LEXICAL:
            affix, command = rule[0], rule[1]
        elif rule[2].removeprefix("f") in _LEXICAL and rule[0] == tag:
            affix, command = rule[1], rule[2].removeprefix("f")
        else:
            return tag
        known = self.lexicon
        holds = {
            "char": lambda: affix in word,
            "haspref": lambda: word.startswith(affix),
            "hassuf": lambda: word.endswith(affix),
            "addpref": lambda: affix + word in known,
            "addsuf": lambda: word + affix in known,
            "deletepref": lambda: word.startswith(affix) and word[len(affix) :] in known,
            "deletesuf": lambda: word.endswith(affix) and word[: -len(affix)] in known,
        }[command]()
        return rule[-2] if holds else tag

    def _apply(self, rule: _Rule, tags: NDArray[np.int16], spoken: NDArray[np.int16]) -> None:
        at = np.flatnonzero(tags == self.number.get(rule.old, -1))
        if not at.size:
            return
        x_tag, y_tag = self.number.get(rule.first, -1), self.number.get(rule.second, -1)
        x, y = self.word_number.get(rule.first, -1), self.word_number.get(rule.second, -1)

        def tag(offset: int, wanted: int) -> Any:
            return tags[at + offset] == (0 if wanted == self.number.get("STAART") else wanted)

        def word(offset: int, wanted: int) -> Any:
            return spoken[at + offset] == wanted

        kinds = {
            "PREVTAG": lambda: tag(-1, x_tag),
            "NEXTTAG": lambda: tag(1, x_tag),
            "PREV2TAG": lambda: tag(-2, x_tag),
            "NEXT2TAG": lambda: tag(2, x_tag),
            "PREV1OR2TAG": lambda: tag(-1, x_tag) | tag(-2, x_tag),
            "NEXT1OR2TAG": lambda: tag(1, x_tag) | tag(2, x_tag),
            "PREV1OR2OR3TAG": lambda: tag(-1, x_tag) | tag(-2, x_tag) | tag(-3, x_tag),
            "SURROUNDTAG": lambda: tag(-1, x_tag) & tag(1, y_tag),
            "PREVBIGRAM": lambda: tag(-2, x_tag) & tag(-1, y_tag),
            "NEXTBIGRAM": lambda: tag(1, x_tag) & tag(2, y_tag),
            "CURWD": lambda: word(0, x),
            "PREVWD": lambda: word(-1, x),
            "NEXTWD": lambda: word(1, x),
            "PREV1OR2WD": lambda: word(-1, x) | word(-2, x),
            "WDPREVTAG": lambda: tag(-1, x_tag) & word(0, y),
            "WDNEXTTAG": lambda: word(0, x) & tag(1, y_tag),
            "WDAND2AFT": lambda: word(0, x) & word(2, y),
            "WDAND2TAGBFR": lambda: tag(-2, x_tag) & word(0, y),
            "WDAND2TAGAFT": lambda: word(0, x) & tag(2, y_tag),
            "LBIGRAM": lambda: word(-1, x) & word(0, y),
            "RBIGRAM": lambda: word(0, x) & word(1, y),
        }
        tags[at[kinds[rule.kind]()]] = self.number[rule.new]


_LEXICAL = frozenset(("char", "haspref", "hassuf", "addpref", "addsuf", "deletepref", "deletesuf"))
"""Commands on a word's form. Those on its neighbours (goodleft, goodright) are left out, so that guesses stay."""


def _words_of(rule: _Rule) -> list[str]:
    if rule.kind in ("CURWD", "PREVWD", "NEXTWD", "PREV1OR2WD", "WDNEXTTAG", "WDAND2TAGAFT"):
        return [rule.first]
    if rule.kind in ("WDPREVTAG", "WDAND2TAGBFR"):
        return [rule.second]
    return [rule.first, rule.second] if rule.kind in ("WDAND2AFT", "LBIGRAM", "RBIGRAM") else []


def _rules(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith(";;;"):
            yield line.strip()


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    for line in _rules(path):
        word, _, tag = line.partition(" ")
        yield word, tag.split()[0] if tag.split() else "NN"


@cache
def brill() -> Brill:
    """The English tagger. TextBlob's data are found without importing it."""
    spec = find_spec("textblob")
    assert spec is not None, "textblob is a dependency of corecompress-text"
    assert spec.submodule_search_locations
    return Brill(Path(next(iter(spec.submodule_search_locations))) / "en")


def tag(batch: list[Document]) -> list[Document]:
    """Give every document tags parallel to its words; those that have some (Chinese) keep them."""
    todo = [document for document in batch if document.tags is None and document.words is not None]
    if not todo:
        return batch
    all_words = [document.words or [] for document in todo]
    tags = brill().tag(all_words).tolist()
    at = 3
    for document, words in zip(todo, all_words, strict=True):
        document.tags = tags[at : at + len(words)]
        at += len(words) + 3
        if not document.text.isascii():
            document.tags = [_foreign(word, t) for word, t in zip(words, document.tags, strict=True)]
    return batch


def _foreign(word: str, tag: int) -> int:
    return ID["X"] if not word.isascii() and _LETTER.search(word) and not _LATIN.search(word) else tag


def split_and_tag_chinese(text: str) -> tuple[list[str], list[int]]:
    """Words and universal tags of a text with Chinese in it, by jieba's hidden Markov models; the rest as English."""
    from corecompress_text.cleaning.words import HAN, jieba, split_words

    jieba()
    import jieba.posseg as posseg

    words: list[str] = []
    tags: list[int] = []

    def other(piece: str) -> None:
        found = split_words(piece)
        words.extend(found)
        tags.extend(brill().tag([found]).tolist()[3 : 3 + len(found)])

    at = 0
    for run in HAN.finditer(text):
        other(text[at : run.start()])
        for pair in posseg.lcut(run.group()):
            words.append(pair.word)
            tags.append(ID[JIEBA.get(pair.flag, JIEBA.get(pair.flag[:1], "X"))])
        at = run.end()
    other(text[at:])
    return words, tags
