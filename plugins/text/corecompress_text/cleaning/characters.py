"""Steps on a document's characters: markup, Unicode, noise."""

from __future__ import annotations

import html
import re

import ftfy
import regex

_INVISIBLE_HTML = re.compile(
    r"<(script|style|template)\b.*?</\1\s*>|<!--.*?-->|<!DOCTYPE[^>]*>|<\?[^>]*\?>", re.S | re.I
)
_BLOCK = re.compile(r"</?(?:p|div|br|li|ul|ol|tr|table|h[1-6]|blockquote|section|article|pre|hr)\b[^<>]*>", re.I)
_TAG = re.compile(r"</?[a-zA-Z][\w:-]*(?:\s+[^<>]*)?/?>")

_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*$", re.M)
_IMAGE_OR_LINK = re.compile(r"!?\[([^\[\]]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"]*\")?\)")
_HEADING = re.compile(r"^[ ]{0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$", re.M)
_QUOTE = re.compile(r"^[ ]{0,3}>[ \t]?", re.M)
_RULE = re.compile(r"^[ ]{0,3}(?:[-*_][ \t]*){3,}$", re.M)
_STRONG = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", re.S)
_EMPHASIS = re.compile(r"(?<![\w*])([*_])(?=[^\s*_])([^*_\n]+?)(?<=[^\s*_])\1(?![\w*])")
_CODE = re.compile(r"`+([^`\n]+)`+")


def strip_markup(text: str) -> str:
    """HTML and Markdown to plain text. A "<" that begins no tag stays, so 3 < 5 survives."""
    if "<" in text:
        text = _INVISIBLE_HTML.sub(" ", text)
        text = _BLOCK.sub("\n", text)
        text = _TAG.sub("", text)
    if "&" in text:
        text = html.unescape(text)
    if "](" in text:
        text = _IMAGE_OR_LINK.sub(r"\1", text)
    if "`" in text:
        text = _CODE.sub(r"\1", _FENCE.sub("", text))
    if "**" in text or "__" in text:
        text = _STRONG.sub(r"\2", text)
    if "*" in text or "_" in text:
        text = _EMPHASIS.sub(r"\2", text)
    if "#" in text:
        text = _HEADING.sub(r"\1", text)
    if "---" in text or "***" in text or "___" in text or "- - -" in text:
        text = _RULE.sub("", text)
    if text.lstrip().startswith(">") or "\n>" in text:
        text = _QUOTE.sub("", text)
    return text.strip()


_FTFY = ftfy.TextFixerConfig(unescape_html=False, explain=False)


def mend_unicode(text: str) -> str:
    """Mojibake mended, NFC, straight quotes (ftfy's defaults). ASCII can't be wrong in these ways."""
    return text if text.isascii() and "\x1b" not in text else ftfy.fix_text(text, _FTFY)


_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_UNSEEN = regex.compile(r"[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Cs}\uFFFD--\n\t]", regex.V1)
_BLANKS = re.compile(r"[ \t\u00a0\u2000-\u200a\u3000]{2,}|[\t\u00a0\u2000-\u200a\u3000]")
_EDGES = re.compile(r" ?\n ?")
_LINES = re.compile(r"\n{3,}")
_RUNS = re.compile(r"([^\w\s])\1{3,}")


def remove_noise(text: str) -> str:
    """Control, invisible, private and unassigned characters go; runs of blanks become one, runs of a sign three."""
    if text.isascii():
        if not text.isprintable():
            text = _CONTROLS.sub("", text)
    else:
        text = _UNSEEN.sub("", text)
    text = _BLANKS.sub(" ", text)
    if "\n" in text:
        text = _LINES.sub("\n\n", _EDGES.sub("\n", text))
    return _RUNS.sub(r"\1\1\1", text).strip()
