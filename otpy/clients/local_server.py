"""The program that serves a local model: llama.cpp's OpenAI-compatible server, as an OS process of its own.

    python -m otpy.clients.local_server --model weights.gguf

It listens on a free loopback port and writes one line `{"url": …}` when it answers. It is made to run in a `Port`,
which ends it with the Python process that uses it, whatever ended that.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from typing import Any, Final

__all__ = ["POOLING", "command", "main"]

POOLING: Final = ("mean", "cls", "last")
"""How the vectors of a text's tokens become the text's: their mean, that of the first, that of the last."""


def command(  # noqa: PLR0913 - keyword-only facts
    weights: str,
    *,
    context: int,
    parallel: int,
    threads: int | None = None,
    pooling: str | None = None,
    adapter: str | None = None,
) -> list[str]:
    """Return the command that serves these weights.

    Args:
        weights: The `.gguf` file.
        context: Tokens a request may have, prompt and answer together.
        parallel: Requests worked on at the same time.
        threads: Threads to compute with; by default one a core.
        pooling: Of a model that makes vectors: how those of its tokens become one (`POOLING`). By default the model
            answers.
        adapter: The `.gguf` file of what it has learned besides, if anything.
    """
    arguments = ["--model", weights, "--context", str(context), "--parallel", str(parallel)]
    if threads is not None:
        arguments += ["--threads", str(threads)]
    if pooling is not None:
        arguments += ["--pooling", pooling]
    if adapter is not None:
        arguments += ["--adapter", adapter]
    return [sys.executable, "-m", "otpy.clients.local_server", *arguments]


def main(argv: list[str] | None = None) -> None:
    """Serve until told otherwise."""
    parser = argparse.ArgumentParser(prog="otpy.clients.local_server", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pooling", choices=POOLING)
    parser.add_argument("--adapter")
    arguments = parser.parse_args(argv)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # at once, a model half loaded included: there is nothing to save
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the library prints is no news
    server = _serve(arguments)
    print(json.dumps({"url": f"{server.listening_address}/v1"}), file=out, flush=True)
    threading.Event().wait()


def _serve(arguments: argparse.Namespace) -> Any:
    # Read when the library loads. Threads that spin while they wait for each other keep the cores from those they wait
    # for: beside another busy program, ten requests took 27 s, and 4.5 s with threads that sleep.
    os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")
    import xllamacpp  # noqa: PLC0415 - 100 MB, and only where this program runs

    library: Any = xllamacpp  # it has no types
    params = library.CommonParams()
    params.model.path = arguments.model
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    params.n_parallel = arguments.parallel
    params.n_ctx = arguments.context * arguments.parallel
    params.kv_unified = False
    params.fit_params = False  # the context that was asked for, or an error
    params.warmup = True
    params.use_jinja = True
    params.ui = False
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0
    params.verbosity = 1
    if arguments.pooling:
        params.embedding = True
        params.pooling_type = getattr(library.llama_pooling_type, f"LLAMA_POOLING_TYPE_{arguments.pooling.upper()}")
        params.n_batch = params.n_ubatch = params.n_ctx  # a text is read at once, or not at all
    if arguments.adapter:
        adapter = library.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = arguments.adapter, 1.0
        params.lora_adapters = [adapter]
    threads = arguments.threads or os.cpu_count() or 1
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = threads
        cpu.poll = 0  # spinning threads would take the cores from the Python process that asks
    params.n_threads_http = max(8, 2 * arguments.parallel)
    try:
        return library.Server(params)
    except RuntimeError as error:
        sys.exit(f"llama.cpp cannot serve {arguments.model} on port {arguments.port}: {error}")


if __name__ == "__main__":
    main()
