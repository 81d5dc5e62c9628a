"""Which addresses a provider or a server may be told to fetch: public ones, unless somebody allows others. Pure.

Nothing is looked up: a public name that leads to a private address is for a resolver to refuse. What the text itself
gives away is refused here, in every spelling that URL parsers know: decimal, octal and hexadecimal IPv4, IPv4 inside of
IPv6, full-width digits, names of the machine itself, a user before the host.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Final
from urllib.parse import urlsplit

__all__ = ["refused"]

_HIDDEN: Final = re.compile(r"[\x00-\x20\x7f\\]")
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")
_PRIVATE_NAMES: Final = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "arpa", "onion", "test")
_NAT64: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


def refused(url: str, *, allow_private: bool = False) -> str:
    """Return why an address is refused, in words; nothing if it is not.

    Args:
        url: The address.
        allow_private: Whether the machine itself and private networks may be named.

    Example:
        >>> from otpy.types.addresses import refused
        >>> refused("https://example.org/cat.png")
        ''
        >>> refused("http://2130706433/")
        'http://2130706433/ is a private address (127.0.0.1)'
    """
    shown = url if len(url) <= 80 else url[:80] + "…"
    if _HIDDEN.search(url):
        return f"{shown!r} is no https:// address: it has spaces, backslashes or control characters"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"{shown} is no https:// address: {error}"
    if parts.scheme not in {"http", "https"} or not host:
        return f"{shown!r} is no https:// address"
    if "@" in parts.netloc:
        return "an address with a user or a password before its host is refused"
    return "" if allow_private else _private(host, shown)


def _private(host: str, shown: str) -> str:
    name = unicodedata.normalize("NFKC", host).lower().rstrip(".")
    name = re.sub("[。｡]", ".", name).rstrip(".")
    if "%" in name:
        return f"{shown} is refused: its host has a % in it"
    address = _address(name)
    if address is not None:
        inner = _inner(address)
        open_to_all = address.is_global and inner.is_global and not (address.is_multicast or inner.is_multicast)
        return "" if open_to_all else f"{shown} is a private address ({inner})"
    labels = name.split(".")
    if len(labels) == 1 or labels[-1] in _PRIVATE_NAMES:
        return f"{shown} is a private address: {name!r} is a name of this machine or network"
    if _NUMBER.fullmatch(labels[-1]):
        return f"{shown} is no https:// address: {name!r} is neither a name nor an IP address"
    return ""


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host is, read as a resolver's `inet_aton` would."""
    if ":" in name:
        try:
            return ipaddress.IPv6Address(name)
        except ValueError:
            return ipaddress.IPv6Address("::")  # unreadable, so it is not let through
    numbers = name.split(".")
    if len(numbers) > 4 or not all(_NUMBER.fullmatch(number) for number in numbers):
        return None
    try:
        *first, last = (_integer(number) for number in numbers)
    except ValueError:
        return None
    if any(byte > 255 for byte in first) or last >= 256 ** (4 - len(first)):
        return None
    return ipaddress.IPv4Address(sum(byte << (24 - 8 * place) for place, byte in enumerate(first)) + last)


def _integer(number: str) -> int:
    if number.startswith("0x"):
        return int(number[2:] or "0", 16)
    return int(number, 8) if number.startswith("0") else int(number)


def _inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if any(address in net for net in _NAT64) or int(address) >> 32 == 0:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
