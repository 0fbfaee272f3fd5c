"""Work in another process, with the same plugins: `call("module:function", argument=…)`.

Arguments and the result go through JSON. Strings hash otherwise there, so that what depends on it shows.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

from corecompress.testing.kit import CheckFailed

MARK = "@@corecompress "
SECONDS = 1800
"""After that a process is given up."""


def call(function: str, **arguments: Any) -> Any:
    """What `function` returns there. Raises CheckFailed with the last line that it said when it didn't return."""
    done = start(function, **arguments)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    raise CheckFailed(f"in another process: {said[-1].strip()}")


def start(function: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run it there, whatever becomes of it."""
    from corecompress.plugins import environment

    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    given = {**os.environ, **environment(), "PYTHONHASHSEED": seed, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "corecompress.testing.fresh", function]
    text = json.dumps(arguments, default=str)
    return subprocess.run(command, input=text, capture_output=True, text=True, env=given, timeout=SECONDS, check=False)


def main() -> None:
    """The other process."""
    module, _, name = sys.argv[1].partition(":")
    arguments = json.loads(sys.stdin.read())
    result = getattr(importlib.import_module(module), name)(**arguments)
    print(MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
