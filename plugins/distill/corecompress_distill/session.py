"""All that a distillation needs, made and checked before anything long begins."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from corecompress.components import Job
from corecompress.errors import CorecompressError
from corecompress.fitting import RECORD
from corecompress.hashing import hash_file
from corecompress.hf.load import load_model
from corecompress.measure.outputs import pooling_of
from corecompress.measure.task import Task, task_of
from corecompress.training.quiet import quiet
from corecompress_distill.axes import find_axes, proven
from corecompress_distill.devices import make_accelerator
from corecompress_distill.inputs import Feeder, Inputs
from corecompress_distill.model import Distillation
from corecompress_distill.objectives import Objectives, Scene, make_objectives
from corecompress_distill.objectives.relations import Relations
from corecompress_distill.options import Options
from corecompress_distill.output import check_layout
from corecompress_distill.outputs import Reader
from corecompress_distill.samples import Samples
from corecompress_distill.structure import find_stacks
from corecompress_distill.student import Calibration, first_output, make_student
from corecompress_distill.teacher import Cache, Teacher, open_cache
from corecompress_distill.training import Schedule, make_optimizer

LANGUAGE: tuple[Task, ...] = ("causal-lm", "masked-lm")
WATCHED, WATCHED_WINDOWS = 256, 16
"""Samples of the evaluation split that training looks at: sentences or images, windows of a language model."""
CALIBRATION = 16
"""Batches that a choice by importance looks at."""


@dataclass
class Session:
    """One run's parts. student: as it begins, untouched; cache: where the teacher's outputs are kept."""

    job: Job
    options: Options
    task: Task
    accelerator: Any
    teacher: Any
    student: Any
    feeder: Feeder
    samples: Samples
    watched: list[Inputs]
    schedule: Schedule
    objectives: Objectives = field(init=False)
    cache: Cache | None = None

    @property
    def sharded(self) -> bool:
        """Whether the models are spread over the processes (FSDP, DeepSpeed)."""
        return str(self.accelerator.distributed_type).rpartition(".")[2] in ("FSDP", "DEEPSPEED")

    def feed(self, start: int) -> Iterator[Inputs]:
        """This process's inputs from update `start` on."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        first = start * self.schedule.passes * world
        for number, batch in enumerate(self.samples.batches(first), first):
            if number % world == rank:
                yield self.feeder(batch, number)

    def build(self) -> tuple[Any, Any]:
        """(model, optimizer) at the beginning, wrapped for this kind of run."""
        device = self.accelerator.device
        if not self.sharded:
            self.teacher.to(device)
        student = copy.deepcopy(self.student)
        objectives = copy.deepcopy(self.objectives)
        relations = next((part for part in objectives.parts.values() if isinstance(part, Relations)), None)
        pooling, needs = pooling_of(self.job.source.folder), objectives.needs
        read_student = Reader(student, needs, pooling, relations.of_student if relations else None)
        read_teacher = Reader(self.teacher, needs, pooling, relations.of_teacher if relations else None)
        teacher = Teacher(read_teacher, objectives, self.cache)
        model = Distillation(student, teacher, objectives, read_student, self.sharded)
        model.train()
        for module in model.modules():  # the teacher answers without dropout, so the student does
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        self.teacher.eval()
        if keeps_embeddings(self.options, self.task):
            for module in student.modules():
                if isinstance(module, torch.nn.Embedding):
                    module.weight.requires_grad_(False)
        model, optimizer = self.accelerator.prepare(model, make_optimizer(model, self.schedule))
        return model, optimizer

    def open_cache(self) -> Cache | None:
        """The cache that the options ask for."""
        if self.options.teacher_cache <= 0:
            return None
        shards = [hash_file(shard.path) for shard in self.job.source.shards]
        rank, asked = self.accelerator.process_index, self.options.teacher_cache
        return open_cache(self.job.cache, asked, shards, self.objectives, self.task, rank, self.job.progress)


def open_session(job: Job, options: Options) -> Session:
    """Load the teacher, make the student, check that all goes together.

    Raises CorecompressError, before anything is trained, for whatever doesn't.
    """
    if job.data is None:
        raise CorecompressError("distill: needs --data SPEC to learn from, for example --data text:corpus.txt")
    torch.set_num_threads(min(job.jobs, torch.get_num_threads()))
    task = task_of(job.source.folder, job.source.config)
    batch = options.batch or (8 if task in LANGUAGE else 32)
    accelerator = make_accelerator(options.device, options.precision, options.accumulate)
    parts = options.accumulate * accelerator.num_processes
    if batch % parts:
        raise CorecompressError(
            f"distill(batch={batch}): can't be split into {options.accumulate} forward passes of "
            f"{accelerator.num_processes} processes; write a multiple of {parts}"
        )
    teacher = _load_teacher(job)
    samples = Samples(job.data, job.seed, batch // parts, _pad(teacher))
    feeder = Feeder(teacher, job.source.folder, task, job.seed)
    first = feeder(next(samples.batches()), 0)
    calibration = Calibration(lambda: _some(samples, feeder), lambda model, inputs: model(**inputs.model))
    job.progress.start("making the student", 0)
    student = make_student(teacher, job.source.folder, options, calibration, job.seed).float()
    check_layout(job.source, student)
    limit = WATCHED_WINDOWS if task in LANGUAGE else WATCHED
    watched = [feeder(one, number) for number, one in enumerate(samples.evaluation(limit))]
    if job.target_loss is not None and not watched:
        raise CorecompressError("--target-loss: the data have no evaluation split to measure it on")
    schedule = _schedule(job, options, samples, batch, task)
    session = Session(job, options, task, accelerator, teacher, student, feeder, samples, watched, schedule)
    scene = Scene(task, teacher, student, first.labels is not None, lambda: _interleaved(teacher, first))
    session.objectives = make_objectives(options.objectives, scene)
    session.cache = session.open_cache()
    return session


def keeps_embeddings(options: Options, task: Task) -> bool:
    """Whether the student's embedding tables stay the teacher's: they fit as they are, what they would learn from a
    small text does not help with another one, and AdamW is spared half of MiniLM's weights."""
    own = options.start == "cut" and options.hidden is None and options.student is None
    return options.embeddings == "keep" or (options.embeddings == "auto" and own and task == "sentence-encoder")


def _load_teacher(job: Job) -> Any:
    if (job.source.folder / RECORD).exists():
        name = job.source.folder.name
        raise CorecompressError(f"distill: {name} is what `corecompress fit` made; fit a smaller one, by its options")
    with quiet():
        try:
            teacher = load_model(job.source.folder, dtype=torch.float32)
        except CorecompressError:
            raise
        except Exception as problem:
            reason = " ".join(str(problem).split())[:200]
            raise CorecompressError(f"{job.source.folder}: does not load ({reason})") from None
    return teacher.eval().requires_grad_(False)


def _pad(teacher: Any) -> int:
    config = teacher.config.get_text_config()
    return getattr(config, "pad_token_id", None) or 0


def _some(samples: Samples, feeder: Feeder) -> Iterator[Inputs]:
    for number, batch in enumerate(itertools.islice(samples.batches(), CALIBRATION)):
        yield feeder(batch, number)


def _interleaved(teacher: Any, inputs: Inputs) -> bool:
    """Whether a fused projection of the teacher goes head by head: found by moving its heads about."""
    axes = find_axes(teacher, find_stacks(teacher))
    return proven(teacher, axes, {"heads"}, lambda model: first_output(model(**inputs.model))).interleaved


def _schedule(job: Job, options: Options, samples: Samples, batch: int, task: Task) -> Schedule:
    epochs = options.epochs or (20.0 if task == "sentence-encoder" else 3.0)
    steps = options.steps or max(1, math.ceil(epochs * samples.size[0] / batch))
    encoder = task in ("sentence-encoder", "masked-lm")
    return Schedule(
        steps=steps,
        passes=options.accumulate,
        learning_rate=options.learning_rate or (1e-3 if encoder else 3e-4),
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        clip=options.clip,
        every=options.evaluate_every or max(1, math.ceil(steps / 10)),
        patience=options.patience,
        target=job.target_loss,
    )
