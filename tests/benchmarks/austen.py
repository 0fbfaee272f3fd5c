"""Jane Austen's novels as one file, a sentence a line: what text VAEs are measured on here.

    python tests/benchmarks/austen.py FILE [LONGEST]

Takes Debian's package r-cran-janeaustenr (apt-get download, nothing is installed) and the package rdata from PyPI (pip
install rdata), splits the novels into sentences and keeps those of 4 to LONGEST (20) words, in the books' order.
"""

import gzip
import re
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

END = re.compile(r"""(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)(?<=[.!?])["”']?\s+(?=[A-Z"“])""")
"""Where a sentence ends and another begins."""


def main(out: str, longest: str = "20") -> None:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", "r-cran-janeaustenr"], cwd=scratch, check=True)
        (package,) = Path(scratch).glob("*.deb")
        subprocess.run(["dpkg", "-x", package, scratch], check=True)
        (index,) = Path(scratch).rglob("data/Rdata.rdx")
        books = _books(index)
    lines = [line for text in books for line in _sentences(text, int(longest))]
    Path(out).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{out}: {len(lines):,} sentences")


def _books(index: Path) -> list[str]:
    """The novels, by name: places in Rdata.rdb are listed in Rdata.rdx, each object compressed for itself."""
    import rdata

    places = rdata.conversion.convert(rdata.parser.parse_data(gzip.decompress(index.read_bytes())))["variables"]
    blob = index.with_suffix(".rdb").read_bytes()
    found = []
    for name in sorted(places):
        start, size = (int(number) for number in places[name])
        lines = rdata.conversion.convert(rdata.parser.parse_data(zlib.decompress(blob[start + 4 : start + size])))
        found.append("\n".join(str(line) for line in lines))
    return found


def _sentences(text: str, longest: int) -> list[str]:
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    sentences = (one for part in paragraphs for one in END.split(part))
    cleaned = (re.sub(r"[_\"“”]", "", one).strip() for one in sentences)
    return [one for one in cleaned if 4 <= len(one.split()) <= longest]


if __name__ == "__main__":
    main(*sys.argv[1:])
