"""Server-sent events, well and badly formed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.sim.faults import STYLES, Style
from gateway.sim.framing import Framer, OddFramer


def data_lines(stream: str) -> list[str]:
    """Return the ``data`` values of ``stream``, read as leniently as a client can."""
    lines = stream.replace("\r\n", "\n").split("\n")
    return [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]


payloads = st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1)


@given(payloads, st.lists(st.sampled_from(STYLES), max_size=5))
def test_no_style_changes_a_payload(words: list[str], styles: list[Style]) -> None:
    """However odd the dress, every payload (JSON never begins with a blank) is there, once and in order."""
    payloads = ["{" + word for word in words]
    framer = OddFramer(styles)
    parts = [part for payload in payloads for part in framer.frame(payload.encode())]
    assert data_lines(b"".join(parts).decode()) == payloads


def test_plain_events_are_one_line_and_a_blank_one() -> None:
    """The shape every client expects."""
    assert Framer().frame(b"{}") == (b"data: {}\n\n",)


def test_styles_take_turns() -> None:
    """Each event wears the next style."""
    framer = OddFramer(("crlf", "no_space", "no_blank"))
    assert [framer.frame(b"{}")[0] for _ in range(4)] == [
        b"data: {}\r\n\r\n",
        b"data:{}\n\n",
        b"data: {}\n",
        b"data: {}\r\n\r\n",
    ]


def test_a_split_event_is_cut_inside_a_character() -> None:
    """Neither half of a split event is valid UTF-8 when it holds a character of several bytes."""
    first, second = OddFramer(("split",)).frame("le café".encode())
    assert first.endswith(b"\xc3")
    assert second.startswith(b"\xa9")
    assert OddFramer(("split",)).frame(b"plain")[0] == b"data: "
