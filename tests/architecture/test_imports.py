"""What each kind of process imports: most of an idle process's memory and of its time to start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATABASE = ("sqlalchemy", "sqlmodel", "aiosqlite")
HTTP = ("fastapi", "starlette", "opentelemetry", "httpx")
SELDOM = ("rich", "pygments", "gateway.billing.office", "gateway.billing.reconciliation")


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        (
            ("gateway.cli",),
            (*DATABASE, *HTTP, "alembic", "uvicorn", "uvloop", "asyncio", "pydantic", "msgspec", "structlog", "rich"),
        ),
        (
            ("gateway.process", "gateway.serving", "gateway.keeper.client"),
            (*DATABASE, *HTTP, *SELDOM, "alembic", "gateway.sim"),
        ),
        (
            ("gateway.process", "gateway.keeper.server", "gateway.keeper.service", "gateway.keeper.figures"),
            (*HTTP, *SELDOM, "alembic", "uvicorn", "gateway.sim"),
        ),
        (
            ("gateway.settings", "gateway.keeper.process", "gateway.keeper.service"),
            (*HTTP, *SELDOM, "alembic", "uvicorn", "uvloop", "gateway.sim", "gateway.config.load"),
        ),
        (("gateway.supervisor",), (*DATABASE, *HTTP, "alembic", "uvicorn", "pydantic")),
    ],
    ids=["a command line", "a worker", "a keeper", "a command that keeps", "a supervisor"],
)
def test_a_process_does_not_import_what_others_need(modules: tuple[str, ...], without: tuple[str, ...]) -> None:
    """A command line is parsed in a tenth of a second; a worker holds no database, a keeper no web framework."""
    program = f"import sys, {', '.join(modules)}; print(*sorted({set(without)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_a_server_says_its_address_without_the_library_of_tables() -> None:
    """What `weir serve` prints at its start does not load what only tables need; neither does its log."""
    program = (
        "import sys; from gateway.commands.console import say, complain; from gateway.telemetry import logs; "
        "logs.configure('info', 'console'); logs.logger('x').warning('said'); say('[x]'); complain('y', style='red'); "
        "print('rich' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[x]", "False"], done.stderr
    assert done.stderr.splitlines()[-1] == "y"


def test_a_server_holds_no_command_but_its_own() -> None:
    """The help page knows all commands; who serves has imported the module of that one and no other."""
    program = (
        "import sys; from typer.main import get_command; from gateway.cli import app; group = get_command(app); "
        "group.get_command(None, 'serve'); "
        "print(*sorted(name for name in sys.modules if name.startswith('gateway.commands.'))); "
        "print(*group.commands); print(all(group.commands[name].help for name in group.commands))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules, commands, told = done.stdout.splitlines()
    assert modules.split() == [f"gateway.commands.{name}" for name in ("console", "environment", "serving")]
    assert {"serve", "keys", "lab", "apps"} <= set(commands.split())
    assert told == "True"
