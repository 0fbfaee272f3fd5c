"""Two updates, a checkpoint, and saving, before the training: what it will cost, and that it won't die at its end."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from corecompress.errors import CorecompressError
from corecompress.training.checkpoints import Checkpoints, State
from corecompress.training.quiet import quiet
from corecompress_distill.inputs import Inputs
from corecompress_distill.output import stored_dtype, write_student
from corecompress_distill.session import Session
from corecompress_distill.training import evaluate, update

UPDATES, TIMINGS = 2, 3


def run_trial(session: Session, folder: Path) -> dict[str, Any]:
    """Figures of the run to come, by name. folder: for what the trial writes; it is removed again.

    Raises CorecompressError when something can't be computed, written, or loaded again.
    """
    try:
        return _trial(session, folder)
    finally:
        if session.accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)


def _trial(session: Session, folder: Path) -> dict[str, Any]:
    session.job.progress.start("trial of two updates", UPDATES, "updates")
    teacher, student = session.teacher, session.student
    counts = [sum(p.numel() for p in model.parameters()) for model in (teacher, student)]
    size = stored_dtype(session.job.source).itemsize
    shorter = faster(session)
    seconds = _seconds(session, folder)
    schedule, samples = session.schedule, session.samples
    per_epoch, tokens = samples.size
    share = schedule.steps * schedule.passes * samples.micro * session.accelerator.num_processes / per_epoch
    return {
        "teacher parameters": counts[0],
        "student parameters": counts[1],
        "teacher bytes": counts[0] * size,
        "student bytes": counts[1] * size,
        "forward pass, times as fast": round(shorter, 3),
        "samples an epoch": per_epoch,
        "epochs": round(share, 3),
        "updates": schedule.steps,
        "tokens": round(share * tokens),
        "seconds": round(seconds["token"] * share * tokens + seconds["look"] * schedule.steps / schedule.every, 1),
    }


def faster(session: Session) -> float:
    """Seconds of the teacher's forward pass over the student's, in turns, medians."""
    inputs = next(session.feed(0))
    sides = session.teacher.to("cpu"), session.student
    taken: list[list[float]] = [[], []]
    with torch.inference_mode():
        for n in range(TIMINGS + 1):
            for side, model in enumerate(sides):
                begun = time.perf_counter()
                model.eval()(**inputs.model)
                if n:  # the first one warms up
                    taken[side].append(time.perf_counter() - begun)
    return statistics.median(taken[0]) / statistics.median(taken[1])


def _seconds(session: Session, folder: Path) -> dict[str, float]:
    """Seconds of a trained token ("token") and of one look at the evaluation split with its checkpoint ("look")."""
    accelerator, feed = session.accelerator, session.feed(0)
    model, optimizer = session.build()
    taken: list[tuple[float, int]] = []
    for n in range(UPDATES):
        inputs: list[Inputs] = [next(feed).to(accelerator.device) for _ in range(session.schedule.passes)]
        begun = time.perf_counter()
        update(accelerator, model, optimizer, session.schedule, n, inputs)
        tokens = sum(one.tokens for one in inputs) * accelerator.num_processes
        taken.append((time.perf_counter() - begun, tokens))
        session.job.progress.advance(1)
    begun = time.perf_counter()
    if session.watched:
        evaluate(accelerator, model, session.watched[:1])
    look = (time.perf_counter() - begun) * len(session.watched)
    begun = time.perf_counter()
    Checkpoints(folder, accelerator).save(State(step=UPDATES))
    state = student_state(accelerator, model)
    if accelerator.is_main_process:
        _save_and_load(session, state, folder / "student")
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    return {"token": min(spent / max(tokens, 1) for spent, tokens in taken), "look": look + time.perf_counter() - begun}


def student_state(accelerator: Any, model: Any) -> dict[str, torch.Tensor]:
    """The student's weights, gathered from all processes (empty where this isn't the main one of a sharded run)."""
    whole = accelerator.get_state_dict(model)
    return {name.removeprefix("student."): value for name, value in whole.items() if name.startswith("student.")}


def _save_and_load(session: Session, state: dict[str, torch.Tensor], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_student(session.student, state, session.job.source, folder)
        with quiet():
            _, found = type(session.student).from_pretrained(folder, output_loading_info=True)
    except CorecompressError:
        raise
    except OSError:
        raise
    except Exception as problem:
        reason = " ".join(str(problem).split())[:200]
        raise CorecompressError(f"distill: the student can't be saved and loaded again ({reason})") from None
    if missing := sorted(found["missing_keys"]):
        raise CorecompressError(f"distill: the student comes back without '{missing[0]}'; nothing was trained")
