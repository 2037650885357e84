"""Static files: stylesheets, modules, typefaces. Their URLs hold a digest of their content, so they are kept for ever.

Only files that are in the package are served, under the digest they have now; anything else is 404. A file is read, and
compressed once, when it is first asked for.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

FOLDER: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file: its bytes, the same compressed (empty where that does not help), and the start of its SHA-256."""

    content: bytes
    packed: bytes
    digest: str


@cache
def asset(name: str) -> Asset | None:
    """Return the file ``name`` below the folder, or None when there is no such."""
    path = FOLDER / name
    if path.suffix not in TYPES or ".." in name or not path.is_file():
        return None
    content = path.read_bytes()
    if path.suffix == ".css":
        content = _with_urls(content)
    packed = b"" if path.suffix == ".woff2" else gzip.compress(content, 9, mtime=0)
    return Asset(content, packed, sha256(content).hexdigest()[:12])


@cache
def url(name: str) -> str:
    """Return the path of a static file. Raises ``KeyError`` when there is no such."""
    found = asset(name)
    if found is None:
        raise KeyError(name)
    return f"/static/{found.digest}/{name}"


async def serve(request: Request) -> Response:
    """Answer a request for a static file."""
    name = request.path_params["name"]
    found = asset(name)
    if found is None or request.path_params["digest"] != found.digest:
        return Response("no such file", status_code=404, media_type="text/plain")
    headers = {
        "cache-control": "public, max-age=31536000, immutable",
        "content-type": TYPES[Path(name).suffix],
        "vary": "accept-encoding",
        "x-content-type-options": "nosniff",
    }
    if found.packed and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers=headers | {"content-encoding": "gzip"})
    return Response(found.content, headers=headers)


def _with_urls(content: bytes) -> bytes:
    """Return a stylesheet whose ``url(@name)`` are paths of other static files."""
    before, *rest = content.decode().split("url(@")
    return (
        before + "".join(f"url({url(name)}){more}" for name, _, more in (each.partition(")") for each in rest))
    ).encode()
