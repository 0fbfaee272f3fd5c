"""The core's fixtures and checkpoints for tests, here as well."""

import importlib.util
from pathlib import Path

CORE = Path(__file__).parents[3] / "tests" / "conftest.py"
spec = importlib.util.spec_from_file_location("core_conftest", CORE)
assert spec is not None
assert spec.loader is not None
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)

minilm, cli, refused = core.minilm, core.cli, core.refused
