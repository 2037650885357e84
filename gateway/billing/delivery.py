"""Delivery: from the outbox to the sinks.

A closed period becomes, for each sink, what it wants of it: files, a notice, or an event per team; a file is made anew
from the closed lines, so it is the same bytes however often it is delivered. Whatever fails is tried again later; only
what a sink will never take is given up, and both can be seen in the outbox.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import msgspec

from gateway.billing import paper, sinks
from gateway.billing.export import DATASETS, Export, export_of, export_to
from gateway.billing.methods import ALWAYS, OutboxItem, Selection
from gateway.billing.outbox import Outbox
from gateway.billing.table import FORMATS
from gateway.config.snapshot import BillingSpec, SinkSpec
from gateway.telemetry import logs
from gateway.types.errors import BadRequest, NotFound, WeirError
from gateway.types.method import Asking
from gateway.types.money import nano_from_usd

FOLDER: Final = "exports"
"""Where files are made before they are delivered, in the state folder."""
_FILES: Final = frozenset({"folder", "s3"})

_log: Final = logs.logger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing a sink wants of a closed period.

    Attributes:
        name: what tells it apart from the others of that period.
        document: what is delivered, or which export.
    """

    name: str
    document: dict[str, Any]


class Delivery:
    """Delivers what is due.

    Args:
        books: whom exports are read from.
        outbox: what is to be delivered.
        spec: returns what the configuration says of billing.
        home: the state folder.
        now_us: wall clock, microseconds since 1970.

    Attributes:
        items: how many items wait or were given up, by state, as of the last look.
        tries: how many tries ended how.
    """

    def __init__(
        self, books: Asking, outbox: Outbox, spec: Callable[[], BillingSpec], home: Path, now_us: Callable[[], int]
    ) -> None:
        self.items: Mapping[tuple[str, ...], float] = {}
        self.tries: Counter[tuple[str, ...]] = Counter()
        self._books = books
        self._outbox = outbox
        self._spec = spec
        self._home = home
        self._now_us = now_us

    async def run(self) -> None:
        """Deliver all that is due now."""
        known = {sink.name: sink for sink in self._spec().sinks}
        await self._outbox.address(lambda document: _orders(known.values(), document), self._now_us())
        if not known:
            return
        try:
            while item := await self._outbox.lease(sorted(known), self._now_us()):
                await self._deliver(known[item.sink], item)
        finally:
            self.items = await self._outbox.counts()

    async def _deliver(self, sink: SinkSpec, item: OutboxItem) -> None:
        try:
            document = msgspec.json.decode(item.payload)
            if sink.kind in _FILES:
                await self._file(sink, item, document)
            elif sink.kind == "webhook":
                await sinks.post_webhook(sink, item.item, document, self._now_us())
            else:
                await sinks.report_to_stripe(sink, item.item, document, self._now_us())
        except (sinks.Refused, BadRequest, NotFound) as error:
            _log.error("export_refused", item=item.item, sink=sink.name, reason=str(error))
            self.tries["refused",] += 1
            await self._outbox.fail(item.item, str(error), self._now_us())
        except (sinks.Away, WeirError, OSError) as error:
            _log.warning("export_postponed", item=item.item, sink=sink.name, reason=str(error))
            self.tries["postponed",] += 1
            await self._outbox.postpone(item, str(error), self._now_us())
        else:
            self.tries["delivered",] += 1
            await self._outbox.delivered(item.item, self._now_us())

    async def _file(self, sink: SinkSpec, item: OutboxItem, document: Mapping[str, Any]) -> None:
        """Make an export and put it into the sink, with its manifest."""
        last = document["last"]
        wanted = Selection(document["team"], document["period"], document["first"], ALWAYS if last is None else last)
        export = export_of(document["dataset"], document["format"], wanted)
        folder = self._home / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f"{token_hex(8)}.draft"
        beside = draft.with_suffix(".manifest")
        try:
            await export_to(self._books, export, draft)
            name = _name(export, item, document)
            beside.write_bytes(msgspec.json.format(msgspec.json.encode(export.manifest | {"file": name})) + b"\n")
            await _put(sink, name, draft)
            await _put(sink, f"{name}.manifest.json", beside)
        finally:
            for path in (draft, beside, draft.with_name(f"{draft.name}.manifest.json")):
                path.unlink(missing_ok=True)

    def checked(self, sink: str, dataset: str, form: str) -> None:
        """Refuse an order that cannot be carried out.

        Raises:
            NotFound: there is no such sink.
            BadRequest: it takes no files, or the export is of no known kind.
        """
        found = next((each for each in self._spec().sinks if each.name == sink), None)
        if found is None:
            raise NotFound(f"there is no sink {sink[:64]!r}; sinks are in billing.sinks of the configuration file")
        if found.kind not in _FILES:
            raise BadRequest(f"the sink {sink} takes no files")
        forms = {*FORMATS, *paper.FORMS} if dataset == "statement" else set(FORMATS)
        if dataset not in DATASETS or form not in forms:
            raise BadRequest("there is no such export", param="format")


async def _put(sink: SinkSpec, name: str, path: Path) -> None:
    if sink.kind == "folder":
        await asyncio.to_thread(sinks.put_in_folder, sink, name, path)
    else:
        await sinks.put_in_bucket(sink, name, path)


def _name(export: Export, item: OutboxItem, document: Mapping[str, Any]) -> str:
    """Return the file's name in the sink: of a closed period always the same, of an order its own."""
    if document.get("closed"):
        return f"period={export.wanted.period}/{export.name}"
    return f"orders/{item.item}/{export.name}"


def _orders(known: Any, document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield sink, name and document of all that sinks want of a closed period."""
    for sink in known:
        for part in _parts(sink, document):
            yield sink.name, part.name, part.document


def _parts(sink: SinkSpec, document: Mapping[str, Any]) -> Iterator[Part]:
    period = document["period"]
    if sink.kind == "webhook":
        yield Part("notice", dict(document))
    elif sink.kind == "stripe":
        for team, customer in sorted(sink.customers.items()):
            sums = document["teams"].get(team)
            if sums is None:
                continue
            value = sums["tokens"] if sink.unit == "tokens" else sinks.micro_usd(_nano(sums["effective"]))
            # A meter takes no negative value; a month of corrections alone is settled by hand.
            if value > 0:
                yield Part(team, {"period": period, "team": team, "customer": customer, "value": value})
    else:
        for dataset in sink.exports:
            if dataset == "statement":
                for team in sorted(document["teams"]):
                    for form in paper.FORMS:
                        yield Part(f"statement-{team}-{form}", _order(dataset, form, team, period))
            else:
                yield Part(dataset, _order(dataset, sink.format, None, period))


def _order(dataset: str, form: str, team: str | None, period: str) -> dict[str, Any]:
    return {
        "type": "export",
        "dataset": dataset,
        "format": form,
        "team": team,
        "period": period,
        "first": 0,
        "last": None,
        "closed": True,
    }


def _nano(text: str) -> int:
    return -nano_from_usd(text[1:]) if text.startswith("-") else nano_from_usd(text)
