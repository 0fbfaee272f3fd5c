"""--max-memory while a model runs on data: how much that takes is only seen when it does."""

from __future__ import annotations

import psutil
import torch

from corecompress.engines.budget import free_to_system, resident_memory
from corecompress.errors import CorecompressError

LAYERS = "take vae(calibration=layers), which needs less"
SHORTER = "give shorter texts (text(length=512):FILE)"


class Ceiling:
    """most: bytes of resident memory that the process may take; None for any. Where there is a ceiling, what is freed
    goes back to the system at once."""

    def __init__(self, most: int | None):
        self.most = most
        if most is not None:
            free_to_system()

    def check(self, what: str, mend: str, more: int = 0) -> None:
        """Raises CorecompressError where the process holds too much, or would with `more` bytes of host memory.

        what: what it would be that it holds then; mend: what takes less.
        """
        if self.most is None:
            return
        more = 0 if torch.cuda.is_available() else more
        held = psutil.Process().memory_info().rss + more
        if held > self.most:
            held = resident_memory() + more
        if held > self.most:
            raise CorecompressError(
                f"--max-memory {self.most / 1e6:.0f} MB: calibration takes {held / 1e6:.0f} MB or more for {what}; "
                f"allow more, or {mend}"
            )
