"""YAML is read strictly, with the place of every value, and nothing in it can hurt."""

from __future__ import annotations

import pytest

from gateway.config.document import key_text, parse


def refused(content: bytes | str) -> list[str]:
    """Return the problems of a text as they are shown."""
    data = content.encode() if isinstance(content, str) else content
    return [problem.render() for problem in parse("f", data)[1]]


def test_values_and_places() -> None:
    """Scalars get their type from YAML 1.2's core schema, and each key is found where it stands."""
    document, problems = parse("f", b'a: 1\nb:\n  - {c: 1.5, d: "2"}\n  - true\n  - 0777\ne: no\nf: 2026-01-01\n')
    assert problems == []
    assert document is not None
    assert document.tree == {"a": 1, "b": ({"c": 1.5, "d": "2"}, True, 777), "e": "no", "f": "2026-01-01"}
    assert document.places[("b", 0, "d")] == (3, 14)
    assert document.places[("b", 1)] == (4, 5)
    assert document.value(("b", 0, "c")) == 1.5
    assert document.value(("b", 7, "c")) is None
    assert document.value(("b", "c")) is None
    assert list(document.entries("b", None, "d")) == [(("b", 0, "d"), "2")]


def test_problem_at_a_key_that_is_not_there() -> None:
    """A problem with a missing key stands where its parent is."""
    document, _ = parse("f", b"a:\n  - b: 1\n")
    assert document is not None
    assert document.problem(("a", 0, "x", 3), "is wrong", "mend it").render() == "f:2:5 a[0].x[3]: is wrong -> mend it"
    assert document.problem((), "is wrong", "mend it").render() == "f:1:1: is wrong -> mend it"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (("backends", 1, "url"), "backends[1].url"),
        (("aliases", "qwen/qwen2.5", "x"), 'aliases["qwen/qwen2.5"].x'),
        (("a b",), '"a b"'),
        (("a", "\x1b"), 'a["\\x1b"]'),
    ],
)
def test_key_text(key: tuple[str | int, ...], text: str) -> None:
    """Paths are written the way people write them, and names that could mislead are quoted."""
    assert key_text(key) == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "f:1:1: is empty -> "),
        (b"# only a comment\n", "f:1:1: is empty -> "),
        (b"a: 1\na: 2\n", "f:2:1 a: is there twice, first in line 1 -> keep one of them"),
        (b"a: {b: 1,\n b: 2}", "f:2:2 a.b: is there twice, first in line 1 -> keep one of them"),
        (b"a:\n  b:\n", "f:2:3 a.b: has no value -> give it one, or remove the key"),
        (b"a: [1, ~]", "f:1:8 a[1]: has no value -> "),
        (b"? [a]\n: 1\n", "f:1:3: has a key that is not plain text -> "),
        (b"a: !!python/object:os.system {}", "f:1:4: is not valid YAML here: tags (!…) are not allowed -> "),
        (b"a: !!str 1", "f:1:4: is not valid YAML here: tags"),
        (b"a: 1\n---\nb: 2\n", "f:2:1: is not valid YAML here: expected a single document"),
        (b"a: [1\nb: 2\n", "f:2:2: is not valid YAML here: while parsing a flow sequence"),
        (b"a:\n\tb: 1\n", "f:2:1: is not valid YAML here: "),
        (b"a: *nobody", "f:1:4: is not valid YAML here: found undefined alias"),
        (b"a: \xff\xfe", "f:1:4: is not UTF-8 -> save the file in UTF-8"),
        (b"a: 1\nbc: \xc3", "f:2:5: is not UTF-8 -> save the file in UTF-8"),
        (b"a: 1\nb: \x00", "f:2:4: has a control character -> remove the character"),
        (b'a: "\\ud800"', "f:1:1 a: has half a surrogate pair -> write the character itself"),
        (b'"\\udfff": 1', "f:1:1: has half a surrogate pair -> write the character itself"),
        (b'a: "\\UFFFFFFFF"', "f:1:1: has an escape or directive out of range -> remove it"),
        (b"%YAML " + b"9" * 5000 + b".1\n---\na: 1", "f:1:1: has an escape or directive out of range -> remove it"),
    ],
)  # fmt: skip
def test_refused_text(content: bytes, expected: str) -> None:
    """Each unreadable or ambiguous text is one problem at its place."""
    problems = refused(content)
    assert len(problems) == 1
    assert problems[0].startswith(expected), problems


def test_alias_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aliases that multiply to a billion values are cut off at a bound."""
    monkeypatch.setattr("gateway.config.document.MAX_NODES", 5_000)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    document, problems = parse("f", "\n".join(lines).encode())
    assert document is None
    assert [problem.message for problem in problems] == ["grows too large when its aliases are followed"]


def test_alias_that_contains_itself() -> None:
    """An endless value is refused."""
    document, problems = parse("f", b"a: &a [*a]")
    assert document is None
    assert [problem.message for problem in problems] == ["grows too large when its aliases are followed"]


@pytest.mark.parametrize("content", [b"[" * 100_000, b"a: " + b"{b: " * 5_000, b"- " * 5_000 + b"x"])
def test_deep_nesting(content: bytes) -> None:
    """Nesting is bounded before it can exhaust the stack."""
    assert any("nested deeper than 32 levels" in problem for problem in refused(content))


def test_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flat file with too many values is refused as well."""
    monkeypatch.setattr("gateway.config.document.MAX_NODES", 1_000)
    assert parse("f", b"[" + b"1," * 998 + b"1]")[1] == []
    assert "has more than 1000 values" in refused(b"[" + b"1," * 999 + b"1]")[0]


def test_long_numbers() -> None:
    """Numbers of any length are read without an error; what does not fit becomes a fraction."""
    document, problems = parse("f", b"a: " + b"9" * 50_000)
    assert problems == []
    assert document is not None
    assert document.tree == {"a": float("inf")}
