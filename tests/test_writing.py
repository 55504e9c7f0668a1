"""Whoever is stopped while it writes leaves the file that was there."""

import stat
from contextlib import suppress

from refimpl.writing import whole_file, write_lines


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
