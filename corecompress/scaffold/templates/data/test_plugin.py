"""What is particular to `$distribution`."""

import pytest

import corecompress
from corecompress import CorecompressError


def test_every_line_is_in_one_split(tmp_path):
    lines = [f"line number {n} of a small file" for n in range(300)]
    (tmp_path / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    data = corecompress.open_data(f"$distribution(batch=7):{tmp_path / 'lines.txt'}")
    found = []
    for split in ("calibration", "training", "evaluation"):
        for batch in data.batches(0, split):
            found += [bytes(row[row > 0].astype("u1")).decode() for row in batch["input_ids"]]
    assert sorted(found) == sorted(lines)


def test_a_missing_file_is_named():
    with pytest.raises(CorecompressError, match=r"not-there\.txt"):
        corecompress.open_data("$distribution:not-there.txt")
