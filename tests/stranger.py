"""An environment of its own into which plugins are installed as a stranger would: with pip, from a folder.

It sees what the environment of the tests has (corecompress, torch, …), and leaves that as it is.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

SCRIPTS = {
    "corecompress": "from corecompress.cli import main; main()",
    "pytest": "import pytest; sys.exit(pytest.main())",
}


class Environment:
    """A folder with python, pip, pytest and corecompress in bin/."""

    def __init__(self, folder: Path):
        venv.create(folder, with_pip=False, symlinks=True)
        self.bin = folder / "bin"
        packages = next(folder.glob("lib/python*/site-packages"))
        outer = "".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
        (packages / "outer.pth").write_text(outer)
        for name, code in SCRIPTS.items():
            self._script(name, f'exec "{self.bin}/python" -c "import sys; sys.argv[0] = \'{name}\'; {code}" "$@"')
        self._script("pip", f'exec "{sys.executable}" -m pip --quiet --python "{self.bin}/python" "$@"')

    def _script(self, name: str, line: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def run(self, *command: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment. `shell` lines go through `sh -c`."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        given = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", **variables}
        given.pop("PYTHONPATH", None)
        return subprocess.run([*map(str, command)], capture_output=True, text=True, env=given, cwd=cwd, check=False)

    def install(self, folder: Path) -> None:
        """`pip install FOLDER`, from a copy, so that building leaves nothing in the folder."""
        copy = self.bin.parent / "sources" / folder.name
        shutil.copytree(folder, copy)
        done = self.run("pip", "install", "--no-deps", copy)
        assert done.returncode == 0, done.stderr
