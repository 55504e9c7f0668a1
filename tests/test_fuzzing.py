"""Damaged files and hostile servers: each is refused, and named, or is as good as the sound one.

The damage is drawn from a seed. In CI a part of it is tried, in less than a minute;
``REFIMPL_LONG=1`` tries all: 400 results files, 200 baselines, 100 goldens, 100 checkpoints, 150
data files, 70 archives and 60 downloads. ``REFIMPL_SEED`` is another seed than 0.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import runs, servers

from refimpl.baselines import committed
from refimpl.checking import bisection, expectations, manifest, results
from refimpl.conformance.mutants import command, equivalents
from refimpl.conformance.mutants.hunting import Hunted
from refimpl.errors import DataError, RefimplError
from refimpl.fixtures import integrity, tables
from refimpl.fixtures.idx import format_idx, parse_idx
from refimpl.parity import golden
from refimpl.reading import ShapeError, plain_text
from refimpl.store import archives, digests, sources
from refimpl.store.downloads import ResumingDownloader
from refimpl.training.checkpoint import Checkpoint, load, save

LONG = bool(os.environ.get("REFIMPL_LONG"))
SEED = int(os.environ.get("REFIMPL_SEED", "0"))

Damage = Callable[[bytes, random.Random], bytes]


# --- damage --------------------------------------------------------------------------------------


def flip(content: bytes, draw: random.Random) -> bytes:
    made = bytearray(content)
    made[draw.randrange(len(made))] ^= 1 << draw.randrange(8)
    return bytes(made)


def cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content))]


def drop(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + content[start + draw.randint(1, 200) :]


def repeat(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + content[start : start + draw.randint(1, 200)] + content[start:]


def noise(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + draw.randbytes(draw.randint(1, 300)) + content[start:]


def zeros(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content))
    return content[:start] + bytes(len(content) - start)


def deep(content: bytes, draw: random.Random) -> bytes:
    start = content.find(b":", draw.randrange(len(content))) + 1
    return content[:start] + b"[" * 100_000 + content[start:]


def digit(content: bytes, draw: random.Random) -> bytes:
    start = content.find(b":", draw.randrange(len(content))) + 1
    return content[:start] + b"9" * 5_000 + content[start:]


def foreign(content: bytes, draw: random.Random) -> bytes:
    return draw.choice([b"", b"\xff\xfe\x00", b"null\n", b"[]\n", b"{}\n", b"true", b"\x00" * 99])


BYTES: tuple[Damage, ...] = (flip, flip, cut, drop, repeat, noise, zeros, foreign)
TEXT: tuple[Damage, ...] = (*BYTES, deep, digit)


def fuzzed(
    count: int, path: Path, damages: tuple[Damage, ...], read: Callable[[], Any]
) -> dict[str, list[str]]:
    """What comes of so many damaged versions of a file: each is refused by name, or is a fault."""
    sound, before = path.read_bytes(), repr(read())
    draw = random.Random(SEED)
    faults: dict[str, list[str]] = {"silent": [], "traceback": [], "without a name": []}
    for number in range(count if LONG else max(10, count // 8)):
        damage = damages[number % len(damages)]
        damaged = damage(sound, draw)
        if damaged == sound:
            continue
        path.write_bytes(damaged)
        try:
            found = repr(read())
        except RefimplError as error:
            if path.name not in str(error) or "\n" in str(error):
                faults["without a name"].append(f"{number} {damage.__name__}: {error}")
        except Exception as error:
            faults["traceback"].append(
                f"{number} {damage.__name__}: {type(error).__name__} {error}"
            )
        else:
            if found != before:
                faults["silent"].append(f"{number} {damage.__name__}")
    path.write_bytes(sound)
    return {kind: own for kind, own in faults.items() if own}


# --- files ---------------------------------------------------------------------------------------


def test_results_files(tmp_path):
    path = runs.write(
        tmp_path, "run", runs.passed(), runs.failed(), runs.skipped(), runs.trained(),
        runs.parted(), runs.erratum(),
    )  # fmt: skip

    def read():
        found = results.read(path)
        # Cut short, it is a run that died: its records are kept, and it is no pass.
        return found if found.complete else before

    before = results.read(path)
    assert fuzzed(400, path, TEXT, read) == {}


@pytest.fixture
def baseline(tmp_path):
    found = sorted((committed.files("refimpl.fixtures") / "baselines" / "stand-in").iterdir())
    return Path(shutil.copy(next(f for f in found if "loss" in f.name), tmp_path))


def test_baselines(baseline):
    def read():
        committed._read.cache_clear()
        return committed.read(baseline)

    assert fuzzed(200, baseline, TEXT, read) == {}


def test_goldens(tmp_path, monkeypatch):
    path = Path(shutil.copy(golden.folder() / "titanic-dnn.safetensors", tmp_path))

    def read():
        golden._read.cache_clear()
        tensors, made_with = golden._read(path, 0)
        return {name: value.tolist() for name, value in tensors.items()}, made_with

    assert fuzzed(100, path, BYTES, read) == {}


def test_checkpoints(tmp_path):
    path = tmp_path / "run.pt"
    save(Checkpoint(3, {"w": np.arange(12.0), "b": np.zeros(1)}, about={"seed": 0}), path)
    assert fuzzed(100, path, BYTES, lambda: load(path)) == {}


def test_manifests_and_expectations(tmp_path):
    path = Path(shutil.copy(manifest.path(), tmp_path))
    # It is no results file and has no digest: what is changed and still a manifest is one.
    faults = fuzzed(80, path, TEXT, lambda: manifest.read(path))
    assert faults.keys() <= {"silent"}
    path = tmp_path / "expected-failures.toml"
    path.write_text("[[expected-failure]]\nexample = 'a'\ncheck = 'b'\nreason = 'c'\n")

    def read():
        expectations.read.cache_clear()
        return expectations.read(path)

    assert fuzzed(80, path, TEXT, read).keys() <= {"silent"}


def test_findings_of_mutants_and_lists_of_equivalents(tmp_path):
    # They have no digest: what is changed and still of their shape is one of them.
    path, options = tmp_path / "mutants.jsonl", {"tier": "stand-in"}
    kept = command.Kept(path, options)
    for name in ("loss-doubled", "step-skipped"):
        kept.keep(Hunted("a", "script", name, "killed", "check", "1", "2", seconds=0.5))
    kept.end()
    assert fuzzed(80, path, TEXT, lambda: command.Kept(path, options).lines).keys() <= {"silent"}
    path = tmp_path / "equivalent.toml"
    path.write_text("[[equivalent]]\nexample = 'a'\nmutant = 'b'\nreason = 'c'\n")
    assert fuzzed(80, path, TEXT, lambda: equivalents.read(path, {"b"})).keys() <= {"silent"}


def test_the_table_of_downloads(tmp_path):
    path = tmp_path / sources.TABLE
    path.write_bytes((committed.files("refimpl.fixtures") / sources.TABLE).read_bytes())

    def read():
        try:
            text = plain_text(path)
        except ShapeError as error:
            raise DataError(f"{path}: {error}") from error
        return sources.parse_table(text)

    assert fuzzed(80, path, TEXT, read).keys() <= {"silent"}


@pytest.mark.parametrize(
    "content",
    [
        "equivalent = [1]",
        "equivalent = [[]]",
        "equivalent = {}",
        "a = 1",
        "[[equivalent]]\nexample=1",
    ],
)
def test_a_list_of_equivalents_of_another_shape_is_refused_by_name(tmp_path, content):
    path = tmp_path / "equivalent.toml"
    path.write_text(content)
    with pytest.raises(equivalents.EquivalentsError, match=re.escape(str(path))):
        equivalents.read(path, {"b"})
    path.write_text(content.replace("equivalent", "expected-failure"))
    expectations.read.cache_clear()
    with pytest.raises(expectations.ExpectationsError, match=re.escape(str(path))):
        expectations.read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in this file system")
@pytest.mark.parametrize(
    "read",
    [
        results.read, load, manifest.read, expectations.read,
        lambda path: equivalents.read(path, ()),
        lambda path: command.Kept(path, {}),
        lambda path: bisection.Memory(path),
    ],
    ids=["results", "checkpoint", "manifest", "expectations", "equivalents", "mutants", "answers"],
)  # fmt: skip
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path, read):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(RefimplError, match=r"pipe.*only plain files are read"):
        read(path)


# --- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["table", "idx", "gzip"])
def test_data_files(tmp_path, monkeypatch, kind):
    path = tmp_path / "data"
    values = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    if kind == "table":
        content = b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(50))
        parse = lambda c, p: tables.parse_table(c, p, ["a", "b"], 50)  # noqa: E731
    else:
        content = format_idx(values)
        parse = lambda c, p: parse_idx(c, p, values.shape)  # noqa: E731
    unzip = kind == "gzip"
    monkeypatch.setattr(integrity, "registry", lambda: {"data": digests.of_bytes(content)})
    path.write_bytes(gzip.compress(content, mtime=0) if unzip else content)
    read = lambda: integrity.read(tmp_path, "data", parse, unzip=unzip)  # noqa: E731
    assert fuzzed(50, path, BYTES, read) == {}
    path.with_name("data.sha256").write_text(f"{digests.of_bytes(b'changed')}  data\n")
    path.write_bytes(b"changed")
    with pytest.raises(DataError):
        read()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives(tmp_path, kind):
    path = tmp_path / f"archive.{kind}"
    files = {f"folder/{n}": bytes([n]) * 500 for n in range(5)}
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
            for name, content in files.items():
                out.writestr(zipfile.ZipInfo(name), content)
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as out:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                out.addfile(info, io.BytesIO(content))

    def read():
        folder = tmp_path / "new"
        shutil.rmtree(folder, ignore_errors=True)
        archives.unpack(path, folder)
        outside = {p.name for p in tmp_path.iterdir()} - {path.name, "new"}
        assert not outside, f"it wrote {outside}"
        return "unpacked"  # an archive has no digest of its own: what uses one knows its digest

    assert fuzzed(24, path, BYTES, read) == {}


# --- servers -------------------------------------------------------------------------------------


def hostile(draw: random.Random) -> servers.Talk:
    """A server that is wrong in one of many ways."""
    ok = b"HTTP/1.1 200 OK\r\n"
    length = b"Content-Length: %d\r\n\r\n"
    body = draw.randbytes(2_000)
    return draw.choice(
        [
            servers.saying(b""),
            servers.saying(draw.randbytes(300)),
            servers.saying(b"HTTP/1.1 200 \x1b[31mOK\r\n" + length % 5 + b"short"),
            servers.saying(ok + length % 9_999 + body),
            servers.saying(ok + length % (1 << 40)),
            servers.saying(ok + b"Content-Length: -5\r\n\r\n" + body),
            servers.saying(ok + b"Content-Length: \xb2\r\n\r\n" + body),
            servers.saying(ok + b"Content-Encoding: gzip\r\n" + length % len(body) + body),
            servers.saying(ok + b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\nx"),
            servers.saying(ok + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"),
            servers.saying(b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 7-9/9\r\n\r\nabc"),
            servers.saying(b"HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n"),
            servers.saying(b"HTTP/1.1 302 Go\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"),
            servers.saying(b"HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\n\r\n"),
            servers.saying(b"HTTP/1.1 %d \xe2\x80\xae\x1b[2J\r\n\r\n" % draw.randint(400, 599)),
            servers.saying(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 70_000 + b"\r\n\r\n"),
            servers.saying(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n"),
            servers.without_end(ok + b"\r\n", bytes(1 << 16)),
            servers.without_end(ok + b"\r\n", b"x", 0.02),
            servers.without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
        ]
    )


def test_downloads(tmp_path):
    draw = random.Random(SEED)
    faults = []
    for number in range(60 if LONG else 20):
        target = tmp_path / f"file-{number}.bin"
        fetch = ResumingDownloader(
            target.with_name(target.name + ".part"), attempts=2, pause=0, timeout=0.7,
            largest=1 << 20, window=0.5, seconds=3,
        )  # fmt: skip
        with servers.serving(hostile(draw)) as url:
            try:
                fetch(url, target, None)
            except DataError as error:
                if target.name not in str(error) or not str(error).isprintable():
                    faults.append(f"{number}: {error}")
            except Exception as error:
                faults.append(f"{number}: {type(error).__name__}: {error}")
            # Whoever called compares the digest of what did arrive.
    assert faults == []
