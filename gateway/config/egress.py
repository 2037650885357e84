"""Where backends may be: the rules against requests forged towards the owner's own network.

Public addresses are free. Private, loopback, link-local and other special ranges must be listed in
``egress.allow``. Addresses and names of cloud metadata services are refused even when they are listed. The
same rules judge literal addresses in the file and, when a connection is made, the addresses a name resolved
to. A violation raises ``RefusedError``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import Final
from urllib.parse import SplitResult, urlsplit

from gateway.config.problem import RefusedError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA_ADDRESSES: Final = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google Cloud, OpenStack and others
        "169.254.170.2",  # AWS ECS task credentials
        "169.254.170.23",  # AWS EKS pod identity
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure host agent
        "192.0.0.192",  # Oracle Cloud, older shapes
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS pod identity
        "fd20:ce::254",  # Google Cloud
    )
)
METADATA_NAMES: Final = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "metadata.azure.internal",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE: Final = IPv6Network("::/96")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NUMERIC: Final = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)", re.IGNORECASE)
_NETLOC: Final = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]:]+)(?::[0-9]+)?")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*/?")


@dataclass(frozen=True, slots=True)
class Egress:
    """The special networks that backends may live in."""

    allow: tuple[Network, ...] = ()

    def admit(self, address: Address) -> None:
        """Return when a backend may be at ``address``.

        An IPv6 address that carries an IPv4 one (mapped, 6to4, NAT64) is judged by what it carries, too.

        Raises:
            RefusedError: it may not.
        """
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if not (isinstance(address, IPv6Address) and address.sixtofour):
            self._admit_plain(address)  # newer versions of Python know no public address of 6to4
        carried = _carried(address)
        if carried is not None:
            self._admit_plain(carried)

    def admit_host(self, host: str) -> None:
        """Return when ``host``, a name or a literal address as ``host_of`` gives it, may be a backend's.

        A name passes unless it is known to be special; what it resolves to is judged by ``admit``.

        Raises:
            RefusedError: it may not.
        """
        if host in METADATA_NAMES:
            raise RefusedError("names a cloud metadata service", "name the backend's own host")
        if host == "localhost" or host.endswith(".localhost"):
            loopback = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
            if not any(address in network for address in loopback for network in self.allow):
                raise RefusedError("is this host itself", 'add "127.0.0.0/8" to egress.allow to allow it')
            return
        try:
            address = ip_address(host)
        except ValueError:
            return
        self.admit(address)

    def _admit_plain(self, address: Address) -> None:
        if address in METADATA_ADDRESSES:
            raise RefusedError("is the address of a cloud metadata service", "name the backend's own host")
        if address.is_unspecified or address.is_multicast:
            raise RefusedError(f"{address} is not the address of one host", "name the backend's own host")
        special = not address.is_global or (isinstance(address, IPv6Address) and address.is_site_local)
        if special and not any(address in network for network in self.allow):
            raise RefusedError(
                f"{address} is in a private or special range that is not allowed",
                f'add "{ip_network(address)}", or its network, to egress.allow',
            )


def network(text: object) -> Network:
    """Return the network that ``text``, CIDR notation or one address, names. Raises ``RefusedError``."""
    if not isinstance(text, str):
        raise RefusedError("must be text", 'write a network in quotes, such as "10.0.0.0/8"')
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise RefusedError("is not a network", 'write it as address/bits, such as "10.0.0.0/8"') from None
    raise RefusedError("has bits set behind its prefix", f'did you mean "{meant}"?')


def networks(found: tuple[Network, ...]) -> tuple[Network, ...]:
    """Return ``found`` in order and without repetitions and overlaps: equal rules are equal values."""
    four = collapse_addresses(net for net in found if isinstance(net, IPv4Network))
    six = collapse_addresses(net for net in found if isinstance(net, IPv6Network))
    return (*four, *six)


def backend_url(text: str) -> str:
    """Return ``text`` as the root URL of a backend: scheme and host in lower case, no slash at the end.

    Raises:
        RefusedError: it is not plain http(s)://host[:port][/path], or spells an address in a disguised way.
    """
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise RefusedError("holds characters that no URL has", "write plain ASCII; international names as xn--…")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise RefusedError("is not a URL", "write http://host:port or https://host/path") from None
    _refuse_extras(text, parts)
    if port == 0 or not _NETLOC.fullmatch(parts.netloc):
        raise RefusedError("has no usable host and port", "write http://host:port, with a port from 1 to 65535")
    host = _host(parts.hostname or "")
    if not _PATH.fullmatch(parts.path) or any(part in (".", "..") for part in parts.path.split("/")):
        raise RefusedError("has a path that is not plain", "write it without escapes, dots or doubled slashes")
    named = f"[{host}]" if ":" in host else host
    suffix = "" if port is None else f":{port}"
    return f"{parts.scheme}://{named}{suffix}{parts.path.rstrip('/')}"


def host_of(url: str) -> str:
    """Return the host of a URL that ``backend_url`` made: a lower-case name or a bare address."""
    return urlsplit(url).hostname or ""


def _refuse_extras(text: str, parts: SplitResult) -> None:
    if parts.scheme not in ("http", "https"):
        raise RefusedError("is not an http or https URL", "start it with http:// or https://")
    if "@" in parts.netloc:
        raise RefusedError("holds a user name or password", "remove it; a key belongs into api_key")
    if "?" in text or "#" in text:
        raise RefusedError("has a query or fragment", "write only scheme, host, port and path")


def _host(host: str) -> str:
    """Return ``host`` when it is a plain name or an address written plainly."""
    if ":" in host or _NUMERIC.fullmatch(host.rpartition(".")[2]):
        try:
            address = ip_address(host)
        except ValueError:
            address = None
        if address is None or "%" in host:
            raise RefusedError(
                "spells an address in a form that could hide where it leads",
                "write four decimal numbers, such as 10.0.0.11, or plain IPv6 in brackets",
            )
        return str(address)
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise RefusedError("has no usable host name", "write http://host:port; letters, digits, dots, hyphens")
    return host


def _carried(address: Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 transition address leads to."""
    if isinstance(address, IPv4Address):
        return None
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None
