"""What callers say of themselves in headers, made safe: an app's host, title and categories.

Headers are hostile input. An app is a plain host name in ASCII and nothing else of its URL: names in other scripts come
as ``xn--…`` and are shown like that, so none can look like another one. A title is one line of printable text in one
script, without markup. What is not valid is as if it had not been sent. Nothing here raises.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from gateway.leaderboard.datasets import CATEGORIES

OTHER: Final = "other"
"""What apps beyond a key's cap are counted under: no app can have it as its host."""
LONGEST_TITLE: Final = 64
MOST_CATEGORIES: Final = 2
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_URL: Final = re.compile(
    rf"https?://({_LABEL}(?:\.{_LABEL})*)\.?(?::[0-9]{{1,5}})?(?:[/?#].*)?".encode(), re.IGNORECASE
)
LONGEST_URL: Final = 2_048
LONGEST_HOST: Final = 64
_KNOWN: Final = frozenset(each for group in CATEGORIES.values() for each in group)
_MARKUP: Final = frozenset('<>&"`\\{}[]|^~')
_ASIAN: Final = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"})
"""Scripts that are written together."""


def app_of(referer: bytes) -> str:
    """Return the host that a ``Referer`` names, in lower case; ``""`` when it is no plain http or https URL.

    A URL with a user name, control characters or bytes beyond ASCII in its host is none.
    """
    if len(referer) > LONGEST_URL:
        return ""
    found = _URL.fullmatch(referer)
    if found is None or len(found[1]) > LONGEST_HOST:
        return ""
    host = found[1].decode("ascii").lower()
    return host if host != OTHER else ""


def title_of(header: bytes) -> str:
    """Return the title that a header holds: NFKC, blanks folded, 64 characters; ``""`` when it is no fit title.

    Control and format characters (they reverse or hide text), markup, and letters or marks of several scripts in one
    title (which imitate those of another) make it unfit.
    """
    if len(header) > 8 * LONGEST_TITLE:
        return ""
    try:
        text = header.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    text = " ".join(part for part in unicodedata.normalize("NFKC", text).split(" ") if part)
    if not text or len(text) > LONGEST_TITLE or not text.isprintable() or _MARKUP & set(text):
        return ""
    letters = {_script(character) for character in text if unicodedata.category(character)[0] in "LM"}
    scripts = letters - _ASIAN
    return text if len(scripts) <= 1 and (not scripts or not letters & _ASIAN or scripts == {"LATIN"}) else ""


def categories_of(header: bytes) -> tuple[str, ...]:
    """Return the first two known categories of a header, which separates them by commas."""
    words = header[:512].decode("ascii", "replace").lower().split(",")
    known = [word.strip() for word in words if word.strip() in _KNOWN]
    return tuple(dict.fromkeys(known))[:MOST_CATEGORIES]


@lru_cache(maxsize=1024)
def _script(character: str) -> str:
    """Return the first word of a letter's name, which is that of its script."""
    return unicodedata.name(character, "UNKNOWN").partition(" ")[0]
