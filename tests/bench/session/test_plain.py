"""Texts from elsewhere are one line of printable characters, and plain data stays what it was."""

import pytest

from bench.session.plain import DEEPEST, MOST_PARTS, MOST_TEXT, NotPlainError, lines, plain, quoted, text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[31mred\x1b[0m and \x1b[2J\x1b[Hhome", "red and home"),
        ("\x1b]0;a title\x07after \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "after link"),
        ("\x1b]0;a title without an end", ""),
        ("\x9b31m8-bit", "31m8-bit"),
        ("two\nlines\r\nand\ta tab", "two lines and a tab"),
        ("over\b\b\b\bwritten\x00", "over written"),
        ("user\u202egnp.exe\u2066", "user gnp.exe"),
        ("a\u200bb\ufeff\u2028c\ud800", "a b c"),
        ("naïve µs × 3 – “fast” 批", "naïve µs × 3 – “fast” 批"),
        ("<img src=x onerror=alert(1)>", "‹img src=x onerror=alert(1)›"),
        (None, ""),
        (3, ""),
    ],
)
def test_a_text_is_one_printable_line(given, shown):
    assert text(given) == shown
    text(given).encode()


def test_a_long_text_is_cut():
    assert text("x" * 10**7) == "x" * (MOST_TEXT - 1) + "…"
    assert len(text("\x1b[31m" * 10**6 + "x")) <= MOST_TEXT
    assert text("abc", 3) == "abc"


def test_of_many_lines_the_last_are_kept():
    assert lines("a\nb\x1b[1m\nc\u202e", 2) == "b\nc"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("**verified by the authors**", '"verified by the authors", says its file'),
        ("<script>alert(1)</script>", '"script alert(1) /script", says its file'),
        ("a | b | [c](http://d) `e`", '"a b c (http://d) e", says its file'),
        ("", ""),
        ({"no": "text"}, ""),
    ],
)
def test_what_a_file_says_of_itself_is_a_quotation_without_markup(given, shown):
    assert quoted(given) == shown


def test_plain_data_stays_but_for_its_texts():
    data = {"ns": [1, 2.5, None, True], "a\x1b[1mb": {"c\n": "d\u202e"}}
    assert plain(data) == {"ns": [1, 2.5, None, True], "ab": {"c": "d"}}


def test_what_is_too_much_or_no_data_is_refused():
    deep = []
    for _ in range(DEEPEST + 1):
        deep = [deep]
    for value in (deep, [0] * MOST_PARTS, {"a": object()}):
        with pytest.raises(NotPlainError):
            plain(value)
