"""Pages from templates. Jinja2 is imported with the first page: a worker that nobody visits does without it.

Everything that is put into a template is escaped; there is no way around it but ``Markup``, which nobody uses. A name
that a template does not know is an error, not an empty string.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dashboards import assets, door, figures
from dashboards.charts import table
from dashboards.menu import menu
from gateway.console.roles import Permission

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER: Final = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - see above

    from dashboards.compiled import Compiled  # noqa: PLC0415 - see above

    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        bytecode_cache=Compiled(),
    )
    made.filters.update(
        short=figures.short,
        whole=figures.whole,
        brief=figures.brief,
        usd=figures.usd,
        exact_usd=figures.exact_usd,
        percent=figures.percent,
        change=figures.change,
        seconds=figures.seconds,
        moment=figures.moment,
        second=figures.second,
        stamp=figures.stamp,
        ago=figures.ago,
    )
    made.globals.update(
        static=assets.url,
        menu=menu,
        may=Permission,
        form_token=door.form_token,
        csrf_field=door.FIELD,
        figures=figures,
        table_text=table.text,
    )
    return made


def page(template: str, context: dict[str, Any]) -> str:
    """Return a template with ``context`` put in."""
    return _environment().get_template(template).render(context)


def compile_all() -> None:
    """Compile every template, so that none of it is left to the first visit."""
    environment = _environment()
    for name in environment.list_templates():
        environment.get_template(name)
