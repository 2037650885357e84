"""``weir prices``: what is charged, what it costs, and where prices come from. What is refused is a ``WeirError``.

Nothing a source says is applied by itself: ``import`` writes a file of offers, ``diff`` shows what it would change, and
``accept`` makes versions of it.
"""

# Commands import what they need when they run: see the package.
# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands import margins
from gateway.commands.console import Json, fail, print_json, say, table
from gateway.commands.environment import Config, read_settings, with_keeper
from gateway.commands.margins import bytes_of, working

if TYPE_CHECKING:
    from gateway.tariff.offers import Found
    from gateway.tariff.version import Known, Valid, Version

app = typer.Typer(help="Prices, costs, terms, margins.", no_args_is_help=True)

_ValidFrom = Annotated[
    str | None, typer.Option("--valid-from", help="When it takes its place, such as 2026-12-01 (UTC); default now.")
]
_Why = Annotated[str, typer.Option("--why", help="The reason, for whoever asks later.")]
_Model = Annotated[str | None, typer.Option("--model", help="Only this model.")]


@app.command("list")
def prices_list(
    model: _Model = None,
    kind: Annotated[str | None, typer.Option(help="sell, cost, hour or terms.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Also what others have taken the place of.")] = False,
    as_json: Json = False,
) -> None:
    """List versions of prices: those that are valid or will be, newest first."""
    from gateway.tariff.form import version_form

    with working("reading versions"):
        versions = _history() if history else _standing()
    wanted = [each for each in versions if model in (None, each.model) and kind in (None, each.kind.value)]
    if as_json:
        print_json([version_form(version) for version in wanted])
        return
    rows = [
        (
            str(version.version_id),
            version.kind.value,
            " ".join(word for word in (version.model, version.place) if word),
            _moment(version),
            _said(version),
            version.source,
            version.who,
            version.why,
        )
        for version in wanted
    ]
    table(("version", "kind", "of", "valid from", "says", "source", "who", "why"), rows)


@app.command("set")
def prices_set(
    kind: Annotated[str, typer.Argument(help="sell, cost, hour or terms.")],
    model: Annotated[str, typer.Option(help="Our model id; none for hour, and for terms of all models.")] = "",
    place: Annotated[
        str, typer.Option(help="sell: slug of an endpoint, if not all. cost, hour: the backend. terms: the team.")
    ] = "",
    price: Annotated[
        str | None, typer.Option(help='sell, cost: rates as in the file, JSON: {"prompt": "0.10", …}.')
    ] = None,
    usd_per_hour: Annotated[str | None, typer.Option(help="hour: USD.")] = None,
    max_running: Annotated[int | None, typer.Option(help="hour: requests it generates side by side.")] = None,
    discount: Annotated[str | None, typer.Option(help="terms: percent off the list price, such as 12.5.")] = None,
    markup: Annotated[str | None, typer.Option(help="terms: percent on top of what the discount leaves.")] = None,
    withdraw: Annotated[bool, typer.Option(help="From then on there is nothing of its own.")] = False,
    valid_from: _ValidFrom = None,
    why: _Why = "",
    as_json: Json = False,
) -> None:
    """Make one version: a price, a cost by token or by hour, or the terms of a team."""
    import json

    from gateway.tariff.form import Wanted, proposal_of, version_form
    from gateway.tariff.version import ACCEPT, Kind

    if kind not in {each.value for each in Kind}:
        fail("the kind is sell, cost, hour or terms", 2)
    try:
        rates = json.loads(price) if price is not None else None
    except ValueError:
        fail('--price is JSON such as {"prompt": "0.10", "completion": "0.30"}', 2)
    wanted = Wanted(
        kind=Kind(kind),
        model=model,
        place=place,
        price=rates,
        usd_per_hour=usd_per_hour,
        max_running=max_running,
        discount_percent=discount,
        markup_percent=markup,
        withdraw=withdraw,
        valid_from=valid_from,
        why=why,
    )
    proposal = proposal_of(wanted, who=_user(), source="cli")
    made = with_keeper(lambda keeper: keeper.ask(ACCEPT, ((proposal,),)))
    _tell(made, as_json, version_form)


@app.command("import")
def prices_import(
    source: Annotated[str, typer.Argument(help="genai-prices, or LiteLLM's price map as a JSON file.")],
    out: Annotated[Path | None, typer.Option(help="Write the offers to this file.")] = None,
    kind: Annotated[str, typer.Option(help="cost (endpoints of external APIs) or sell (models).")] = "cost",
    names: Annotated[
        list[str] | None, typer.Option("--map", help="OURS=THEIRS: what the source calls a model of ours.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="The provider in the source, if not called as here.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Look up prices in a source and write them to a file of offers; nothing is applied."""
    import json

    from gateway.tariff.offers import offers_form

    found = _found(source, kind, names or [], provider, config)
    document = offers_form(found)
    if out is not None:
        try:
            out.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            fail(f"{out} cannot be written: {error.strerror}", 1)
    if as_json:
        print_json(document)
        return
    rows = [
        (each["model"], each["place"], each["matched"], each["price"]["prompt"], each["price"]["completion"])
        for each in document["offers"]
    ]
    table(("model", "place", "in the source", "prompt", "completion"), rows)
    for each in document["unclear"]:
        say(f"not taken: {each['model']} {each['place']}: {each['reason']}")
    for each in document["missing"]:
        say(f"not found: {each['model']} {each['place']}; --map {each['model']}=NAME says what it is called")
    say(f"{len(rows)} offers of {found.source} {found.source_version}" + (f" in {out}" if out is not None else ""))


@app.command("diff")
def prices_diff(
    offers: Annotated[Path, typer.Argument(help="A file of offers, from `weir prices import --out`.")],
    valid_from: _ValidFrom = None,
    as_json: Json = False,
) -> None:
    """Show what accepting a file of offers would change, rate by rate."""
    from gateway.tariff.form import moment_of
    from gateway.tariff.offers import change_form, changes, rates_now

    found = _read_offers(offers)
    moment = moment_of(valid_from, "--valid-from") if valid_from is not None else 0
    with working("comparing"):
        now = _valid_at(moment)
    lines = [
        {
            "kind": offer.target.kind.value,
            "model": offer.target.model,
            "place": offer.target.place or None,
            **change_form(change),
        }
        for offer in found.offers
        for change in changes(rates_now(now, offer.target), offer.rates)
    ]
    if as_json:
        print_json({"source": found.source, "source_version": found.source_version, "changes": lines})
        return
    rows = [
        (
            line["kind"],
            " ".join(word for word in (line["model"], line["place"]) if word),
            line["service_tier"] + (f" above {line['above']}" if line["above"] else ""),
            line["class"],
            line["old"] or "none",
            line["new"] or "none",
            f"{line['percent']} %" if line["percent"] is not None else "",
        )
        for line in lines
    ]
    table(("kind", "of", "tier", "class", "old", "new", "change"), rows)
    say(f"{len(rows)} rates would change; USD per million tokens, or per request")


@app.command("accept")
def prices_accept(
    offers: Annotated[Path, typer.Argument(help="A file of offers, from `weir prices import --out`.")],
    model: _Model = None,
    valid_from: _ValidFrom = None,
    why: _Why = "",
    as_json: Json = False,
) -> None:
    """Make versions of the offers in a file that differ from what is valid."""
    from dataclasses import replace

    from gateway.tariff.form import moment_of, version_form
    from gateway.tariff.offers import changes, proposals, rates_now
    from gateway.tariff.version import ACCEPT

    found = _read_offers(offers)
    moment = moment_of(valid_from, "--valid-from") if valid_from is not None else 0
    with working("making versions"):
        now = _valid_at(moment)
        differing = [
            offer
            for offer in found.offers
            if model in (None, offer.target.model) and changes(rates_now(now, offer.target), offer.rates)
        ]
        wanted = proposals(
            replace(found, offers=tuple(differing)),
            who=_user(),
            why=why or f"accepted {offers.name}",
            valid_from_us=moment,
        )
        made = with_keeper(lambda keeper: keeper.ask(ACCEPT, (tuple(wanted),))) if wanted else ()
    _tell(made, as_json, version_form)


app.command("margin")(margins.margin)
app.command("allocation")(margins.allocation)
app.command("reconcile")(margins.reconcile)


def _standing() -> list[Version]:
    import time

    from gateway.tariff.version import standing

    versions = standing(_known().versions, time.time_ns() // 1000)
    return sorted(versions, key=lambda version: -version.version_id)


def _known() -> Known:
    from gateway.tariff.version import TARIFF, Known

    known = with_keeper(lambda keeper: keeper.ask(TARIFF, (0,)))
    return known if known is not None else Known(0, ())


def _valid_at(moment_us: int) -> Valid:
    """Return what will be valid at a moment, microseconds since 1970; at once, when what was just made is valid too."""
    import time

    from gateway.tariff.version import LEAD_US, valid

    return valid(_known().versions, max(moment_us, time.time_ns() // 1000 + 2 * LEAD_US))


def _history() -> list[Version]:
    from gateway.commands.environment import Reached
    from gateway.tariff.version import VERSIONS, VersionQuery

    async def pages(keeper: Reached) -> list[Version]:
        found: list[Version] = []
        while True:
            before = found[-1].version_id if found else 0
            page = await keeper.ask(VERSIONS, (VersionQuery(before=before),))
            found += page
            if not page:
                return found

    return with_keeper(pages)


def _found(source: str, kind: str, names: list[str], provider: str | None, config: Path | None) -> Found:
    from gateway.app import presets
    from gateway.config.load import load
    from gateway.config.problem import ConfigError
    from gateway.tariff.offers import targets
    from gateway.tariff.sources import GENAI, from_genai_prices, from_litellm
    from gateway.tariff.version import Kind

    if kind not in (Kind.SELL, Kind.COST):
        fail("--kind is cost or sell", 2)
    pairs = [name.partition("=") for name in names]
    if any(not ours or not theirs for ours, _, theirs in pairs):
        fail("--map is OURS=THEIRS", 2)
    known_as = {ours: theirs for ours, _, theirs in pairs}
    settings = read_settings(config, quiet=True)
    if settings.config is None:
        fail("no configuration: set WEIR_CONFIG or give --config FILE", 2)
    try:
        wanted = targets(load(settings.config, presets=presets()), Kind(kind))
    except ConfigError as error:
        fail(str(error), 2)
    with working(f"looking up {len(wanted)} prices"):
        if source == GENAI:
            return from_genai_prices(wanted, known_as, provider)
        return from_litellm(bytes_of(Path(source)), wanted, known_as, provider)


def _read_offers(path: Path) -> Found:
    from gateway.tariff.offers import document_of, offers_of
    from gateway.types.errors import BadRequest

    try:
        return offers_of(document_of(bytes_of(path)))
    except (ValueError, RecursionError):
        raise BadRequest(f"{path} is not JSON: make a file of offers with `weir prices import --out FILE`") from None


def _tell(made: tuple[Version, ...] | Any, as_json: bool, form: Any) -> None:
    if as_json:
        print_json([form(version) for version in made])
        return
    for version in made:
        about = " ".join(word for word in (version.kind.value, version.model, version.place) if word)
        say(f"version {version.version_id}: {about} from {_moment(version)}: {_said(version)}")
    if not made:
        say("nothing to change")


def _moment(version: Version) -> str:
    from gateway.commands.console import moment

    return moment(version.valid_from_us)


def _said(version: Version) -> str:
    """Return what a version says, in a few words."""
    from gateway.tariff.form import content_form

    form = content_form(version)
    rates = form.get("price") or form.get("cost")
    if rates is None:
        return ", ".join(f"{name} {value}" for name, value in form.items() if value is not None)
    words = [f"{name} {value}" for name, value in rates.items() if isinstance(value, str)]
    words += [f"{name} ({len(rates[name])})" for name in ("tiers", "service_tiers") if name in rates]
    return ", ".join(words)


def _user() -> str:
    """Return who is at the keyboard."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
