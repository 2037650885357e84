"""Sizes: the tail is what separates readable code from the other kind."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE_LIMIT = 600
FUNCTION_LIMIT = 60
_HOLDERS = (ast.stmt, ast.excepthandler, ast.match_case)


def sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).exists()]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        # Functions are statements: what expressions are made of, most of a file, is left aside.
        nodes += (part for part in ast.iter_child_nodes(node) if isinstance(part, _HOLDERS))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def test_no_file_is_too_long() -> None:
    """A file that needs a table of contents is two files."""
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert not {name: lines for name, lines in long.items() if lines > FILE_LIMIT}


def test_no_function_is_too_long() -> None:
    """Nor may a function be: not even the story of a request."""
    found = [pair for path in sources() for pair in functions(path)]
    assert len(found) > 500
    assert not [(name, lines) for name, lines in found if lines > FUNCTION_LIMIT]
