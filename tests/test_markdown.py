"""Tables in Markdown hold whatever text they are given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.markdown import table

ROWS = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(st.text(), min_size=width, max_size=width), min_size=1)
)


@given(ROWS)
def test_each_row_is_one_line_with_every_cell(rows):
    lines = table(rows).splitlines()
    assert len(lines) == len(rows) + 1
    for line in lines:
        assert line.replace("\\|", "").count("|") == len(rows[0]) + 1
        assert "<" not in line


def test_figures_stand_to_the_right():
    assert table([("what", "seconds"), ("a", "1.0")], figures_from=1) == (
        "| what | seconds |\n| --- | ---: |\n| a | 1.0 |\n"
    )


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("see http://x.org", "http:<!-- -->//x.org"),
        ("WWW.x.org", "WWW<!-- -->.x.org"),
        ("thanks @someone", "@<!-- -->someone"),
        ("a\u202eb\x1b[31mc", "a\\u202eb\\x1b[31mc"),
    ],
)
def test_a_cell_links_to_nothing_notifies_nobody_and_hides_nothing(text, inside):
    assert inside in table([("what",), (text,)])
