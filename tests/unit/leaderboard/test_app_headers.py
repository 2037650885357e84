"""What callers say of themselves, made safe."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.leaderboard.attribution import LONGEST_TITLE, app_of, categories_of, title_of


@pytest.mark.parametrize(
    ("referer", "app"),
    [
        (b"https://App.Example/path?q=1#x", "app.example"),
        (b"http://app.example:8080", "app.example"),
        (b"https://app.example.", "app.example"),
        (b"http://localhost:3000/", "localhost"),
        (b"https://xn--80ak6aa92e.com/", "xn--80ak6aa92e.com"),
        (b"https://Other:8080/", ""),
        (b"https://other.example/", "other.example"),
        (b"app.example", ""),
        (b"ftp://app.example/", ""),
        (b"javascript:alert(1)//https://app.example", ""),
        (b"https://user:secret@app.example/", ""),
        (b"https://app.example@evil.example/", ""),
        (b"https://app_.example/", ""),
        (b"https://-app.example/", ""),
        (b"https://app..example/", ""),
        ("https://аpp.example/".encode(), ""),
        (b"https://app.example\r\nx-evil: 1", ""),
        (b"https://app.example<script>", ""),
        (b"https://" + b"a" * 60 + b".example/", ""),
        (b"https://app.example/" + b"a" * 4_000, ""),
        (b"", ""),
    ],
)
def test_an_app_is_a_plain_host(referer: bytes, app: str) -> None:
    """Nothing but scheme and host of a URL is taken, and only in letters that look like nothing else."""
    assert app_of(referer) == app


@given(st.binary(max_size=80) | st.text(max_size=60).map(lambda text: b"https://" + text.encode()))
def test_any_bytes_are_a_host_or_nothing(referer: bytes) -> None:
    """Whatever comes, what is kept is short, in lower case, and of letters, digits, dots and hyphens."""
    assert re.fullmatch(r"([a-z0-9.-]{1,64})?", app_of(referer))


@pytest.mark.parametrize(
    ("header", "title"),
    [
        (b"My App", "My App"),
        ("  Bücherwurm   2 ".encode(), "Bücherwurm 2"),
        ("𝐎𝐩𝐞𝐧".encode(), "Open"),
        ("文本助手 AI".encode(), "文本助手 AI"),
        ("Привет".encode(), "Привет"),
        ("Оpen".encode(), ""),
        (b"<b>App</b>", ""),
        (b"App & Co", ""),
        ("App\u202egnp.exe".encode(), ""),
        ("A\u0000pp".encode(), ""),
        (b"A\x1b[31m", ""),
        ("Z\u0351\u036b\u0343a\u0315lgo".encode(), ""),
        (b"\xff\xfe", ""),
        (b"a" * 65, ""),
        (b"   ", ""),
    ],
)
def test_a_title_is_one_line_of_one_script(header: bytes, title: str) -> None:
    """Markup, control and format characters and mixed scripts make a title unfit; then there is none."""
    assert title_of(header) == title


@given(st.binary(max_size=100) | st.text(max_size=70).map(str.encode))
def test_any_bytes_are_a_safe_title_or_none(header: bytes) -> None:
    """What is kept can be shown anywhere: printable, short, without markup."""
    title = title_of(header)
    assert len(title) <= LONGEST_TITLE
    assert title.isprintable()
    assert not set('<>&"') & set(title)
    assert title_of(title.encode()) == title


def test_categories_are_two_known_ones() -> None:
    """Unknown words are dropped, and more than two."""
    assert categories_of(b"cli-agent, spam ,GAME,legal") == ("cli-agent", "game")
    assert categories_of(b"\xff\xfe,,") == ()
