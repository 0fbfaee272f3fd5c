"""One process or several, on whatever this machine has."""

from __future__ import annotations

import os
from typing import Any

import torch


def make_accelerator(cpu: bool = False, **options: Any) -> Any:
    """accelerate.Accelerator(**options) as its own launcher, torchrun or nobody configured it; cpu: use no device that
    there is. An earlier one of this process doesn't matter."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier run in this process
    # Without being told so, accelerate takes several processes on processors for as many runs by themselves.
    return Accelerator(cpu=cpu or not torch.accelerator.is_available(), **options)
