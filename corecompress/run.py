"""What one run is told, and what its steps share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corecompress.components import Data, Progress
from corecompress.engines.local import cores
from corecompress.plugins import Registry
from corecompress.routing import Resolved
from corecompress.writer import SHARD_BYTES, STAGES


@dataclass(frozen=True)
class Settings:
    """What a run is told besides source, target and recipe.

    jobs: threads, None for one a core; max_memory: bytes of resident memory, None for what the largest tensors need;
    cache: folder for calibration that later runs may use again, None for one that goes with the run;
    target_loss: where training in model stages may stop, None for the end of its budget.
    """

    seed: int = 0
    jobs: int | None = None
    max_memory: int | None = None
    force: bool = False
    resume: bool = False
    shard_bytes: int = SHARD_BYTES
    cache: Path | None = None
    target_loss: float | None = None

    @property
    def threads(self) -> int:
        return self.jobs or cores()


@dataclass(frozen=True)
class Run:
    """Everything that the steps of one run share. partial: the folder that they write in."""

    resolved: Resolved
    registry: Registry
    data: Data | None
    settings: Settings
    progress: Progress
    partial: Path

    @property
    def cache(self) -> Path:
        """Where components keep what other runs can use as well."""
        folder = self.settings.cache or self.partial / STAGES / "cache"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def scratch(self, name: str) -> Path:
        """A folder for a stage, kept until the run is done."""
        folder = self.partial / STAGES / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
