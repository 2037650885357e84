"""The library litellm is imported by one file, and only when it is needed: nobody else pays for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONLY = ROOT / "gateway" / "upstream" / "litellm.py"


def imported(tree: ast.AST) -> list[ast.AST]:
    """Return the statements that import the library."""
    found: list[ast.AST] = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        if any(name == "litellm" or name.startswith("litellm.") for name in names):
            found.append(node)
    return found


def test_one_file_imports_the_library_and_not_when_it_is_loaded() -> None:
    """No other module of the gateway, and that one inside a function."""
    for folder in ("gateway", "policies", "dashboards", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text()
            if "litellm" not in text:
                continue
            tree = ast.parse(text)
            if path != ONLY:
                assert not imported(tree), path
            else:
                assert imported(tree)
                assert not [node for node in imported(tree) if node in tree.body]


def test_a_worker_does_without_the_library() -> None:
    """A serving process has neither the library nor what it brings along, until a backend needs it."""
    program = "import sys, gateway.process, gateway.app; print(*({'litellm', 'openai', 'tiktoken'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
