"""The Debian Administrator's Handbook as plain text: what the project's language figures are measured on.

    python tests/benchmarks/handbook.py handbook.txt

Takes Debian's package debian-handbook (apt-get download, nothing is installed), strips tags from its English paragraphs
and keeps those of more than 80 characters, one blank line between. Its licence is the GPL or CC BY-SA 3.0.
"""

import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PARAGRAPH = re.compile(r'<(?:div class="para"|p)[^>]*>(.*?)</(?:div|p)>', re.S)


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", "debian-handbook"], cwd=scratch, check=True)
        package = next(Path(scratch).glob("*.deb"))
        subprocess.run(["dpkg", "-x", package, scratch], check=True)
        pages = sorted(Path(scratch).rglob("html/en-US/*.html"))
        found = [_plain(m[1]) for page in pages for m in PARAGRAPH.finditer(page.read_text(encoding="utf-8"))]
    kept = [text for text in found if len(text) > 80]
    target.write_text("\n\n".join(kept) + "\n", encoding="utf-8")
    print(f"{target}: {len(kept)} paragraphs, {target.stat().st_size} bytes")


def _plain(markup: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", markup))).strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
