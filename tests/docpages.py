"""Follows a page of the documentation as a reader does: block by block, in one folder.

What a fenced block is for stands in its first line:

- ``sh`` is run, and must end with 0, or with the code in ``exit=``;
- ``text`` after it is what was printed, with ``...`` for what differs from run to run;
- ``python section=FILE`` takes the place of that section of FILE, by its line of dashes, or of
  all that is above the first;
- ``python file=FILE`` and ``toml file=FILE`` are the whole of FILE;
- ``python`` alone is run; the blocks of a page share their names;
- other languages are shown and not run: ``bash`` is what needs more than a test has, such as a GPU.
"""

import doctest
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(?P<info>.*)$")
SECTION = re.compile(r"^# --- .* -+$", re.MULTILINE)
LENIENT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block, and the line of its page on which it begins."""

    page: Path
    line: int
    language: str
    attributes: Mapping[str, str]
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return list(_blocks(page, page.read_text(encoding="utf-8").splitlines()))


def _blocks(page: Path, lines: Sequence[str]) -> Iterator[Block]:
    begun: int | None = None
    language, attributes = "", {}
    for number, line in enumerate(lines, start=1):
        fence = FENCE.match(line)
        if fence is None:
            continue
        if begun is None:
            language, *rest = fence["info"].split() or [""]
            attributes = dict(part.split("=", 1) for part in rest)
            begun = number
        else:
            text = "".join(f"{line}\n" for line in lines[begun : number - 1])
            yield Block(page, begun, language, attributes, text)
            begun = None
    assert begun is None, f"{page.name}:{begun} is never closed"


def commands(block: Block) -> list[str]:
    """The commands of a block, with those that go on over several lines joined."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    return [line.strip() for line in joined.splitlines() if line.strip()]


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """In this folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@dataclass
class Reader:
    """Someone who does what pages say, in ``folder``, with this environment."""

    folder: Path
    environment: Mapping[str, str]
    names: dict[str, Any] = field(default_factory=dict)

    def follow(self, page: Path) -> None:
        """Do everything that the page says."""
        found = blocks(page)
        for block, after in zip_longest(found, found[1:]):
            if block.language == "sh":
                printed = self.run(block)
                if after is not None and after.language == "text":
                    require_like(printed, after)
            elif "section" in block.attributes:
                self.replace_section(block)
            elif "file" in block.attributes:
                file = self.folder / block.attributes["file"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                with working_in(self.folder):
                    exec(compile(block.text, block.where, "exec"), self.names)

    def run(self, block: Block) -> str:
        """What the block's commands print; the folder that they end in is the next block's."""
        script = f'set -e\ntrap "pwd >&3" EXIT\n{block.text}'
        after = self.folder / ".folder-after"
        run = subprocess.run(
            ["bash", "-c", f"exec 3>{after}\n{script}"],
            cwd=self.folder, env=dict(self.environment), timeout=600, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.folder = Path(after.read_text().strip())
        after.unlink()
        expected = int(block.attributes.get("exit", 0))
        assert run.returncode == expected, (
            f"{block.where} ends with {run.returncode}:\n{run.stdout}"
        )
        return run.stdout

    def replace_section(self, block: Block) -> None:
        """Put a section in the place of the one with the same heading."""
        file = self.folder / block.attributes["section"]
        text = file.read_text(encoding="utf-8")
        heading = SECTION.match(block.text)
        start = text.find(heading[0]) if heading else 0
        assert start >= 0, f"{block.where}: {file.name} has no section {heading[0]!r}"
        following = SECTION.search(text, start + 1)
        rest = text[following.start() :] if following else ""
        between = ("\n\n\n" if heading else "\n\n") if rest else "\n"
        file.write_text(text[:start] + block.text.rstrip() + between + rest, encoding="utf-8")


def require_like(printed: str, shown: Block) -> None:
    """Require that what was printed is what the page shows."""
    checker = doctest.OutputChecker()
    if not checker.check_output(shown.text, printed, LENIENT):
        example = doctest.Example("", shown.text)
        raise AssertionError(
            f"{shown.where}:\n{checker.output_difference(example, printed, LENIENT)}"
        )
