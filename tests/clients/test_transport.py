"""The one seam to the network: what it carries, which error each failure is, and what ends when it is let go."""

import asyncio
import contextlib
import gzip
import subprocess
import sys
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.clients.transport import Transport, never_sent, open_transport
from otpy.errors import LMConnectionError, LMError, LMResponseInvalid, LMStatusError, LMTimeout
from otpy.testing import LoopbackLM, Scripted

URL = "http://provider.example/v1/chat/completions"


def run(main):
    return asyncio.run(asyncio.wait_for(main, 20))


def mocked(handler, *, timeout=5.0, **parameters):
    return run(Transport(httpx.MockTransport(handler), **parameters).post(URL, (("x-a", "1"),), b"body", timeout))


async def post(url, *, headers=(), body=b"{}", timeout=5.0):  # noqa: ASYNC109 - it is the transport's
    transport = open_transport(url)
    try:
        return await transport.post(url, headers, body, timeout)
    finally:
        await transport.aclose()


@contextlib.asynccontextmanager
async def raw_server(connected):
    """A server that treats each connection as the function says; yields its URL and closes everything."""
    tasks = set()

    async def guarded(reader, writer):
        tasks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await connected(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answered_with(raw, **parameters):
    """Ask a server that answers every request with these bytes and hangs up."""

    async def connected(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    async def main():
        async with raw_server(connected) as url:
            return await post(url, **parameters)

    return run(main())


# -- any httpx transport fits -----------------------------------------------------------------------------------------


def test_a_request_is_carried_as_it_is_and_the_answer_comes_back_whole():
    def handler(request):
        assert (request.method, str(request.url), request.headers["x-a"]) == ("POST", URL, "1")
        return httpx.Response(418, headers={"X-Kind": "Teapot"}, content=request.content * 2)

    status, headers, body = mocked(handler)
    assert (status, headers["x-kind"], body) == (418, "Teapot", b"bodybody")


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (httpx.ConnectError("refused"), LMConnectionError),
        (httpx.ReadError("reset"), LMConnectionError),
        (httpx.RemoteProtocolError("garbled"), LMConnectionError),
        (httpx.ProxyError("no proxy"), LMConnectionError),
        (httpx.ConnectTimeout("slow"), LMTimeout),
        (httpx.ReadTimeout("slow"), LMTimeout),
        (httpx.PoolTimeout("full"), LMTimeout),
        (httpx.DecodingError("no gzip"), LMResponseInvalid),
    ],
)
def test_each_failure_of_a_transport_is_one_of_our_errors(raised, error):
    def handler(_):
        raise raised

    with pytest.raises(error, match=r"http://provider\.example.*" + str(raised)) as caught:
        mocked(handler)
    assert caught.value.retryable


def test_a_deadline_covers_the_whole_exchange():
    async def handler(_):
        await asyncio.Event().wait()

    with pytest.raises(LMTimeout, match=r"no answer from http://provider\.example within 0\.01 s"):
        mocked(handler, timeout=0.01)


def test_an_answer_that_is_too_long_is_refused_while_it_is_read():
    sent = []

    async def endless():
        while True:
            sent.append(1)
            yield b"x" * 1_000

    with pytest.raises(LMResponseInvalid, match="longer than 5000 bytes"):
        mocked(lambda _: httpx.Response(200, content=endless()), longest_answer=5_000)
    assert len(sent) == 6


def test_an_answer_of_just_the_allowed_length_is_not_too_long():
    assert mocked(lambda _: httpx.Response(200, content=b"x" * 10), longest_answer=10)[2] == b"x" * 10


def test_the_response_is_closed_however_it_ends():
    closed = []

    class Body(httpx.AsyncByteStream):
        async def __aiter__(self):
            yield b"part"
            raise httpx.ReadError("reset")

        async def aclose(self):
            closed.append(1)

    with pytest.raises(LMConnectionError):
        mocked(lambda _: httpx.Response(200, stream=Body()))
    assert closed == [1]


def test_an_address_of_no_shape_is_one_of_our_errors():
    with pytest.raises(LMConnectionError, match="base_url right"):
        run(Transport(httpx.MockTransport(lambda _: httpx.Response(200))).post("http://a\x00b/", (), b"", 1.0))


# -- over real sockets ------------------------------------------------------------------------------------------------


def test_a_loopback_server_is_asked_past_any_proxy(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with LoopbackLM() as server:
        status, _, body = run(post(server.url + "/chat/completions", headers=(("authorization", "Bearer k"),)))
    assert status == 200
    assert b"ok" in body
    assert server.headers[0]["authorization"] == "Bearer k"


def test_any_other_server_is_asked_through_the_proxy_of_the_environment(monkeypatch):
    with LoopbackLM() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert run(post("http://provider.invalid/v1"))[0] == 200
    assert proxy.headers[0]["host"] == "provider.invalid"


def test_one_connection_serves_one_request_after_the_other():
    connections = []

    async def connected(reader, writer):
        connections.append(1)
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            await writer.drain()

    async def main():
        async with raw_server(connected) as url:
            transport = open_transport(url)
            answers = [(await transport.post(url, (), b"{}", 5.0))[2] for _ in range(5)]
            await transport.aclose()
            return answers

    assert run(main()) == [b"ok"] * 5
    assert len(connections) == 1


def test_a_redirect_is_not_followed_and_the_key_stays_where_it_was_sent():
    with LoopbackLM() as elsewhere:
        redirect = Scripted(status=307, headers={"location": elsewhere.url})
        told = f"sends us to {elsewhere.url}; .*set base_url"
        with LoopbackLM(lambda _: redirect) as server, pytest.raises(LMStatusError, match=told) as raised:
            run(post(server.url, headers=(("authorization", "Bearer k"),)))
        assert (raised.value.status, raised.value.retryable) == (307, False)
        assert elsewhere.requests == []


def test_a_compressed_answer_is_read():
    body = gzip.compress(b"hello" * 100)
    raw = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    assert answered_with(raw)[2] == b"hello" * 100


def test_a_small_answer_that_unfolds_to_more_than_allowed_is_refused():
    bomb = gzip.compress(b"\0" * 70 * 2**20)
    raw = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb) + bomb
    with pytest.raises(LMResponseInvalid, match="longer than"):
        answered_with(raw)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", LMConnectionError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", LMConnectionError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", LMConnectionError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", LMConnectionError),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc", LMConnectionError),
    ],
)
def test_a_broken_answer_is_an_error_that_may_pass_and_names_the_server(raw, error):
    with pytest.raises(error, match=r"http://127\.0\.0\.1:\d+") as raised:
        answered_with(raw)
    assert raised.value.retryable


def test_a_refused_connection_says_so_and_names_the_next_step():
    with LoopbackLM() as server:
        pass
    with pytest.raises(LMConnectionError, match=r"(?i)connection refused.*base_url right") as raised:
        run(post(server.url))
    assert f"http://127.0.0.1:{server.port}" in str(raised.value)


def test_a_name_that_nobody_knows_says_so(monkeypatch):
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(LMConnectionError, match=r"no-such-host\.invalid.*(lookup|resolve)"):
        run(post("http://no-such-host.invalid/v1"))


def test_what_never_left_is_told_from_what_may_have_arrived():
    with LoopbackLM() as server:
        pass
    with pytest.raises(LMConnectionError) as refused:
        run(post(server.url))
    with pytest.raises(LMConnectionError) as unknown:
        run(post("http://no-such-host.invalid/v1"))
    with pytest.raises(LMConnectionError) as broken:
        answered_with(b"")
    with pytest.raises(LMTimeout) as late:
        mocked(lambda _: asyncio.sleep(60), timeout=0.01)
    assert [never_sent(error.value) for error in (refused, unknown, broken, late)] == [True, True, False, False]


def test_tls_with_a_server_that_speaks_none_says_so():
    async def connected(reader, writer):
        await reader.read(5)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async def main():
        async with raw_server(connected) as url:
            await post(url.replace("http:", "https:"))

    with pytest.raises(LMConnectionError, match=r"https://127\.0\.0\.1:\d+.*(corrupt message|tls|TLS)"):
        run(main())


@pytest.mark.parametrize(
    ("location", "there"),
    [
        ("/v2/x?key=sk-secret", "http://provider.example/v2/x;"),
        ("https://user:sk-secret@elsewhere.example:99/v2", "https://elsewhere.example:99/v2;"),
        ("http://[", "an address that is none;"),
        ("http://a:b:c/", "an address that is none;"),
        (None, "nowhere;"),
    ],
)
def test_a_redirect_is_told_without_what_may_be_secret_in_it(location, there):
    headers = {} if location is None else {"location": location}
    with pytest.raises(LMStatusError) as raised:
        mocked(lambda _: httpx.Response(308, headers=headers))
    assert f"sends us to {there}" in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("length", [str(65 * 2**20), "9" * 5_000])
def test_an_answer_that_says_it_is_too_long_is_refused_before_it_is_read(length):
    async def untouched():
        raise AssertionError("it was read")
        yield b""

    with pytest.raises(LMResponseInvalid, match=r"longer than .* base_url right"):
        mocked(lambda _: httpx.Response(200, headers={"content-length": length}, content=untouched()))


@given(st.binary(max_size=200))
def test_whatever_bytes_a_server_sends_it_is_an_answer_or_one_of_our_errors(raw):
    with contextlib.suppress(LMError):
        answered_with(raw, timeout=1.0)


# -- letting go -------------------------------------------------------------------------------------------------------


def held(let_go, *, timeout):
    """Send a request that is held, let it go, and return the seconds until the server sees the connection close."""

    async def main():
        arrived, gone = asyncio.Event(), asyncio.Event()

        async def connected(reader, _writer):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            arrived.set()
            await reader.read(1)
            gone.set()

        async with raw_server(connected) as url:
            transport = open_transport(url)
            asking = asyncio.ensure_future(transport.post(url, (), b"{}", timeout))
            await arrived.wait()
            began = time.monotonic()
            with contextlib.suppress(asyncio.CancelledError, LMTimeout):
                if let_go == "cancel":
                    asking.cancel()
                await asking
            returned = time.monotonic() - began
            await gone.wait()
            seen = time.monotonic() - began
            await transport.aclose()
            return returned, seen

    return run(main())


def test_cancelling_the_caller_closes_the_connection_at_once():
    returned, seen = held("cancel", timeout=60)
    assert returned < 0.25
    assert seen < returned + 0.5  # a millisecond, most often; the machine may be busy


def test_at_the_deadline_the_caller_and_the_connection_end():
    returned, seen = held("wait", timeout=0.2)
    assert 0.15 < returned < 1.5
    assert seen < 2.0


def test_a_cancelled_request_does_not_spoil_the_next():
    with LoopbackLM(lambda body: Scripted("ok", hold="slow" in body)) as server:

        async def main():
            transport = open_transport(server.url)
            asking = asyncio.ensure_future(transport.post(server.url, (), b'{"slow": 1}', 0.5))
            await asyncio.to_thread(server.wait_for, 1)
            asking.cancel()
            answers = [(await transport.post(server.url, (), b"{}", 5.0))[0] for _ in range(10)]
            await transport.aclose()
            return answers

        assert run(main()) == [200] * 10


def test_closing_twice_is_closing_once():
    closed = []

    class Inner(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            raise NotImplementedError

        async def aclose(self):
            closed.append(1)

    async def main():
        transport = Transport(Inner())
        await transport.aclose()
        await transport.aclose()

    run(main())
    assert closed == [1]


ENDS = """
import asyncio
from otpy.clients.transport import open_transport
from otpy.errors import LMConnectionError

async def main():
    async def connected(reader, writer):
        await reader.read(5)
        writer.write(b"no TLS here")
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    transport = open_transport(url)
    try:
        await transport.post(url, (), b"{}", 5.0)
    except LMConnectionError:
        print("failed")
    await transport.aclose()
    server.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("_time", range(3))
def test_a_process_that_ends_right_after_a_failed_request_ends_well(_time):
    """Without a moment for the threads of the library it aborts more often than not (Python 3.11)."""
    environ = {"PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", ENDS], env=environ, capture_output=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, b"failed"), ended.stderr


def test_a_get_carries_its_query_and_headers_and_no_body():
    seen = []

    def handler(request):
        seen.append((request.method, str(request.url), request.headers["x-a"], request.content))
        return httpx.Response(200, content=b"there")

    transport = Transport(httpx.MockTransport(handler))
    assert run(transport.get(f"{URL}?limit=1", (("x-a", "1"),), 5.0))[2] == b"there"
    assert seen == [("GET", f"{URL}?limit=1", "1", b"")]


def test_a_get_over_the_wire_arrives_as_one():
    heads = []

    async def answer(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()

    async def main():
        async with raw_server(answer) as url:
            transport = open_transport(url)
            try:
                return await transport.get(f"{url}/jobs?a=b%5B", (("x-a", "1"),), 5.0)
            finally:
                await transport.aclose()

    status, _, body = run(main())
    assert (status, body) == (200, b"ok")
    assert heads[0].startswith(b"GET /v1/jobs?a=b%5B HTTP/1.1\r\n")
    assert b"x-a: 1" in heads[0].lower()
