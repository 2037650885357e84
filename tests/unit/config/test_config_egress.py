"""Backends live where the owner allows it, and never at a metadata service, however the address is written."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.egress import METADATA_ADDRESSES, Egress, backend_url, host_of, networks
from gateway.config.problem import RefusedError

EVERYTHING = Egress((ip_network("0.0.0.0/0"), ip_network("::/0")))
NOTHING = Egress()
MAPPED = str(ip_address("::ffff:10.0.0.1"))  # which versions of Python write in two ways


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::1"])
def test_public_addresses_are_free(address: str) -> None:
    """A public address needs no permission."""
    NOTHING.admit(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "172.16.3.4", "192.168.1.1", "127.0.0.1", "127.8.8.8", "169.254.1.1", "100.64.0.1", "198.18.0.1",
        "240.0.0.1", "255.255.255.255", "::1", "fe80::1", "fd00::1", "fec0::1", "::ffff:10.0.0.1", "2002:a00:1::1",
        "64:ff9b::a00:1", "::10.0.0.1",
    ],
)  # fmt: skip
def test_special_addresses_need_permission(address: str) -> None:
    """Private, loopback, link-local and reserved ranges, also inside IPv6, are refused unless they are listed."""
    with pytest.raises(RefusedError) as caught:
        NOTHING.admit(ip_address(address))
    assert "to egress.allow" in caught.value.mend
    EVERYTHING.admit(ip_address(address))


def test_permission_covers_its_network_only() -> None:
    """A listed network admits its addresses and no others."""
    egress = Egress((ip_network("10.1.0.0/16"),))
    egress.admit(ip_address("10.1.2.3"))
    egress.admit(ip_address("::ffff:10.1.2.3"))
    for outside in ("10.2.0.1", "127.0.0.1", "::1"):
        with pytest.raises(RefusedError):
            egress.admit(ip_address(outside))


@pytest.mark.parametrize("address", sorted(map(str, METADATA_ADDRESSES)))
def test_metadata_addresses_are_never_admitted(address: str) -> None:
    """No permission reaches a cloud's metadata service, also not through an IPv6 form of its address."""
    plain = ip_address(address)
    forms = [plain]
    if plain.version == 4:
        number = int(plain)
        forms += [ip_address(f"::ffff:{plain}"), ip_address((0x64FF9B << 96) | number)]
        forms += [ip_address((0x2002 << 112) | (number << 80) | 1), ip_address(f"::{plain}")]
    for form in forms:
        with pytest.raises(RefusedError, match="metadata"):
            EVERYTHING.admit(form)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:0.0.0.0"])
def test_addresses_of_no_single_host(address: str) -> None:
    """Unspecified and multicast addresses are no backend's."""
    with pytest.raises(RefusedError, match="not the address of one host"):
        EVERYTHING.admit(ip_address(address))


@pytest.mark.parametrize("host", ["metadata.google.internal", "metadata", "instance-data"])
def test_metadata_names_are_never_admitted(host: str) -> None:
    """The well-known names of metadata services are refused before they are looked up."""
    with pytest.raises(RefusedError, match="metadata"):
        EVERYTHING.admit_host(host)


def test_localhost_is_loopback() -> None:
    """The name of this host needs the same permission as its address; other names are judged when they resolve."""
    for host in ("localhost", "gpu.localhost"):
        with pytest.raises(RefusedError, match="this host itself"):
            NOTHING.admit_host(host)
        Egress((ip_network("127.0.0.0/8"),)).admit_host(host)
        Egress((ip_network("::1/128"),)).admit_host(host)
    NOTHING.admit_host("gpu-1.cluster.internal")


@pytest.mark.parametrize(
    ("text", "url", "host"),
    [
        ("http://10.0.0.11:8000", "http://10.0.0.11:8000", "10.0.0.11"),
        ("HTTP://GPU-1.Example.COM/", "http://gpu-1.example.com", "gpu-1.example.com"),
        ("https://host/compatible-mode/v1/", "https://host/compatible-mode/v1", "host"),
        ("http://vllm_1:8000", "http://vllm_1:8000", "vllm_1"),
        ("http://[FD00:0:0::1]:80/x", "http://[fd00::1]:80/x", "fd00::1"),
        ("https://api.example.com:443", "https://api.example.com:443", "api.example.com"),
        ("http://[::ffff:10.0.0.1]", f"http://[{MAPPED}]", MAPPED),
    ],
)
def test_urls_get_one_form(text: str, url: str, host: str) -> None:
    """Scheme and host are lowered, the slash at the end goes, and the form is stable."""
    assert backend_url(text) == url
    assert backend_url(url) == url
    assert host_of(url) == host


@pytest.mark.parametrize(
    "text",
    [
        "", "host", "host:8000", "ftp://host", "file:///etc/passwd", "//host", "http://", "http:///x", "http://:80",
        "http://user@host", "http://user:pw@host", "http://@host", "http://host?x=1", "http://host?", "http://host#f",
        "http://host/#", "http://host:0", "http://host:65536", "http://host:x", "http://host:", "http://host:+80",
        "http://2130706433", "http://0x7f000001", "http://127.1", "http://0177.0.0.1", "http://0x7f.0.0.1",
        "http://127.0.0.01", "http://1.2.3.4.5", "http://999.1.1.1", "http://host.", "http://127.0.0.1.",
        "http://[::1", "http://::1", "http://[fe80::1%25eth0]", "http://[fe80::1%eth0]", "http://[::1]x:80",
        "http://[v1.x]", "http://hö.st", "http://ⓛocalhost", "http://host\\@evil", "http://ho st", "http://host\t",
        "http://host\n.evil", "http://-host", "http://host/..", "http://host/a/../b", "http://host/%2e%2e", "http://h//x",
        "http://a..b", "http://" + "a" * 64, "http://" + ".".join(["a" * 60] * 5), "${URL}",
    ],
)  # fmt: skip
def test_urls_that_hide_something_are_refused(text: str) -> None:
    """Other schemes, credentials, queries, disguised addresses and odd characters are refused with a mend."""
    with pytest.raises(RefusedError) as caught:
        backend_url(text)
    assert caught.value.mend


@settings(deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"https?://[0-9a-fx.:\[\]@%]{0,25}(/.*)?", fullmatch=True))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """No text makes the parser raise anything else, and what is accepted is stable and admits or refuses."""
    try:
        url = backend_url(text)
    except RefusedError:
        return
    assert backend_url(url) == url
    with suppress(RefusedError):
        NOTHING.admit_host(host_of(url))


def test_equal_rules_are_equal_values() -> None:
    """The order and the overlap of listed networks do not matter."""
    one = networks((ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("10.1.0.0/16")))
    two = networks((ip_network("fd00::/8"), ip_network("10.0.0.0/8")))
    assert one == two
