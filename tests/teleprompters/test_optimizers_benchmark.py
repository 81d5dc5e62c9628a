"""What `benchmarks/optimizers.py` counts and prints, without a model."""

import http.client
import importlib.util
import json
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        patch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(name="upstream")
def an_upstream():
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = asked.get("status", 200)
            said = {"path": self.path, "usage": {"prompt_tokens": 7, "completion_tokens": 2}} if status == 200 else {}
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


def asked(url, **body):
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), {"Connection": "close"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None


def test_requests_are_counted_under_the_name_they_were_asked_by(upstream):
    proxy = loaded("counting_proxy")
    with proxy.CountingProxy(upstream) as counting:
        assert asked(counting.url("one"))[1]["path"] == "/v1/chat/completions"
        asked(counting.url("one"))
        asked(counting.url("other"))
    assert vars(counting.counts["one"]) == {"requests": 2, "refused": 0, "input_tokens": 14, "output_tokens": 4}
    assert counting.counts["other"].requests == 1


def test_what_the_server_refuses_is_passed_on_and_counted_as_refused(upstream):
    proxy = loaded("counting_proxy")
    with proxy.CountingProxy(upstream) as counting:
        assert asked(counting.url("one"), status=503)[0] == 503
    assert vars(counting.counts["one"]) == {"requests": 1, "refused": 1, "input_tokens": 0, "output_tokens": 0}


def test_a_stream_would_tell_no_usage_and_is_refused(upstream):
    proxy = loaded("counting_proxy")
    with proxy.CountingProxy(upstream) as counting:
        assert asked(counting.url("one"), stream=True)[0] == http.client.BAD_REQUEST
    assert counting.counts["one"].requests == 0


def test_a_server_that_is_not_there_is_a_bad_gateway():
    proxy = loaded("counting_proxy")
    with proxy.CountingProxy("http://127.0.0.1:1/v1") as counting:
        assert asked(counting.url("one"))[0] == http.client.BAD_GATEWAY
    assert counting.counts["one"].refused == 1


def line(optimizer, seed, score, **more):
    counted = {"requests": 10, "input_tokens": 2000, "output_tokens": 30, "seconds": 1.5}
    return {
        "side": "otpy",
        "version": "1",
        "adapter": "json",
        "optimizer": optimizer,
        "seed": seed,
        "score": score,
        **counted,
        **more,
    }


def rows(table):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


def test_the_table_has_medians_and_each_seed_in_order():
    table = loaded("optimizers").table
    found = rows(table([line("MIPROv2", 1, 0.7), line("MIPROv2", 0, 0.6), line("MIPROv2", 2, 0.8, requests=40)]))
    assert found == [["MIPROv2", "otpy, json", "70.0 %", "60.0, 70.0, 80.0", "—", "10", "2,000", "30", "2"]]


def test_the_bar_is_that_of_the_same_library_with_the_same_seeds():
    table = loaded("optimizers").table
    lines = [line("BootstrapFewShot", 0, 0.65), line("BootstrapFewShot", 1, 0.9), line("GEPA", 0, 0.65)]
    lines += [line("MIPROv2", 0, 0.7), line("MIPROv2", 1, 0.8)]
    lines += [line("BootstrapFewShot", 0, 0.5, side="DSPy"), line("MIPROv2", 0, 0.64, side="DSPy")]
    assert [row[4] for row in rows(table(lines))] == ["—", "—", "yes, 1 of 1", "no, 1 of 2", "yes, 1 of 1"]


def test_a_run_that_failed_is_in_the_table_and_counts_for_no_score():
    table = loaded("optimizers").table
    lost = {"side": "DSPy", "adapter": "json", "optimizer": "GEPA", "seed": 1, "error": "it broke"}
    assert rows(table([lost]))[0][2:4] == ["failed", "failed"]
    both = rows(table([lost, line("GEPA", 0, 0.5, side="DSPy")]))
    assert both[0][2:4] == ["50.0 %", "50.0, failed"]


def test_runs_of_different_sizes_are_not_put_beside_each_other():
    table = loaded("optimizers").table
    with pytest.raises(SystemExit, match="different sizes"):
        table([line("GEPA", 0, 0.5, sizes={"labeled": 8}), line("GEPA", 1, 0.5, sizes={"labeled": 16})])
