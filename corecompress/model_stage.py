"""The first stages of a run: a checkpoint in, a smaller checkpoint out, each in a folder of the run's.

Finished stages are journaled in `stages/`, so that --resume does not run them again; a stage that was interrupted finds
its scratch folder as it left it. Under torchrun or accelerate launch every rank takes part in these stages: rank 0
leads (ranks.py), the others get the same paths and write nothing of their own accord.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from corecompress.checkpoint import Checkpoint, open_checkpoint
from corecompress.components import Job
from corecompress.errors import CorecompressError
from corecompress.journal import Journal
from corecompress.ranks import announce
from corecompress.routing import Resolved, Stage
from corecompress.run import Run
from corecompress.tensor_stage import describe_source, identity


def make_models(run: Run, checkpoint: Checkpoint) -> Checkpoint:
    """All model stages in order; the checkpoint that the last one wrote."""
    stages = run.resolved.model_stages
    if not stages:
        return checkpoint
    folder = run.scratch(".")
    known = identity(run, describe_source(checkpoint, run.progress), stages)
    journal = Journal.resume(folder, known) if run.settings.resume else Journal(folder, known)
    done = len(journal.entries)
    announce(folder, done)
    for number, stage in enumerate(stages):
        out = run.scratch(str(number))
        if number >= done:
            shutil.rmtree(out)  # what an interrupted run left half written
            checkpoint = _make(run, number, stage, checkpoint)
            journal.add({"stage": number})
        else:
            checkpoint = _opened(out, checkpoint)
    journal.close()
    return checkpoint


def take_part(run: Run, checkpoint: Checkpoint, done: int) -> None:
    """Another rank's share of the leader's `make_models`. done: stages that the leader found finished."""
    for number, stage in enumerate(run.resolved.model_stages):
        out = run.scratch(str(number))
        checkpoint = _opened(out, checkpoint) if number < done else _make(run, number, stage, checkpoint)


def _make(run: Run, number: int, stage: Stage, checkpoint: Checkpoint) -> Checkpoint:
    out, scratch = run.scratch(str(number)), run.scratch(f"{number}-scratch")
    stage.component.compress(job_of(run, checkpoint, scratch), out)
    return _opened(out, checkpoint)


def job_of(run: Run, checkpoint: Checkpoint, scratch: Path) -> Job:
    """What a model compressor may know."""
    settings = run.settings
    common = settings.seed, settings.threads, scratch, run.progress, run.cache
    mine = checkpoint.tensors
    return Job(checkpoint, mine, run.data, *common, target_loss=settings.target_loss, max_memory=settings.max_memory)


def check_target_loss(resolved: Resolved, target_loss: float | None) -> None:
    """Raises CorecompressError for a loss that no stage of the recipe would look at."""
    if target_loss is not None and not resolved.model_stages:
        raise CorecompressError(f"--target-loss: nothing in the recipe '{resolved.recipe}' is trained; leave it out")


def _opened(out: Path, source: Checkpoint) -> Checkpoint:
    return replace(open_checkpoint(out), name=source.name, revision=source.revision)
