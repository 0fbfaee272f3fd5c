"""distill: a checkpoint in, a smaller network out, trained to say what the original says.

teacher ─► student (a cut of it) ─► trial ─► training ─► checkpoint
                                      │         ▲ │
                                      plan      └─ checkpoints in job.scratch, --resume
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from corecompress.components import Job, ModelCompressor, Progress
from corecompress.errors import CorecompressError
from corecompress.report.units import human_bytes, human_seconds
from corecompress.training.checkpoints import Checkpoints, State
from corecompress_distill.options import Options
from corecompress_distill.output import write_report, write_student
from corecompress_distill.session import Session, open_session
from corecompress_distill.training import train
from corecompress_distill.trial import run_trial, student_state


class Distill(ModelCompressor):
    """A whole strategy: see the module."""

    Options: ClassVar[type[Any]] = Options

    def __init__(self, options: Options):
        if options.student is None and not options.cuts:
            raise CorecompressError("distill: no student: write layers=N, hidden=N, ffn=N, heads=N or student=FOLDER")
        self.options = options

    def plan(self, job: Job) -> Mapping[str, Any]:
        """Sizes, speed and cost, from a trial of two updates."""
        return run_trial(open_session(job, self.options), job.scratch / "trial")

    def compress(self, job: Job, out: Path) -> None:
        """Make the student, train it, write it. Raises CorecompressError for all that a user can cause, and
        KeyboardInterrupt when a checkpoint has been written after Ctrl-C."""
        session = open_session(job, self.options)
        accelerator, planned = session.accelerator, job.scratch / "plan.json"
        checkpoints = Checkpoints(job.scratch / "checkpoints", accelerator)
        last = checkpoints.last()
        plan = json.loads(planned.read_text()) if last else run_trial(session, job.scratch / "trial")
        job.progress.say(_told(plan))
        if last is None and accelerator.is_main_process:
            checkpoints.folder.mkdir(parents=True, exist_ok=True)
            planned.write_text(json.dumps(plan))
        model, optimizer = session.build()
        state = State() if last is None else checkpoints.load(last)
        feed, schedule = session.feed(state.step), session.schedule
        try:
            with interruptible(accelerator, job.progress):
                state = train(
                    accelerator, model, optimizer, feed, session.watched, schedule, state, checkpoints, job.progress
                )
        finally:
            if session.cache is not None:
                session.cache.flush()
        if state.stopped:
            job.progress.say(f"stopped at update {state.step} of {schedule.steps}: {state.stopped}")
        weights = student_state(accelerator, model)
        if accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            write_student(session.student, weights, job.source, out)
            write_report(out, job.source, state, _facts(session, plan))
        accelerator.wait_for_everyone()


def _told(plan: Mapping[str, Any]) -> str:
    return (
        f"student: {plan['student parameters']:,} of {plan['teacher parameters']:,} parameters, "
        f"{human_bytes(plan['student bytes'])}, its forward pass {plan['forward pass, times as fast']:.2f} times as "
        f"fast; {plan['updates']:,} updates on {plan['tokens']:,} tokens ({plan['epochs']:g} epochs), "
        f"about {human_seconds(plan['seconds'])}"
    )


def _facts(session: Session, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the card and the log say of the run."""
    options = session.options
    cuts = [f"{name} {getattr(options, name)}" for name in options.cuts]
    did = f"from {options.student}" if options.student else "cut to " + ", ".join(cuts)
    data = session.job.data.fingerprint() if session.job.data else None
    return {
        **plan,
        "did": did + (", begun at random" if options.start == "random" else ""),
        "objectives": " + ".join(
            f"{part.options.weight:g} · {name}" for name, part in session.objectives.parts.items()
        ),
        "seed": session.job.seed,
        "data": data,
        "processes": session.accelerator.num_processes,
        "precision": str(session.accelerator.mixed_precision),
        "learning rate": session.schedule.learning_rate,
    }


@contextmanager
def interruptible(accelerator: Any, progress: Progress) -> Iterator[None]:
    """Ctrl-C (or SIGTERM) lets the update under way end, so that a checkpoint can be written; a second one does not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handler(number: int, frame: Any) -> None:
        restore()
        accelerator.set_trigger()
        progress.note("interrupted: this update is finished first, then a checkpoint is written")

    for number in signals:
        signal.signal(number, handler)
    try:
        yield
    finally:
        restore()
