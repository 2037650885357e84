"""What pages work with, and the routes of all of them.

The composition root makes a ``Site`` and adds ``routes`` to its application. Nothing here raises; errors of a page are
turned into pages by ``dashboards.visit``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dashboards import assets
from dashboards.pages import PAGES
from dashboards.visit import Page, serve
from gateway.config.snapshot import BoardsSpec, ConfigSnapshot
from gateway.fleet.registry import FleetRegistry
from gateway.routing.pipeline import Policy
from gateway.types.generation import LedgerReader
from gateway.types.keys import KeyAdmin
from gateway.types.method import Asking


class Books(KeyAdmin, LedgerReader, Asking, Protocol):
    """What pages need of the keeper."""


@dataclass(frozen=True, slots=True)
class Site:
    """What pages work with.

    Attributes:
        books: the keeper.
        registry: the fleet of this process.
        config: returns the configuration of now.
        accepts: whether a token is the operator's management key at a moment (microseconds since 1970).
        explain: explains what would be decided for a request body under a preset, ``""`` for the usual one.
        policies: the routing presets by name.
        preset_folder: where their files are.
        reports: folders with reports of the lab.
        environment: what the environment says, by variable, as far as it is no secret.
        version: of Weir.
        host: returns a few metrics, by name and labels, over all workers of the host.
        active: returns how many requests this process answers now.
        shelf: what views keep for the life of the process, such as an identity provider's metadata.
    """

    books: Books
    registry: FleetRegistry
    config: Callable[[], ConfigSnapshot]
    accepts: Callable[[bytes, int], bool]
    explain: Callable[[bytes, str], dict[str, Any]]
    policies: Mapping[str, Policy]
    preset_folder: Path
    reports: tuple[Path, ...]
    environment: Mapping[str, str]
    version: str
    host: Callable[[Collection[str]], Awaitable[Mapping[str, Mapping[tuple[str, ...], Sequence[float]]]]]
    active: Callable[[], int]
    shelf: dict[str, Any] = field(default_factory=dict)

    @property
    def presets(self) -> frozenset[str]:
        """Names of the routing presets."""
        return frozenset(self.policies)

    @property
    def ranked(self) -> bool:
        """Whether there is a page of rankings that strangers may see."""
        return self.boards.keyless and any(page.path == "/rankings" for page in PAGES)

    @property
    def boards(self) -> BoardsSpec:
        """The rules of the leaderboards now."""
        return self.config().boards


def routes(site: Site) -> Sequence[BaseRoute]:
    """Return the routes of all pages and of what they are made of."""
    made: list[BaseRoute] = [Route("/static/{digest}/{name:path}", assets.serve, methods=["GET"])]
    made += [_route(site, page) for page in PAGES]
    return made


def _route(site: Site, page: Page) -> Route:
    async def endpoint(request: Request) -> Response:
        return await serve(site, page, request)

    return Route(page.path, endpoint, methods=list(page.methods))
