"""Whoever is stopped while it writes leaves the file that was there."""

import errno
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from refimpl.writing import WriteError, whole_file, write_lines, write_text


def test_what_is_written_is_there_when_the_block_ends_and_not_before(tmp_path):
    path = tmp_path / "new" / "file"
    with whole_file(path) as stream:
        stream.write(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_lines(path, ["before"])
    with suppress(RuntimeError), whole_file(path) as stream:
        stream.write(b"half of ")
        raise RuntimeError
    assert path.read_text() == "before\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as reader:
        read = reader.submit(pipe.read_bytes)
        write_text(pipe, "through")
        assert read.result(10) == b"through"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays_a_device(monkeypatch):
    # As root, a rename over it would succeed and leave a plain file in its place.
    monkeypatch.setattr(os, "replace", lambda *names: pytest.fail("renamed over a device"))
    write_text(Path(os.devnull), "nothing")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_the_file_that_a_link_names_is_replaced_and_the_link_stays(tmp_path):
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("before")
    link.symlink_to(file)
    write_text(link, "after")
    assert link.is_symlink()
    assert file.read_text() == "after"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_an_error_that_names_the_file():
    with pytest.raises(WriteError, match=r"cannot write /dev/full: No space left on device"):
        write_text(Path("/dev/full"), "text")


def test_a_disk_that_fills_up_leaves_the_old_file_and_no_stub(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("before")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match=re.escape(f"cannot write {path}: No space left")):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_about_another_file_is_not_put_on_this_one(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "file"):
        (tmp_path / "elsewhere").read_bytes()


def test_half_of_a_surrogate_pair_is_written_as_an_escape(tmp_path):
    write_text(tmp_path / "file", "a\udcffb")
    assert (tmp_path / "file").read_bytes() == b"a\\udcffb"
