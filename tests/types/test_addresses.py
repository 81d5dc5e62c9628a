"""Addresses that a provider may be told to fetch, and all the spellings of those it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.types.addresses import refused

PRIVATE = [
    "http://localhost/", "http://LOCALHOST/", "http://localhost./", "http://a.localhost/", "http://intranet/",
    "http://printer.local/", "http://db.internal/", "http://metadata.google.internal/", "http://127.0.0.1/",
    "http://127.0.0.1./", "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/",
    "http://0x7f.1/", "http://017700000001/", "http://0177.0.0.1/", "http://0/", "http://0.0.0.0/", "http://10.0.0.1/",
    "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/", "http://100.100.100.200/", "http://198.18.0.1/", "http://224.0.0.1/", "http://240.0.0.1/",
    "http://255.255.255.255/", "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fc00::1]/", "http://[fd00:ec2::254]/",
    "http://[ff02::1]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::169.254.169.254]/", "http://[2002:7f00:1::]/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "http://\uff11\uff12\uff17.0.0.1/", "http://127\u30020\u30020\u30021/",
    "http://localhost.localdomain/", "http://[fec0::1]/", "http://[::ffff:0:7f00:1]/",
    "http://127.0.0.\u00ad1/", "http://127.0.0.1\u200b/", "http://169.254.169.254\ufe0f/", "http://foo.local\u00adhost/",
    "http://10.0.0.1\u3164/", "http://10.\u206010.0.1/", "http://10.0.0.1\U000e0100/", "http://xn--localhost-/",
    "http://a.xn--localhost-/", "http://xn--/", "http://xn--0.com/", "http://a\u034f.example/",
    "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
]  # fmt: skip

BROKEN = [
    "", "x.png", "//example.org/x", "ftp://example.org", "file:///etc/passwd", "gopher://example.org", "http://",
    "http:///x", "https:example.org", "javascript:alert(1)", "http://example.org\\@127.0.0.1/", "http://exa mple.org/",
    "http://example.org/\n", "http://example.org\t/", "http://user@example.org/", "http://user:pass@example.org/",
    "http://example.org@127.0.0.1/", "http://127.0.0.1%2f.example.org/", "http://%31%32%37.0.0.1/", "http://[::1",
    "http://example.org:99999/", "http://1.2.3.4.5/", "http://256.0.0.1/", "http://0x/x", "http://1.2.3.999/",
    "http://089.0.0.1/",
]  # fmt: skip

PUBLIC = [
    "https://example.org/cat.png", "http://example.org:8080/?q=a@b", "https://93.184.216.34/x", "https://8.8.8.8/",
    "https://[2606:4700:4700::1111]/x", "https://bücher.example/x", "https://xn--bcher-kva.example/", "HTTPS://EXAMPLE.ORG/X",
    "https://उदाहरण.example/", "https://मराठी.example/", "https://a_b.example.org/",
    "https://local.example.org/", "https://10.example.org/", "https://127.0.0.1.example.org/",
]  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE)
def test_a_private_address_is_refused_unless_allowed(url):
    assert refused(url)
    if "%" not in url:
        assert refused(url, allow_private=True) == ""


@pytest.mark.parametrize("url", BROKEN)
def test_what_is_no_plain_address_is_refused(url):
    assert refused(url)


@pytest.mark.parametrize("url", PUBLIC)
def test_a_public_address_passes(url):
    assert refused(url) == ""


def test_a_password_in_an_address_is_not_repeated():
    assert "hunter2" not in refused("http://me:hunter2@example.org/")


@given(st.ip_addresses(v=4), st.sampled_from(["{0}", "0x{0:x}", "0{0:o}"]), st.integers(1, 4))
def test_every_spelling_of_an_ipv4_address_is_judged_as_the_address(address, spelling, count):
    number = int(address)
    first = [number >> shift & 255 for shift in (24, 16, 8)][: count - 1]
    parts = [*first, number & (256 ** (5 - count) - 1)]
    host = ".".join(spelling.format(part) if part or spelling == "{0}" else "0" for part in parts)
    assert (refused(f"http://{host}/") == "") == (address.is_global and not address.is_multicast)


@given(st.ip_addresses(v=4), st.characters(categories=["Cf", "Mn", "Lo", "Me", "Zs", "So"]), st.integers(0, 7))
def test_a_character_that_a_parser_may_drop_hides_no_address(address, character, at):
    import idna

    try:
        dropped = idna.uts46_remap(character, std3_rules=False) == ""
    except idna.IDNAError:
        dropped = False
    host = str(address)
    if dropped:
        assert refused(f"http://{host[:at]}{character}{host[at:]}/")


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_of_ipv6_is_judged_as_itself(address):
    allowed = address.is_global and not address.is_multicast
    for inside in (
        f"::ffff:{address}",
        f"64:ff9b::{address}",
        f"::{address}",
        f"2002:{int(address) >> 16:x}:{int(address) & 65535:x}::",
    ):
        assert allowed or refused(f"http://[{inside}]/")


@given(st.text(max_size=40))
def test_no_text_breaks_the_judgement(text):
    assert isinstance(refused(text), str)
    assert isinstance(refused(f"http://{text}/"), str)
