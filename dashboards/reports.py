"""Reports of the lab in known folders: listing them and giving one out. Only plain HTML files of modest size count.

A report is a page of its own with a style sheet inside. It is given out under a policy that allows this very style
sheet by its digest and nothing else: no script, no request, no form, an origin of its own. A folder that is not there
has no reports; nothing here raises.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from html import unescape
from pathlib import Path
from typing import Final

LARGEST: Final = 4 * 1024 * 1024
MOST: Final = 200
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.html")
_TITLE: Final = re.compile(r"<title>([^<]{1,200})</title>")
_NONE: Final = "'none'"
_STYLE: Final = re.compile(r"<style>(.*?)</style>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Report:
    """A report: its file's name, title, and when it was written, microseconds since 1970."""

    name: str
    title: str
    written_us: int
    path: Path


def listed(folders: Iterable[Path]) -> list[Report]:
    """Return the reports of ``folders``, newest first; of two with one name the one in the earlier folder."""
    found: dict[str, Report] = {}
    for folder in folders:
        try:
            paths = sorted(folder.iterdir())[:MOST]
        except OSError:
            continue
        for path in paths:
            report = _report(path)
            if report is not None:
                found.setdefault(report.name, report)
    return sorted(found.values(), key=lambda each: (-each.written_us, each.name))


def _report(path: Path) -> Report | None:
    if not _NAME.fullmatch(path.name) or path.is_symlink() or not path.is_file():
        return None
    try:
        about = path.stat()
        if about.st_size > LARGEST:
            return None
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8", "replace")
    except OSError:
        return None
    if not head.lower().startswith("<!doctype html>"):
        return None
    title = _TITLE.search(head)
    return Report(path.name, unescape(title[1]) if title else path.name, about.st_mtime_ns // 1_000, path)


def content(folders: Iterable[Path], name: str) -> bytes | None:
    """Return the report that is listed under ``name``, None when there is none."""
    found = next((report for report in listed(folders) if report.name == name), None)
    try:
        return None if found is None else found.path.read_bytes()
    except OSError:
        return None


def policy(page: bytes) -> str:
    """Return the content security policy under which ``page`` is given out."""
    styles = _STYLE.findall(page.decode("utf-8", "replace"))
    hashes = " ".join(f"'sha256-{base64.b64encode(sha256(each.encode()).digest()).decode()}'" for each in styles)
    return f"default-src 'none'; style-src {hashes or _NONE}; frame-ancestors 'none'; sandbox"
