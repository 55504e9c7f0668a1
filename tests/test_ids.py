"""No test's id depends on time, order or place: workers that collect apart agree on every one."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def collecting(place: Path, hash_seed: str) -> subprocess.Popen[str]:
    place.mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", ROOT / "tests",
         "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider"],
        cwd=place, env={**os.environ, "PYTHONHASHSEED": hash_seed, "TMPDIR": str(place)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ids(said: str) -> list[str]:
    return [line for line in said.splitlines() if "::" in line]


def test_two_collections_a_second_apart_give_the_same_ids_in_the_same_order(tmp_path):
    first = collecting(tmp_path / "first", "1")
    time.sleep(1.5)  # an archive's header has the time in seconds
    second = collecting(tmp_path / "second", "2")
    (one, _), (other, _) = first.communicate(), second.communicate()
    assert (first.returncode, second.returncode) == (0, 0), one[-2000:] + other[-2000:]
    assert len(ids(one)) > 1000
    assert ids(one) == ids(other)
    assert len(set(ids(one))) == len(ids(one))
    assert not [line for line in ids(one) if str(tmp_path) in line or " at 0x" in line]
