"""Where it is computed, and in what."""

from __future__ import annotations

import os
from typing import Any

import torch

from corecompress.errors import CorecompressError
from corecompress.training import processes


def make_accelerator(device: str | None, precision: str, passes: int) -> Any:
    """accelerate as its own launcher, torchrun or nobody configured it; `passes`: forward passes of one update.

    Raises CorecompressError for a device that isn't there.
    """
    from accelerate.utils import DistributedDataParallelKwargs

    check_device(device)
    if device is not None and device.startswith("cuda:"):
        torch.cuda.set_device(torch.device(device))
    on_cpu = device == "cpu" or not torch.cuda.is_available()
    return processes.make_accelerator(
        cpu=device == "cpu",
        mixed_precision=_precision(precision, on_cpu),
        gradient_accumulation_steps=passes,
        # A pooler that no objective looks at gets no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def check_device(device: str | None) -> None:
    """Raises CorecompressError for a device that isn't there."""
    if device is None or device == "cpu":
        return
    if not device.startswith("cuda"):
        raise CorecompressError(f"distill(device={device}): is no device; write cpu, cuda or cuda:1")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(device[5:]) if device[5:].isdigit() else 0
    if number >= count:
        there = f"only {count} of them" if count else "none that torch can use"
        raise CorecompressError(f"distill(device={device}): there is no such GPU ({there}); leave it out, or write cpu")


def _precision(asked: str, on_cpu: bool) -> str | None:
    """accelerate's name of what is computed in; None where its launcher has said it already."""
    if asked != "auto":
        return {"float32": "no", "bfloat16": "bf16"}[asked]
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        return None
    if not on_cpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "no"
