"""How a run goes, on one page:

    open the source ─► model stages (each a checkpoint) ─► route tensors ─► prepare ─► code and check each ─► publish

The tensors' part is in tensor_stage.py. The folder gets its name only when every tensor of the source is accounted
for and every file is on the disk.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress.components import Data, Job, Progress
from corecompress.plugins import Registry
from corecompress.recipe import Recipe
from corecompress.routing import Stage, resolve, route
from corecompress.run import Run, Settings
from corecompress.tensor_stage import code_tensors
from corecompress.writer import workplace


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
    checkpoint = open_checkpoint(source)
    if resolved.rules and not resolved.model_stages:
        route(resolved, checkpoint.tensors, registry)  # mistakes in patterns show before any work
    with workplace(target, force=settings.force, resume=settings.resume, source=checkpoint.folder) as partial:
        run = Run(resolved, registry, data, settings, progress, partial)
        if data is not None:
            data.prepare(checkpoint)
        for number, stage in enumerate(resolved.model_stages):
            checkpoint = _make_model(run, number, stage, checkpoint)
        if resolved.rules:
            code_tensors(run, checkpoint)
        else:
            shutil.copytree(checkpoint.folder, partial, dirs_exist_ok=True)
        shutil.rmtree(partial / "stages", ignore_errors=True)


def _make_model(run: Run, number: int, stage: Stage, checkpoint: Checkpoint) -> Checkpoint:
    """One model stage: checkpoint in, checkpoint out, in a folder of the run's."""
    shutil.rmtree(run.scratch(str(number)))  # what a killed run left half-written
    out, scratch = run.scratch(str(number)), run.scratch(f"{number}-scratch")
    settings = run.settings
    job = Job(
        checkpoint, checkpoint.tensors, run.data, settings.seed, settings.threads, scratch, run.progress, run.cache
    )
    stage.component.compress(job, out)
    return replace(open_checkpoint(out), name=checkpoint.name, revision=checkpoint.revision)
