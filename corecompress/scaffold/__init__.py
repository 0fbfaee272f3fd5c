"""What `corecompress plugins new` writes: a distribution with one working component, its tests, licence and CI.

templates/common holds what every kind has, templates/KIND the rest (`.tmpl`, so that no tool takes them for code);
`$distribution`, `$package`, … are filled in.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from string import Template

from corecompress.components import Kind
from corecompress.errors import CorecompressError
from corecompress.plugins import registry

TEMPLATES = Path(__file__).parent / "templates"
SUMMARIES: dict[Kind, str] = {
    "compressor": "Group-wise round-to-nearest of model weights",
    "data": "Lines of a text file as bytes",
    "encoder": "Principal components of chunks of weights",
    "prior": "A logistic prior of latents",
}
DEPENDENCIES = {"prior": ("torch>=2.6,<3",)}
"""Of a kind, besides corecompress and numpy."""


def write_plugin(name: str, kind: Kind, out: Path) -> list[Path]:
    """Write the distribution `name` into the folder `out`; the files. Raises CorecompressError for a name that can't be
    used, and for a folder that holds anything."""
    check_name(name, kind)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CorecompressError(f"{out}: is there already; choose another -o")
    package = name.replace("-", "_")
    needs = ("corecompress>=0.1,<1", "numpy>=1.26", *DEPENDENCIES.get(kind, ()))
    values = {
        "distribution": name,
        "package": package,
        "summary": SUMMARIES[kind],
        "dependencies": ", ".join(f'"{need}"' for need in needs),
        "year": str(datetime.date.today().year),
    }
    places = {
        "common/pyproject.toml": "pyproject.toml",
        "common/LICENSE": "LICENSE",
        "common/gitignore": ".gitignore",
        "common/workflow.yml": ".github/workflows/tests.yml",
        "common/test_conformance.py": "tests/test_conformance.py",
        f"{kind}/README.md": "README.md",
        f"{kind}/hooks.py": f"{package}/__init__.py",
        f"{kind}/{kind}.py": f"{package}/{kind}.py",
        f"{kind}/test_plugin.py": f"tests/test_{package}.py",
    }
    written = []
    for template, place in places.items():
        path = out / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = Template((TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8")).substitute(values)
            path.write_text(text, encoding="utf-8")
        except OSError as problem:
            raise CorecompressError(f"{path}: can't be written ({problem.strerror}); choose another -o") from None
        written.append(path)
    return written


def check_name(name: str, kind: Kind) -> None:
    """Raises CorecompressError for what is no distribution's name, or is taken."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise CorecompressError(
            f"'{name}': a plugin's name has lower-case letters, digits and single hyphens: acme-half"
        )
    taken = [p.distribution for p in registry().plugins if name in (p.name, p.distribution)]
    if name in registry().names(kind) or taken:
        raise CorecompressError(f"'{name}': an installed plugin has that name; choose another")
