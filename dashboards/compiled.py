"""Compiled templates, kept where Python keeps compiled modules: compiling all takes a second of CPU, loading all 25 ms.

A file is believed for the very source, options, Jinja and Python that it was made of. Where nothing can be written, or
``PYTHONDONTWRITEBYTECODE`` is set, templates are compiled in each process anew. Nothing here raises.

``python -m dashboards.compiled`` compiles all of them, for an image whose user may not write there.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Final

import jinja2
from jinja2.bccache import Bucket

FOLDER: Final = Path(__file__).parent / "__pycache__"


class Compiled(jinja2.BytecodeCache):
    """Keeps compiled templates in ``folder``."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def _path(self, bucket: Bucket) -> Path:
        of = bucket.environment
        options = (jinja2.__version__, of.autoescape, of.trim_blocks, of.lstrip_blocks)
        made_with = sha256(repr(options).encode()).hexdigest()[:8]
        return self._folder / f"{bucket.key}.{made_with}.{sys.implementation.cache_tag}.jinja"

    def load_bytecode(self, bucket: Bucket) -> None:
        """Load a template if it is there and whole."""
        with suppress(OSError, EOFError, UnpicklingError):
            bucket.bytecode_from_string(self._path(bucket).read_bytes())

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep a template that was just compiled; readers see all of it or nothing."""
        if sys.dont_write_bytecode:
            return
        path = self._path(bucket)
        draft = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            draft.write_bytes(bucket.bytecode_to_string())
            draft.replace(path)


if __name__ == "__main__":
    from dashboards import render

    render.compile_all()
