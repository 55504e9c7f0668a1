from __future__ import annotations

import gzip
import io
import os
import re
import stat
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.errors import DataError
from refimpl.store.archives import Limits, read_members, unpack

Build = Callable[[Path, dict[str, bytes]], Path]


def tar(path: Path, members: dict[str, bytes], *infos: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as out:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
        for info in infos:
            out.addfile(info)
    return path


def plain_tar(path: Path, members: dict[str, bytes]) -> Path:
    return tar(path, members, mode="w")


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            info = zipfile.ZipInfo()
            info.filename = info.orig_filename = name  # the constructor would tidy it
            out.writestr(info, content)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.fixture(params=[tar, plain_tar, zipped], ids=["tar.gz", "tar", "zip"])
def build(request: pytest.FixtureRequest) -> Build:
    return request.param  # type: ignore[no-any-return]


def everything_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def refused(archive: Path, reason: str, limits: Limits | None = None) -> None:
    """The archive is refused for this reason, and nothing is left beside it."""
    before = everything_under(archive.parent)
    with pytest.raises(DataError, match=reason) as refusal:
        unpack(archive, archive.parent / "target", limits)
    assert str(archive) in str(refusal.value)
    assert everything_under(archive.parent) == before


def test_a_good_archive_is_unpacked_whole(build: Build, tmp_path: Path) -> None:
    members = {"top/a.txt": b"a", "./top//b/c.txt": b"c" * 3_000_000, "top/leer": b""}
    archive = build(tmp_path / "archive", members)
    assert unpack(archive, tmp_path / "deep/target") == ("top/a.txt", "top/b/c.txt", "top/leer")
    assert (tmp_path / "deep/target/top/b/c.txt").read_bytes() == b"c" * 3_000_000
    assert everything_under(tmp_path / "deep") == {
        "target", "target/top", "target/top/a.txt", "target/top/b", "target/top/b/c.txt",
        "target/top/leer",
    }  # fmt: skip


def test_folders_are_made_and_permissions_are_not_taken_over(tmp_path: Path) -> None:
    folder = special("empty/", tarfile.DIRTYPE)
    tool = special("tool", tarfile.REGTYPE)
    tool.mode = 0o6777
    unpack(tar(tmp_path / "archive", {}, folder, tool), tmp_path / "target")
    assert (tmp_path / "target/empty").is_dir()
    assert not (tmp_path / "target/tool").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside", "leaves the folder"),
        ("inside/../../outside", "leaves the folder"),
        ("inside/..", "leaves the folder"),
        ("/tmp/outside", "an absolute name"),
        ("//host/share", "an absolute name"),
        ("C:outside", "no portable name"),
        ("C:/outside", "no portable name"),
        ("..\\outside", "no portable name"),
        ("\\\\host\\share\\outside", "no portable name"),
        ("new\nline", "no portable name"),
        ("x" * 256, "no file system"),
        ("/".join(["deep"] * 300), "no file system"),
        (".", "no name"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(
    build: Build, tmp_path: Path, name: str, reason: str
) -> None:
    refused(build(tmp_path / "archive", {"good": b"good", name: b"bad"}), reason)


@pytest.mark.parametrize(
    ("kind", "target", "reason"),
    [
        (tarfile.SYMTYPE, "../../outside", "a link to '../../outside'"),
        (tarfile.SYMTYPE, "/etc/passwd", "a link to '/etc/passwd'"),
        (tarfile.SYMTYPE, "good", "a link to 'good'"),
        (tarfile.LNKTYPE, "../outside", "a link to '../outside'"),
        (tarfile.CHRTYPE, "", "neither a file nor a folder"),
        (tarfile.BLKTYPE, "", "neither a file nor a folder"),
        (tarfile.FIFOTYPE, "", "neither a file nor a folder"),
    ],
)
def test_what_is_no_plain_file_is_refused(
    tmp_path: Path, kind: bytes, target: str, reason: str
) -> None:
    refused(tar(tmp_path / "archive", {"good": b"good"}, special("odd", kind, target)), reason)


def test_writing_through_a_link_of_the_same_archive_is_refused(tmp_path: Path) -> None:
    link = special("way", tarfile.SYMTYPE, "..")
    first = tar(tmp_path / "archive", {}, link, special("way/outside", tarfile.REGTYPE))
    refused(first, re.escape("a link to '..'"))


@pytest.mark.parametrize(
    ("mode", "reason"), [(stat.S_IFLNK, "a link"), (stat.S_IFCHR, "neither a file nor a folder")]
)
def test_what_is_no_plain_file_is_refused_in_a_zip(tmp_path: Path, mode: int, reason: str) -> None:
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as out:
        info = zipfile.ZipInfo("odd")
        info.external_attr = (mode | 0o777) << 16
        out.writestr(info, "/etc/passwd")
    refused(archive, reason)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_than_deflate_is_refused_damaged_or_not(
    tmp_path: Path, method: int
) -> None:
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w", method) as out:
        out.writestr("odd", b"0123456789" * 100)
    refused(archive, "member 'odd' is or has a compression other than deflate")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:45] + bytes(20) + whole[65:])
    refused(archive, "member 'odd' is or has a compression other than deflate")


@pytest.mark.parametrize(
    "names",
    [("a", "./a"), ("Straße", "STRASSE"), ("é", "e\u0301"), ("a", "a/b"), ("a/b", "a")],
)
def test_two_members_of_one_name_are_refused(
    build: Build, tmp_path: Path, names: tuple[str, str]
) -> None:
    archive = build(tmp_path / "archive", dict.fromkeys(names, b""))
    refused(archive, "a name that is there twice")


def test_more_than_the_limits_is_refused(build: Build, tmp_path: Path) -> None:
    archive = build(tmp_path / "archive", {"a": b"0" * 600, "b": b"0" * 600})
    refused(archive, "more than 1,000 bytes", Limits(bytes=1_000))
    refused(archive, "more than 1 members", Limits(members=1))


def test_a_header_that_unpacks_to_gigabytes_is_refused_before_it_is_held_in_memory(
    tmp_path: Path,
) -> None:
    bomb = tarfile.TarInfo("x")
    bomb.pax_headers = {"comment": "x" * 8_000_000}
    archive = tar(tmp_path / "archive", {}, bomb)
    assert archive.stat().st_size < 100_000
    refused(archive, "a header of 8,000,0", Limits(members=10, bytes=1_000))


def test_a_truncated_or_altered_archive_leaves_nothing(build: Build, tmp_path: Path) -> None:
    archive = build(tmp_path / "archive", {"a": bytes(range(256)) * 400, "b": b"b" * 5_000})
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 3])
    refused(archive, "damaged")
    archive.write_bytes(b"no archive at all")
    refused(archive, "damaged, or not a tar")
    archive.write_bytes(b"")
    refused(archive, "damaged, or not a tar")


def test_a_zip_whose_content_is_not_what_its_checksum_says_leaves_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("first", b"1" * 100)
        out.writestr("second", b"secret")
    archive.write_bytes(archive.read_bytes().replace(b"secret", b"public"))
    refused(archive, "CRC")


def test_an_empty_archive_is_refused(build: Build, tmp_path: Path) -> None:
    refused(build(tmp_path / "archive", {}), "holds no file|damaged")


def test_a_folder_that_exists_is_left_alone(build: Build, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        unpack(build(tmp_path / "archive", {"mine": b"theirs"}), target)
    assert (target / "mine").read_text() == "mine"


NAMES = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            ["..", ".", "", "/", "\\", "C:", "C:\\", "~", "a", "A", "a/", "\0", "\udc80"]
        ),
    ),
    min_size=1,
    max_size=5,
).map("/".join)


@given(names=st.lists(NAMES, min_size=1, max_size=4), maker=st.sampled_from([plain_tar, zipped]))
@settings(max_examples=150, deadline=None)
def test_no_member_ever_lands_outside(names: list[str], maker: Build) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        outer = Path(scratch)
        folder = outer / "in" / "target"
        try:
            archive = maker(outer / "archive", dict.fromkeys(names, b"content"))
        except (UnicodeEncodeError, ValueError):
            return  # not every name can be put into an archive
        try:
            files = unpack(archive, folder)
        except DataError:
            assert everything_under(outer) <= {"archive", "in"}
        else:
            found = {path for path in everything_under(outer) if (outer / path).is_file()}
            assert found == {"archive", *(f"in/target/{file}" for file in files)}
            assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_reading_members_takes_the_wanted_files_only(build: Build, tmp_path: Path) -> None:
    archive = build(tmp_path / "archive", {"../a.txt": b"a", "b/7.txt": b"b", "b/c": b"c"})
    found = {match[1]: data for match, data in read_members(archive, re.compile(r"b/(\d)\.txt"))}
    assert found == {"7": b"b"}


def test_reading_members_keeps_the_limits_and_names_a_damaged_archive(tmp_path: Path) -> None:
    archive = tar(tmp_path / "archive", {"a": b"0" * 600, "b": b"0" * 600})
    everything = re.compile(".*")
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        list(read_members(archive, everything, Limits(bytes=1_000)))
    with pytest.raises(DataError, match="more than 1 members"):
        list(read_members(archive, everything, Limits(members=1)))
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match=f"{archive}: damaged"):
        list(read_members(archive, everything))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_would_fill_the_memory_is_refused_before_it_is_read(tmp_path, kind):
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, 300 << 20
    archive = tmp_path / "bomb.tar.gz"
    with gzip.open(archive, "wb") as stream:
        stream.write(info.tobuf())
        for _ in range(300):
            stream.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"bomb\.tar\.gz: .* a header of 314,572,800 bytes"):
        unpack(archive, tmp_path / "new")
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_pipe_in_place_of_an_archive_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(DataError, match=r"pipe\.tar: .* only plain files are read"):
        unpack(tmp_path / "pipe.tar", tmp_path / "new")
