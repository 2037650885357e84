"""No page shows a time of day without saying whose it is: UTC stands behind it, or over its column."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

TEMPLATES: Final = Path(__file__).parents[3] / "dashboards" / "templates"
MARK: Final = "@time@"
_SHOWN: Final = re.compile(r"\{[{%][^}]*\| (?:moment|second)\b[^}]*\}+")
_OTHERWISE: Final = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)


class Times(HTMLParser):
    """Collects what stands around each time: the head of its column or of its fact, and the text behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._heads: list[str] = []
        self._inside = self._fact = ""
        self._column = -1
        self._waiting = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count columns, and begin anew with each table, row and fact."""
        self._inside = tag
        if tag == "table":
            self._heads = []
        elif tag == "tr":
            self._column = -1
        elif tag in ("th", "td"):
            self._column += 1
            if tag == "th" and ("scope", "col") in attrs:
                self._heads.append("")
        elif tag == "dt":
            self._fact = ""

    def handle_endtag(self, tag: str) -> None:
        """A table has its heads no longer than it lasts."""
        if tag in ("table", "dl"):
            self._heads, self._column, self._fact = [], -1, ""

    def handle_data(self, data: str) -> None:
        """Take the text of heads, and that behind each time, be it in the next element."""
        if self._inside == "th" and self._heads:
            self._heads[-1] += data
        if self._inside == "dt":
            self._fact += data
        if self._waiting:
            self.found[-1] += data[:4]
        head = self._heads[self._column] if 0 <= self._column < len(self._heads) else self._fact
        behind = data.split(MARK)[1:]
        self.found += [f"{head}: {each[:4]}" for each in behind]
        self._waiting = bool(behind) and not behind[-1]


def shown(template: Path) -> list[str]:
    """Return what stands around each time of day in a template."""
    text = _SHOWN.sub(lambda found: f"{MARK} UTC" if "UTC" in found[0] else MARK, template.read_text())
    parser = Times()
    parser.feed(_OTHERWISE.sub("", text))
    return parser.found


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.stem)
def test_a_time_of_day_says_that_it_is_utc(template: Path) -> None:
    """Nobody has to guess whose midnight a key, a session or a closed month goes by."""
    assert [each for each in shown(template) if "UTC" not in each] == []


def test_the_times_are_found() -> None:
    """The test above looks at something."""
    assert sum(len(shown(template)) for template in TEMPLATES.glob("*.html")) > 15
