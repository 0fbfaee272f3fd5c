"""How a run goes, on one page:

    open the source ─► model stages (each a checkpoint) ─► route tensors ─► prepare ─► code and check each ─► publish

The models' part is in model_stage.py, the tensors' in tensor_stage.py. The folder gets its name only when every tensor
of the source is accounted for and every file is on the disk. Of several processes (ranks.py) only the first does all
that; the others take part in the model stages.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress.components import Data, Progress
from corecompress.errors import UnfitData
from corecompress.model_stage import check_target_loss, make_models, take_part
from corecompress.plugins import Registry
from corecompress.ranks import await_end, await_leader, is_follower
from corecompress.recipe import Recipe
from corecompress.routing import Resolved, resolve, route
from corecompress.run import Run, Settings
from corecompress.tensor_stage import code_tensors
from corecompress.writer import STAGES, lock_of, partial_of, workplace


def compress(
    source: str,
    target: Path,
    recipe: Recipe,
    registry: Registry,
    data: Data | None,
    settings: Settings,
    progress: Progress,
) -> None:
    """Compress `source` into the folder `target`. Raises CorecompressError for all that a user can cause."""
    resolved = resolve(recipe, registry)
    check_target_loss(resolved, settings.target_loss)
    checkpoint = open_checkpoint(source)
    if resolved.rules and not resolved.model_stages:
        route(resolved, checkpoint.tensors, registry)  # mistakes in patterns show before any work
    if is_follower():
        done = await_leader(partial_of(target) / STAGES)
        data = _prepared(data, checkpoint, resolved, progress)
        take_part(Run(resolved, registry, data, settings, progress, partial_of(target)), checkpoint, done)
        return await_end(lock_of(target))
    with workplace(target, force=settings.force, resume=settings.resume, source=checkpoint.folder) as partial:
        data = _prepared(data, checkpoint, resolved, progress)
        run = Run(resolved, registry, data, settings, progress, partial)
        checkpoint = make_models(run, checkpoint)
        if resolved.rules:
            code_tensors(run, checkpoint)
        else:
            shutil.copytree(checkpoint.folder, partial, dirs_exist_ok=True)
        shutil.rmtree(partial / STAGES, ignore_errors=True)


def _prepared(data: Data | None, checkpoint: Checkpoint, resolved: Resolved, progress: Progress) -> Data | None:
    """The data, ready for that model; None, and a line that says so, where they can't be given to it and nothing is
    trained on them. Raises UnfitData where something is."""
    try:
        if data is not None:
            data.prepare(checkpoint)
        return data
    except UnfitData as problem:
        if resolved.model_stages:
            raise
        progress.note(f"{problem}. It is compressed without data")
        return None
