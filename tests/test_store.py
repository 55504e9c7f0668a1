from __future__ import annotations

import gzip
import hashlib
import http.server
import importlib
import io
import os
import pkgutil
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import servers

from refimpl.cli.main import cli
from refimpl.data import DataSet
from refimpl.errors import DataError, UnknownNameError
from refimpl.fixtures import integrity, preparation
from refimpl.store import digests, downloads, sources

CONTENT = bytes(range(256)) * 4_000


@dataclass
class Site:
    """A server whose faults are set by the test."""

    files: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """Answers given before the file itself, by path; -1 stands for "cut short in the middle"."""

    ranges: bool = True
    etags: bool = True
    versions: dict[str, str] = field(default_factory=dict)
    wrong_ranges: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Each path that was asked for, and the range."""

    gate: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def __post_init__(self) -> None:
        self.gate.set()


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, site: Site, *rest: object) -> None:
        self.site = site
        super().__init__(*rest)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.site.asked.append((self.path, self.headers["Range"]))
        assert self.site.gate.wait(30)
        ahead = self.site.statuses.get(self.path, [])
        status = ahead.pop(0) if ahead else 200
        if status >= 400:
            self.send_error(status)
        elif self.path not in self.site.files:
            self.send_error(404)
        else:
            self.send_file(self.site.files[self.path], cut=status == -1)

    def send_file(self, content: bytes, cut: bool) -> None:
        tag = f'"{self.site.versions.get(self.path, "1")}"'
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if wanted and self.site.ranges and self.headers["If-Range"] in (None, tag):
            start = int(wanted[1])
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.site.wrong_ranges:
            start = start // 2
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.site.etags:
            self.send_header("ETag", tag)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, made)) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def one_file(
    site: Site, *paths: str, digest: str = sha256(CONTENT), name: str = "toy/a.bin"
) -> str:
    """A table with one data set of one file, to be had at any of these paths."""
    urls = [site.url + path for path in paths or ["/a.bin"]]
    return f'[toy]\nabout = "a toy"\n[toy.downloads."{name}"]\nurls = {urls}\ndigest = "{digest}"\n'


def made_from(site: Site, content: bytes, how: str, files: list[str]) -> str:
    site.files["/archive"] = content
    return (
        f'[toy]\nabout = "a toy"\nfiles = {files}\n{how}\n[toy.downloads."downloads/archive"]\n'
        f'urls = ["{site.url}/archive"]\ndigest = "{sha256(content)}"\n'
    )


def fetch(table: str, root: Path, attempts: int = 3) -> list[sources.Fetched]:
    return sources.fetch(root=root, table=sources.parse_table(table), attempts=attempts, pause=0)


def states(table: str, root: Path) -> dict[str, str]:
    return {s.file: s.state for s in sources.verify(root=root, table=sources.parse_table(table))}


def leavings(root: Path) -> set[str]:
    """The files under ``root``, the locks left out."""
    found = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    return {path.as_posix() for path in found if path.parts[0] != ".locks"}


def ranges(site: Site) -> list[str | None]:
    return [asked for _, asked in site.asked]


SOUND = {"toy/a.bin", "toy/a.bin.sha256"}


def test_a_file_is_downloaded_once_and_then_kept(site: Site, root: Path) -> None:
    site.files["/a.bin"] = CONTENT
    table = one_file(site)
    assert states(table, root) == {"toy/a.bin": "missing"}
    assert [done.action for done in fetch(table, root)] == ["downloaded"]
    assert (root / "toy/a.bin").read_bytes() == CONTENT
    assert states(table, root) == {"toy/a.bin": "ok"}
    assert [done.action for done in fetch(table, root)] == ["kept"]
    assert leavings(root) == SOUND
    assert len(site.asked) == 1


def test_a_download_cut_short_goes_on_where_it_stopped(site: Site, root: Path) -> None:
    site.files["/a.bin"], site.statuses["/a.bin"] = CONTENT, [-1]
    fetch(one_file(site), root)
    assert (root / "toy/a.bin").read_bytes() == CONTENT
    assert ranges(site) == [None, f"bytes={len(CONTENT) // 2}-"]
    assert leavings(root) == SOUND


def test_the_next_fetch_goes_on_where_the_last_one_gave_up(site: Site, root: Path) -> None:
    site.files["/a.bin"], site.statuses["/a.bin"] = CONTENT, [-1]
    with pytest.raises(DataError) as given_up:
        fetch(one_file(site), root, attempts=1)
    half = len(CONTENT) // 2
    assert f"a.bin: could not be downloaded from {site.url}/a.bin in 1 attempts" in str(
        given_up.value
    )
    assert f"the {half:,} bytes received are kept" in str(given_up.value)
    assert leavings(root) == {"toy/a.bin.part", "toy/a.bin.part.origin"}
    assert states(one_file(site), root) == {"toy/a.bin": "missing"}
    fetch(one_file(site), root, attempts=1)
    assert ranges(site) == [None, f"bytes={half}-"]
    assert (root / "toy/a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("etags", [True, False])
def test_a_server_that_ignores_ranges_is_asked_for_everything(
    site: Site, root: Path, etags: bool
) -> None:
    site.files["/a.bin"], site.statuses["/a.bin"] = CONTENT, [-1]
    site.ranges, site.etags = False, etags
    fetch(one_file(site), root)
    assert (root / "toy/a.bin").read_bytes() == CONTENT
    assert leavings(root) == SOUND


def test_a_file_that_changed_on_the_server_is_not_patched_together(site: Site, root: Path) -> None:
    old = b"old" + CONTENT
    site.files["/a.bin"], site.statuses["/a.bin"] = old, [-1]
    with pytest.raises(DataError):
        fetch(one_file(site), root, attempts=1)
    site.files["/a.bin"], site.versions["/a.bin"] = CONTENT, "2"
    fetch(one_file(site), root, attempts=1)
    assert (root / "toy/a.bin").read_bytes() == CONTENT


def test_a_part_of_another_address_is_not_continued(site: Site, root: Path) -> None:
    site.files |= {"/a.bin": b"other" + CONTENT, "/b.bin": CONTENT}
    site.statuses["/a.bin"], site.etags = [-1], False
    with pytest.raises(DataError):
        fetch(one_file(site), root, attempts=1)
    fetch(one_file(site, "/b.bin"), root, attempts=1)
    assert ranges(site) == [None, None]


def test_a_part_that_is_already_whole_needs_nothing_more(site: Site, root: Path) -> None:
    site.files["/a.bin"], site.statuses["/a.bin"] = CONTENT, [-1]
    with pytest.raises(DataError):
        fetch(one_file(site), root, attempts=1)
    (root / "toy/a.bin.part").write_bytes(CONTENT)
    fetch(one_file(site), root, attempts=1)
    assert leavings(root) == SOUND


@pytest.mark.parametrize("fault", ["longer than the file", "another range"])
def test_a_part_that_the_server_cannot_continue_is_dropped(
    site: Site, root: Path, fault: str
) -> None:
    site.files["/a.bin"], site.statuses["/a.bin"] = CONTENT, [-1]
    with pytest.raises(DataError):
        fetch(one_file(site), root, attempts=1)
    if fault == "another range":
        site.wrong_ranges = True
    else:
        (root / "toy/a.bin.part").write_bytes(CONTENT + b"more")
    fetch(one_file(site), root, attempts=2)
    assert ranges(site)[-1] is None
    assert leavings(root) == SOUND


def test_another_file_than_expected_is_deleted_and_never_used(site: Site, root: Path) -> None:
    site.files["/a.bin"] = b"something else"
    with pytest.raises(DataError) as refusal:
        fetch(one_file(site), root)
    expected, found = sha256(CONTENT), sha256(b"something else").removeprefix("sha256:")
    for part in ("toy/a.bin", f"{site.url}/a.bin", "SHA256", expected, found, "Deleted"):
        assert part in str(refusal.value)
    assert leavings(root) == set()
    site.files["/a.bin"] = CONTENT
    fetch(one_file(site), root)
    assert ranges(site) == [None, None], "the next try starts from the beginning"


def test_bytes_damaged_on_the_way_do_not_survive_in_the_part(site: Site, root: Path) -> None:
    site.files["/a.bin"], site.statuses["/a.bin"] = CONTENT, [-1]
    with pytest.raises(DataError):
        fetch(one_file(site), root, attempts=1)
    part = root / "toy/a.bin.part"
    part.write_bytes(b"?" + part.read_bytes()[1:])
    with pytest.raises(DataError, match="does not match"):
        fetch(one_file(site), root)
    assert leavings(root) == set()
    fetch(one_file(site), root)
    assert (root / "toy/a.bin").read_bytes() == CONTENT


def test_a_damaged_file_is_reported_and_fetched_again(site: Site, root: Path) -> None:
    site.files["/a.bin"] = CONTENT
    fetch(one_file(site), root)
    (root / "toy/a.bin").write_bytes(b"damaged")
    (status,) = sources.verify(root=root, table=sources.parse_table(one_file(site)))
    assert status.state == "damaged"
    assert str(status) == (
        f"{root / 'toy/a.bin'}: damaged; expected sha256 {sha256(CONTENT)[7:]}, "
        f"found {sha256(b'damaged')[7:]}"
    )
    fetch(one_file(site), root)
    assert (root / "toy/a.bin").read_bytes() == CONTENT


def test_a_file_without_any_digest_is_not_taken_for_sound(site: Site, root: Path) -> None:
    site.files["/a.bin"] = CONTENT
    (root / "toy").mkdir(parents=True)
    (root / "toy/a.bin").write_bytes(b"whatever")
    assert states(one_file(site), root) == {"toy/a.bin": "unknown"}
    fetch(one_file(site), root)
    assert (root / "toy/a.bin").read_bytes() == CONTENT


def test_a_data_set_that_cannot_be_fetched_does_not_keep_the_others_from_it(
    site: Site, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files["/b.bin"] = CONTENT
    gone = one_file(site, "/gone.bin")
    table = gone + one_file(site, "/b.bin", name="other/b.bin").replace("toy", "other")
    monkeypatch.setattr(sources, "entries", lambda: sources.parse_table(table))
    monkeypatch.setenv("REFIMPL_DATA", str(root))
    root.mkdir()
    ran = CliRunner().invoke(cli, ["data", "fetch"], standalone_mode=False)
    assert ran.return_value == 1
    assert ran.stdout == f"downloaded {root}/other/b.bin\n"
    assert (
        f"refimpl: a.bin: could not be downloaded; {site.url}/gone.bin answered HTTP 404 Not Found"
        in ran.stderr
    )
    assert (root / "other/b.bin").read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_asked_for_once(site: Site, root: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{site.url}/a.bin answered HTTP 404 Not Found")):
        fetch(one_file(site), root)
    assert len(site.asked) == 1
    assert leavings(root) == set()


def test_a_folder_that_is_not_there_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFIMPL_DATA", "/no/such/folder")
    with pytest.raises(DataError, match="/no/such/folder, which is not a folder"):
        CliRunner().invoke(cli, ["data", "fetch"], standalone_mode=False, catch_exceptions=False)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionError(OSError("Connection aborted.", BrokenPipeError())), "BrokenPipeError"),
        (ConnectionError(OSError("read timed out")), "read timed out"),
    ],
)
def test_what_went_wrong_is_never_empty(error: Exception, said: str) -> None:
    assert downloads._innermost(error) == said


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("127.0.0.1:9", r"Failed to establish a new connection: \[Errno \d+\] Connection refused"),
        ("nowhere.invalid", r"Failed to (resolve|establish) [^<>]+"),
    ],
)
def test_where_no_server_answers_the_reason_is_one_phrase(
    site: Site, root: Path, host: str, reason: str
) -> None:
    site.url = f"http://{host}"
    with pytest.raises(DataError, match=rf"/a.bin in 1 attempts, the last one: {reason}$"):
        fetch(one_file(site), root, attempts=1)


def test_a_server_in_trouble_is_asked_again_but_not_for_ever(site: Site, root: Path) -> None:
    site.files["/a.bin"], site.statuses["/a.bin"] = CONTENT, [500, 503, 500, 429]
    with pytest.raises(DataError, match=r"in 3 attempts, the last one: HTTP 500"):
        fetch(one_file(site), root)
    assert leavings(root) == set()
    fetch(one_file(site), root)
    assert len(site.asked) == 5


def test_a_server_that_is_not_there_is_named(root: Path) -> None:
    nowhere = Site(url="http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"a\.bin: could not be downloaded from http://127"):
        fetch(one_file(nowhere), root)


def test_the_next_address_is_tried_where_one_fails(site: Site, root: Path) -> None:
    site.files |= {"/wrong": b"wrong", "/a.bin": CONTENT}
    fetch(one_file(site, "/gone", "/wrong", "/a.bin"), root)
    assert (root / "toy/a.bin").read_bytes() == CONTENT
    with pytest.raises(DataError, match=r"404.*; toy/a\.bin: .*another file"):
        fetch(one_file(site, "/gone", "/wrong"), root / "again")


def test_a_folder_that_cannot_be_written_to_is_named(site: Site, root: Path) -> None:
    root.write_text("a file where a folder should be")
    with pytest.raises(DataError, match=f"toy: {root} cannot be written to"):
        fetch(one_file(site), root)


FETCHER = """
import sys
from pathlib import Path
from refimpl.store import sources
import pooch, requests, filelock
print("ready", flush=True)
done = sources.fetch(root=Path(sys.argv[1]), table=sources.parse_table(sys.stdin.read()), pause=0)
print(done[0].action, done[0].path.stat().st_size)
"""


def test_two_processes_at_once_download_once(site: Site, root: Path) -> None:
    site.files["/a.bin"] = CONTENT
    site.gate.clear()
    command = [sys.executable, "-c", FETCHER, os.fspath(root)]
    pipe = subprocess.PIPE
    fetchers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    try:
        for fetcher in fetchers:
            assert fetcher.stdin is not None
            assert fetcher.stdout is not None
            assert fetcher.stdout.readline() == "ready\n"
            fetcher.stdin.write(one_file(site))
            fetcher.stdin.close()
            fetcher.stdin = None
        while not site.asked:
            time.sleep(0.01)
        time.sleep(0.3)  # for the other one to come as far, if nothing held it back
        site.gate.set()
        outcomes = {fetcher.communicate(timeout=30)[0] for fetcher in fetchers}
    finally:
        site.gate.set()
        for fetcher in fetchers:
            fetcher.kill()
            fetcher.wait()
    assert [fetcher.returncode for fetcher in fetchers] == [0, 0]
    assert outcomes == {f"downloaded {len(CONTENT)}\n", f"kept {len(CONTENT)}\n"}
    assert len(site.asked) == 1
    assert leavings(root) == SOUND


def tarred(*members: tuple[str, bytes], link: tuple[str, str] | None = None) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as out:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link[0])
            info.type, info.linkname = tarfile.SYMTYPE, link[1]
            out.addfile(info)
    return packed.getvalue()


UNPACKED = 'unpack = "toy"'


def test_an_archive_is_unpacked_and_its_files_are_verified(site: Site, root: Path) -> None:
    content = tarred(("in/a.txt", b"a"), ("in/b.txt", b"b"), ("in/readme", b"not listed"))
    table = made_from(site, content, UNPACKED, ["toy/in/a.txt", "toy/in/b.txt"])
    assert [done.action for done in fetch(table, root)] == ["made", "made"]
    assert states(table, root) == {"toy/in/a.txt": "ok", "toy/in/b.txt": "ok"}
    assert (root / "toy/in/b.txt").read_bytes() == b"b"
    (root / "toy/in/b.txt").write_bytes(b"c")
    (root / "toy/in/a.txt").unlink()
    assert states(table, root) == {"toy/in/a.txt": "missing", "toy/in/b.txt": "damaged"}
    fetch(table, root)
    assert states(table, root) == {"toy/in/a.txt": "ok", "toy/in/b.txt": "ok"}
    assert leavings(root) == {
        "toy/in/a.txt", "toy/in/a.txt.sha256", "toy/in/b.txt", "toy/in/b.txt.sha256",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tarred(("a", b"a"), ("../../escaped", b"bad")), "leaves the folder"),
        (tarred(("a", b"a"), ("/escaped", b"bad")), "an absolute name"),
        (tarred(("a", b"a"), link=("b", "../../escaped")), "a link to"),
        (tarred(("other", b"other")), "held nothing to make toy/a from"),
        (b"no archive", "damaged"),
    ],
    ids=["climbs-out", "absolute-name", "link-out", "other-file", "no-archive"],
)
def test_a_hostile_or_useless_archive_leaves_nothing(
    site: Site, root: Path, content: bytes, reason: str
) -> None:
    table = made_from(site, content, UNPACKED, ["toy/a"])
    with pytest.raises(DataError, match=reason):
        fetch(table, root)
    assert leavings(root) == set()
    assert not list(root.parent.rglob("escaped"))
    assert states(table, root) == {"toy/a": "missing"}


REVIEWS = [
    (f"aclImdb/train/{opinion}/{number}_7.txt", f"{opinion}\u2028 {number}\n<br />é".encode())
    for opinion in ("pos", "neg")
    for number in range(10)
]
UNWANTED = [("aclImdb/test/pos/0_9.txt", b"test"), ("aclImdb/train/unsup/0_0.txt", b"unlabelled")]
IMDB_FILES = ["imdb/train.tsv.gz", "imdb/test.tsv.gz"]
IMDB = 'prepare = "refimpl.fixtures.preparation:imdb"'


@pytest.fixture
def few_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "REVIEWS_PER_OPINION", 10)
    monkeypatch.setattr(preparation, "TRAIN_REVIEWS", 16)


def lines(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n")


@pytest.mark.usefixtures("few_reviews")
def test_the_reviews_are_prepared_the_same_everywhere(site: Site, root: Path) -> None:
    table = made_from(site, tarred(*REVIEWS, *UNWANTED), IMDB, IMDB_FILES)
    fetch(table, root)
    train, test = (lines(root / name) for name in IMDB_FILES)
    assert (len(train), len(test)) == (16, 4)
    assert sorted(train + test) == sorted(
        f"{label}\t{opinion} {number} <br />é"
        for label, opinion in enumerate(("neg", "pos"))
        for number in range(10)
    )
    assert [line[0] for line in train] == list("0001101101010010"), "the draw is fixed"
    again = made_from(site, tarred(*UNWANTED, *reversed(REVIEWS)), IMDB, IMDB_FILES)
    fetch(again, root / "again")
    for name in IMDB_FILES:
        assert (root / "again" / name).read_bytes() == (root / name).read_bytes()


@pytest.mark.usefixtures("few_reviews")
def test_an_own_preparation_is_sound_until_it_is_damaged(site: Site, root: Path) -> None:
    table = made_from(site, tarred(*REVIEWS), IMDB, IMDB_FILES)
    fetch(table, root)
    path, name = root / IMDB_FILES[0], IMDB_FILES[0]
    status = sources.verify(root=root, table=sources.parse_table(table))[0]
    assert status.state == "ok"
    assert status.found != status.expected[0], "it is not the listed file, but its own preparation"
    content = path.read_bytes()
    assert integrity.require_sound(root, name) == digests.of_bytes(content)
    path.write_bytes(content + b"\0")
    status = sources.verify(root=root, table=sources.parse_table(table))[0]
    assert (status.state, len(status.expected)) == ("damaged", 2)
    with pytest.raises(DataError, match=f"damaged.*{digests.of_bytes(content)}"):
        integrity.require_sound(root, name)


@pytest.mark.usefixtures("few_reviews")
def test_an_archive_with_too_few_reviews_is_refused(site: Site, root: Path) -> None:
    table = made_from(site, tarred(*REVIEWS[:-1]), IMDB, IMDB_FILES)
    with pytest.raises(DataError, match=r"expected 10 reviews under aclImdb/train/neg, found 9"):
        fetch(table, root)
    assert leavings(root) == set()


def test_images_that_are_not_the_documents_are_refused(site: Site, root: Path) -> None:
    content = tarred(("repo-master/data/cifar2/train/airplane/0.jpg", b"no image"))
    how = 'prepare = "refimpl.fixtures.preparation:cifar2"'
    table = made_from(site, content, how, ["cifar2.tar.gz"])
    with pytest.raises(DataError, match=rf"1 images.*expected sha256 {preparation.IMAGES_DIGEST}"):
        fetch(table, root)
    assert leavings(root) == set()


def test_zipped_files_are_known_by_their_content(
    site: Site, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "registry", lambda: {"toy/a.gz": sha256(CONTENT)[7:]})
    packed = gzip.compress(CONTENT, 1, mtime=1)
    site.files["/a.bin"] = packed
    table = one_file(site, digest=sha256(packed), name="toy/a.gz")
    table = table.replace("about", "zipped = true\nabout")
    (root / "toy").mkdir(parents=True)
    (root / "toy/a.gz").write_bytes(gzip.compress(CONTENT, 9, mtime=2))
    assert states(table, root) == {"toy/a.gz": "ok"}
    (root / "toy/a.gz").write_bytes(packed[:-100])
    (status,) = sources.verify(root=root, table=sources.parse_table(table))
    assert status.state == "damaged"
    assert "found no readable file" in str(status)
    fetch(table, root)
    assert leavings(root) == {"toy/a.gz"}


def test_what_passes_its_published_digest_but_is_not_listed_is_deleted(
    site: Site, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "registry", lambda: {"toy/a.bin": "0" * 64})
    site.files["/a.bin"] = CONTENT
    with pytest.raises(DataError, match=f"expected sha256 {'0' * 64}, found .* has been deleted"):
        fetch(one_file(site), root)
    assert leavings(root) == set()


def test_the_progress_bar_is_told_what_has_arrived(site: Site, root: Path) -> None:
    from rich.console import Console
    from rich.progress import Progress

    site.files["/a.bin"], site.statuses["/a.bin"] = CONTENT, [-1]
    progress = Progress(console=Console(file=io.StringIO()))
    table = sources.parse_table(one_file(site))
    sources.fetch(["toy"], root=root, table=table, progress=progress, pause=0)
    (task,) = progress.tasks
    assert (task.description, task.completed, task.total) == ("a.bin", len(CONTENT), len(CONTENT))


def test_an_unknown_name_is_answered_with_the_known_ones(root: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"'mnits' to download; there are: mnist, cifar2, cifar10, imdb"
    ):
        sources.verify(["mnits"], root=root)


@pytest.mark.parametrize(
    "wrong",
    [
        '[a]\nabout = ""\n[a.downloads.f]\nurls = []\n',
        '[a]\nabout = ""\n[a.downloads]\n',
        '[a]\nabout = ""\n[a.downloads.f]\nurls = ["http://x"]\n',
        '[a]\nabout = ""\n[a.downloads.f]\nurls = ["http://x"]\ndigest = "md5:0"\n',
        '[a]\nabout = ""\n[a.downloads.f]\nurls = ["http://x"]\ndijest = "md5:0"\n',
        '[a]\nabout = ""\nfiles = 3\n[a.downloads.f]\nurls = ["http://x"]\n',
        "a = 1\n",
        '[a]\nabout = ""\nunpack = "x"\n[a.downloads]\nf = {urls = []}\ng = {urls = []}\n',
    ],
)
def test_a_table_that_would_leave_something_unchecked_is_refused(wrong: str) -> None:
    with pytest.raises(DataError, match=r"sources\.toml: a: "):
        sources.parse_table(wrong)


def test_the_real_table_agrees_with_the_listed_digests_and_the_data_sets() -> None:
    entries = sources.entries()
    listed = integrity.registry()
    by_name = {name: entry for entry in entries.values() for name in (entry.name, *entry.aliases)}
    assert set(entries) == {"mnist", "cifar2", "cifar10", "imdb", "titanic", "covid"}
    assert set(listed) == {f for e in entries.values() if e.name != "cifar10" for f in e.files}
    for entry in entries.values():
        for download in entry.downloads:
            assert all(url.startswith("https://") for url in download.urls)
            if download.file in listed and not entry.zipped:
                assert download.digest == "sha256:" + listed[download.file]
    package = importlib.import_module("refimpl.fixtures")
    for module in pkgutil.iter_modules(package.__path__, "refimpl.fixtures."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, DataSet) and value.files:
                assert set(value.files) <= set(by_name[value.name].files)


OK_WITHOUT_LENGTH = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def downloaded(url: str, folder: Path, **limits: float) -> None:
    target = folder / "a.bin"
    part = folder / "a.bin.part"
    downloads.ResumingDownloader(part, attempts=2, pause=0, **limits)(url, target, None)  # type: ignore[arg-type]


def test_a_download_without_end_is_broken_off_at_its_limit(tmp_path: Path) -> None:
    with (
        servers.serving(servers.without_end(OK_WITHOUT_LENGTH, bytes(1 << 16))) as url,
        pytest.raises(DataError, match=r"a\.bin: not .* at most 1,000,000 bytes were expected"),
    ):
        downloaded(url, tmp_path, largest=1_000_000)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_says_it_is_too_large_is_not_begun(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"
    with (
        servers.serving(servers.saying(head)) as url,
        pytest.raises(DataError, match=r"at most 1,000,000 bytes were .* it has 3,000,000 bytes"),
    ):
        downloaded(url, tmp_path, largest=1_000_000)


def test_a_slow_drip_is_broken_off(tmp_path: Path) -> None:
    began = time.monotonic()
    with (
        servers.serving(servers.without_end(OK_WITHOUT_LENGTH, b"x", 0.05)) as url,
        pytest.raises(DataError, match=r"a\.bin: .* 2 attempts, .* bytes in 1 s are too few"),
    ):
        downloaded(url, tmp_path, window=0.5)
    assert time.monotonic() - began < 10


def test_a_download_has_a_total_time(tmp_path: Path) -> None:
    with (
        servers.serving(servers.without_end(OK_WITHOUT_LENGTH, bytes(600), 0.05)) as url,
        pytest.raises(DataError, match=r"it takes longer than 0\.5 s"),
    ):
        downloaded(url, tmp_path, seconds=0.5)


def test_what_a_server_says_reaches_the_terminal_as_plain_text(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 404 \x1b[2J\x1b]0;gone\x07 \xe2\x80\xae\r\nContent-Length: 0\r\n\r\n"
    with servers.serving(servers.saying(answer)) as url, pytest.raises(DataError) as error:
        downloaded(url, tmp_path)
    assert str(error.value).isprintable()
    assert r"HTTP 404 \x1b[2J" in str(error.value)
