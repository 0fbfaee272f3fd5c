"""transformers and accelerate without their remarks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' and accelerate's remarks and bars: what matters of them is checked and said here."""
    from transformers.utils import logging as theirs

    before, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    accelerate = logging.getLogger("accelerate")
    level = accelerate.level
    theirs.set_verbosity(theirs.CRITICAL)
    theirs.disable_progress_bar()
    accelerate.setLevel("ERROR")
    try:
        yield
    finally:
        theirs.set_verbosity(before)
        accelerate.setLevel(level)
        if bars:
            theirs.enable_progress_bar()
