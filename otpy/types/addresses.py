"""Which addresses a provider or a server may be told to fetch: public ones, unless somebody allows others. Pure.

Nothing is looked up: a public name that leads to a private address is for a resolver to refuse. What the text itself
gives away is refused here, in every spelling that URL parsers know: decimal, octal and hexadecimal IPv4, IPv4 inside of
IPv6, full-width digits, names of the machine itself, a user before the host. Code points that some parsers drop from a
host (UTS 46: soft hyphens, spaces without width, variation selectors) are in none that is let through.

Source: https://www.unicode.org/reports/tr46/, https://url.spec.whatwg.org/#host-parsing.
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
_PRIVATE_NAMES: Final = (
    "localhost", "localdomain", "localdomain4", "localdomain6", "local", "internal", "intranet", "lan", "home", "corp",
    "private", "arpa", "onion", "test",
)  # fmt: skip
_TRANSLATED: Final = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")))
"""Where the last 32 bits are an IPv4 address: NAT64 and SIIT."""
_DROPPED: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
"""Letters and marks that are shown as nothing (`Default_Ignorable_Code_Point`); the others are no letters anyway."""


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
    name = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", host).casefold())
    name = re.sub("[。｡]", ".", name).rstrip(".")
    if odd := _odd(name):
        return f"{shown!r} is refused: its host has {odd}"
    address = _address(name)
    if address is not None:
        inner = _inner(address)
        local = address.is_multicast or inner.is_multicast or getattr(address, "is_site_local", False)
        return "" if address.is_global and inner.is_global and not local else f"{shown} is a private address ({inner})"
    labels = name.split(".")
    if len(labels) == 1 or labels[-1] in _PRIVATE_NAMES:
        return f"{shown} is a private address: {name!r} is a name of this machine or network"
    if _NUMBER.fullmatch(labels[-1]):
        return f"{shown} is no https:// address: {name!r} is neither a name nor an IP address"
    return ""


def _odd(name: str) -> str:
    """What is in a host and belongs into none, in words; a label in Punycode is judged by what it stands for."""
    for label in name.split("."):
        written = label
        if label.startswith("xn--"):
            try:
                written = label[4:].encode("ascii").decode("punycode")
            except UnicodeError:
                written = ""
            if written.isascii():
                return f"{label!r} in it, which stands for no name"
        for character in written:
            known = character.isalnum() or character in "-_:" or unicodedata.category(character) in {"Mn", "Mc"}
            if not known or _DROPPED.match(character):
                return f"the character U+{ord(character):04X} in it"
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
    if any(address in net for net in _TRANSLATED) or int(address) >> 32 == 0:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1] or address
