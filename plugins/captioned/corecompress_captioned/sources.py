"""Which source a SPEC names."""

from __future__ import annotations

import re
from pathlib import Path

from corecompress.errors import CorecompressError
from corecompress_captioned.columns import Columns
from corecompress_captioned.images import Images
from corecompress_captioned.options import Options

FETCHED = ("digits", "fashion", "emoji")

HUB_SET = re.compile(r"(?P<name>[\w][\w.-]*/[\w][\w.-]*)(?P<rest>(?::[^:]*){0,2})")


def open_source(text: str, options: Options) -> Images:
    """The images that a SPEC names. Raises CorecompressError for what isn't there or holds no image, and for options
    that the source has no use for."""
    columns = Columns(options.image_column, options.caption_column, options.label_column)
    if options.language != "en" and text != "emoji":
        raise CorecompressError(f"captioned:{text}: language={options.language} is for captioned:emoji; leave it out")
    if text in FETCHED and columns != Columns():
        raise CorecompressError(f"captioned:{text}: has no columns; leave out their names")
    images = _open(text, options, columns)
    if options.split == "official" and images.official is None:
        raise CorecompressError(f"captioned:{text}: has no official test set here; leave out split=official")
    return images


def _open(text: str, options: Options, columns: Columns) -> Images:
    if text == "digits":
        from corecompress_captioned.drawn import digits

        return digits()
    if text == "fashion":
        from corecompress_captioned.drawn import fashion

        return fashion()
    if text == "emoji":
        from corecompress_captioned.emoji import emoji_images

        return emoji_images(options.language)
    folder = Path(text).expanduser()
    found = HUB_SET.fullmatch(text)
    if folder.is_dir() and not (found and _is_of_datasets(folder)):
        from corecompress_captioned.folder import folder_images

        return folder_images(folder, columns)
    if folder.is_file():
        raise CorecompressError(f"captioned:{text}: is a file; give the folder that it is in")
    if found and not text.startswith("."):
        from corecompress_captioned.hub import hub_images

        config, split = [*found["rest"].split(":")[1:], "", ""][:2]
        return hub_images(found["name"], config or None, split or "train", columns, options.images)
    raise CorecompressError(
        f"captioned:{text}: no such folder; give a folder of images, a hub set (HUB/NAME), or {', '.join(FETCHED)}"
    )


def _is_of_datasets(folder: Path) -> bool:
    """Whether a folder is laid out as a set of the hub: tables that hold the images."""
    return any(True for _ in folder.rglob("*.parquet"))
