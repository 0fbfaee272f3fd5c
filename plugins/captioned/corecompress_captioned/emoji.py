"""Colour emoji: pictures of the Noto font as Debian packages it, captions of the package emoji on PyPI."""

from __future__ import annotations

import io
import itertools
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from corecompress.demo import cache_folder
from corecompress.errors import CorecompressError
from corecompress_captioned.debian import Package, fetch_from_deb
from corecompress_captioned.images import Images, decode, digest

FONT = Package(
    "fonts-noto-color-emoji",
    "2.042-0+deb12u1",
    "pool/main/f/fonts-noto-color-emoji",
    "a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
)
POINTS = 109
"""The one size that the font has bitmaps of: 136 × 128 pixels."""
EDGE = 136
FORMAT = 1
"""Of the drawn pictures in the cache."""

Language = Literal["en", "zh", "both"]

_JOINER = "\u200d"
_DROPPED = frozenset("\ufe0f♀♂➡🏻🏼🏽🏾🏿🦰🦱🦲🦳")
"""What makes a variant of a concept: presentation, gender and direction, skin tones, hair."""
_SAME = {
    variant: variants[0]
    for variants in ("🧑👨👩", "🧒👦👧", "🧓👴👵", "🫅🤴👸", "🎅🤶", "💃🕺", "🤰🫃🫄", "👫👬👭")
    for variant in variants[1:]
}
_JOINED = {"🧑‍🎄": "🎅", "🧑‍🤝‍🧑": "👫", "🧑‍❤‍🧑": "💑", "🧑‍❤‍💋‍🧑": "💏", "🫱‍🫲": "🤝"}


def emoji_images(language: Language) -> Images:
    """Every emoji that the font has. `both`: each picture twice, once with its caption in either language."""
    sequences, digests, pngs = _pictures()
    groups = _groups([concept(sequence) for sequence in sequences], digests)
    languages = ("en", "zh") if language == "both" else (language,)
    times = len(languages)
    return Images(
        origin=f"emoji, {'English and Chinese' if times == 2 else {'en': 'English', 'zh': 'Chinese'}[language]}",
        read=lambda n: decode(pngs[n // times], sequences[n // times]),
        where=lambda n: f"emoji {sequences[n // times]}",
        captions=[_caption(sequence, each) for sequence in sequences for each in languages],
        digests=np.repeat(digests, times),
        kinds=[("RGB", EDGE, EDGE)] * (len(pngs) * times),
        groups=np.repeat(groups, times),
    )


def concept(sequence: str) -> str:
    """What an emoji shows without skin tone, gender, hair and direction, so that variants are never on both sides."""
    bare = "".join(_SAME.get(sign, sign) for sign in sequence if sign not in _DROPPED)
    parts = [part for part in bare.split(_JOINER) if part]
    if len(parts) > 1 and set(parts) <= {"🧑", "🧒"}:
        return "👪"
    joined = _JOINER.join(parts)
    return _JOINED.get(joined, joined)


def _groups(concepts: list[str], digests: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of each concept; concepts with a picture in common (flags of territories) become one."""
    head = {name: name for name in concepts}

    def find(name: str) -> str:
        while head[name] != name:
            name = head[name]
        return name

    first: dict[int, str] = {}
    for name, picture in zip(concepts, digests.tolist(), strict=True):
        head[find(name)] = find(first.setdefault(picture, name))
    return np.array([digest(find(name).encode()) for name in concepts], np.uint64)


def _caption(sequence: str, language: str) -> str:
    name = str(_names()[sequence][language]).strip(":").replace("_", " ")
    if "🇦" <= sequence[0] <= "🇿":  # the package leaves out what Unicode's names begin with
        return f"{'flag' if language == 'en' else '旗'}: {name}"
    return name


def _names() -> dict[str, Any]:
    import emoji

    emoji.config.load_language("zh")
    return emoji.EMOJI_DATA


def _pictures() -> tuple[list[str], NDArray[np.uint64], list[bytes]]:
    """Sequences, hashes of their pixels, PNGs. Drawn once."""
    path = cache_folder() / f"emoji-{FONT.version}-{metadata.version('emoji')}-{FORMAT}.npz"
    if not path.exists():
        _draw_all(path)
    with np.load(path) as kept:
        packed = kept["packed"]
        pngs = [packed[start:end].tobytes() for start, end in itertools.pairwise(kept["starts"])]
        return [str(sequence) for sequence in kept["sequences"]], kept["digests"], pngs


def _draw_all(path: Path) -> None:
    import emoji
    from PIL import ImageFont, features

    if not features.check("raqm"):
        raise CorecompressError(
            "captioned:emoji: Pillow can't join the parts of an emoji here; install FriBiDi (Debian: libfribidi0)"
        )
    file = fetch_from_deb(FONT, "usr/share/fonts/truetype/noto/") / "NotoColorEmoji.ttf"
    font = ImageFont.truetype(str(file), POINTS, layout_engine=ImageFont.Layout.RAQM)
    print("captioned:emoji: drawing the pictures, once …", file=sys.stderr)
    whole = emoji.STATUS["fully_qualified"]
    listed = sorted(sequence for sequence, known in _names().items() if known["status"] == whole)
    single = font.getlength("😀")  # what the font doesn't know as one picture is longer
    drawn = {sequence: _draw(font, sequence) for sequence in listed if font.getlength(sequence) == single}
    unknown = _draw(font, "\U000e0ffe").tobytes()
    drawn = {sequence: image for sequence, image in drawn.items() if image.tobytes() != unknown}
    pngs = [_png(image) for image in drawn.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as scratch:
        np.savez(
            scratch,
            sequences=np.array(list(drawn)),
            digests=np.array([digest(image.tobytes()) for image in drawn.values()], np.uint64),
            starts=np.cumsum([0, *map(len, pngs)]),
            packed=np.frombuffer(b"".join(pngs), np.uint8),
        )
    os.replace(scratch.name, path)


def _draw(font: Any, sequence: str) -> Image.Image:
    """The picture on white."""
    from PIL import ImageDraw

    image = Image.new("RGB", (EDGE, EDGE), "white")
    ImageDraw.Draw(image).text((0, 4), sequence, font=font, embedded_color=True)
    return image


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
