# ruff: noqa: E501 - a snippet reads better in one line
"""Code that wants to get out, or to take more than it is given: every engine refuses it or contains it.

Each snippet is run with canaries around it: a secret in a file and in the environment, a file that does not exist, a
server that counts who connects, the process id of the host. Afterwards no canary has been touched, and the pool still
serves.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SECRET = "otpy-canary-5b1f0d"
ESCAPES = {
    # files
    "reads a file": "open(secret_path).read()",
    "reads a file by pathlib": "from pathlib import Path\nPath(secret_path).read_text()",
    "reads a file by os": "import os\nos.read(os.open(secret_path, os.O_RDONLY), 100)",
    "reads a file by io": "import io\nio.open(secret_path).read()",
    "reads a file by a loader": "import linecache\nlinecache.getlines(secret_path)",
    "reads a file by runpy": "import importlib.util\nimportlib.util.spec_from_file_location('x', secret_path).loader.get_data(secret_path)",
    "writes a file": "open(target, 'w').write('x')",
    "appends to the secret": "open(secret_path, 'a').write('changed')",
    "writes a file by os": "import os\nos.write(os.open(target, os.O_CREAT | os.O_WRONLY), b'x')",
    "removes a file": "import os\nos.remove(secret_path)",
    "links to a file": "import os\nos.chdir('/tmp')\nos.symlink(secret_path, 'l')\nopen('l').read()",
    "links hard to a file": "import os\nos.link(secret_path, '/tmp/hard')\nopen('/tmp/hard').read()",
    "climbs out of its directory": "open('../../../../../../../..' + secret_path).read()",
    "mounts": "import ctypes\nctypes.CDLL(None).mount(b'/', b'/tmp', None, 4096, None) == 0 and 'ESCAPED'",
    "makes a device": "import os, stat\nos.mknod('/tmp/sda', stat.S_IFBLK | 0o600, os.makedev(8, 0)) is None and 'ESCAPED'",
    "reads a device": "open('/dev/mem', 'rb').read(1) and 'ESCAPED'",
    "reads a disk": "open('/dev/vda', 'rb').read(1) and 'ESCAPED'",
    "types into a terminal": "import fcntl, termios\nfcntl.ioctl(open('/dev/tty'), termios.TIOCSTI, 'x') == 0 and 'ESCAPED'",
    "changes its root": "import os\nos.chroot('/tmp') is None and 'ESCAPED'",
    # processes
    "runs a shell": "import os\nos.system(f'echo x > {target}') == 0 and 'ESCAPED'",
    "runs a program": "import subprocess\nsubprocess.run(['cat', secret_path], capture_output=True).stdout",
    "opens a pipe to a program": "import os\nos.popen(f'cat {secret_path}').read()",
    "becomes a program": "import os, sys\nos.execv('/bin/sh', ['sh', '-c', f'cat {secret_path}'])",
    "spawns a program": "import os, sys\nos.posix_spawn(sys.executable, [sys.executable, '-c', '1'], {}) and 'ESCAPED'",
    "forks": "import os\nos.fork() >= 0 and 'ESCAPED'",
    "is a fork bomb": "import os\nwhile True:\n    os.fork()",
    "forks by the C library": "import ctypes\nctypes.CDLL(None).fork() > 0 and 'ESCAPED'",
    "uses multiprocessing": "import multiprocessing\np = multiprocessing.Process(target=print)\np.start()\n'ESCAPED'",
    "is a thread bomb": "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(60,)).start()",
    "kills the host": "import os, signal\nos.kill(pid, signal.SIGKILL)",
    "kills everybody": "import os\nos.kill(-1, 9)",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "traces the host": "import ctypes\nctypes.CDLL(None).ptrace(16, pid, 0, 0) == 0 and 'ESCAPED'",
    # the network
    "connects": "import socket\nsocket.create_connection(('127.0.0.1', port), 1)",
    "connects to a local socket": "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect(unix_path)",
    "fetches a page": "import urllib.request\nurllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=1).read()",
    "listens": "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\n'ESCAPED'",
    "fetches by JavaScript": "import js\njs.fetch(f'http://127.0.0.1:{port}/')",
    # what it can see
    "reads the environment": "import os\ndict(os.environ)",
    "reads the host's environment": "open(f'/proc/{pid}/environ').read()",
    "reads its parent's environment": "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
    "reads the host's memory": "open(f'/proc/{pid}/mem', 'rb').read(1) and 'ESCAPED'",
    "goes through the host's root": "open(f'/proc/{pid}/root{secret_path}').read()",
    "reads its descriptors": "import os\n[os.pread(n, 100, 0) for n in range(3, 50) if os.fstat(n)]",
    "reads the passwords": "open('/etc/shadow').read() and 'ESCAPED'",
    "lists directories": "import os\n'secret' in os.listdir(os.path.dirname(secret_path)) and 'ESCAPED'",
    # Python's back doors
    "walks subclasses": (
        "found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen']\n"
        "found[0](['cat', secret_path])"
    ),
    "walks to the builtins": "(lambda: 0).__globals__['__builtins__'].__import__('os').system(f'echo > {target}')",
    "imports by another door": "__import__('os').open(secret_path, 0)",
    "imports by importlib": "import importlib\nimportlib.import_module('subprocess').check_output(['cat', secret_path])",
    "calls eval": "eval(\"__import__('os').popen('cat ' + secret_path).read()\")",
    "makes code objects": (
        "def f(): pass\n"
        "f.__code__ = f.__code__.replace(co_code=b'\\x64\\xff' * 8)\nf()"
    ),
    "reads frames": "import sys\nsys._getframe(2).f_globals.keys() and open(secret_path).read()",
    "loads a library": "import ctypes\nctypes.CDLL('libc.so.6').system(b'id') == 0 and 'ESCAPED'",
    "unpickles": "import pickle\npickle.loads(b\"cos\\nsystem\\n(S'id > ' + target\\ntR.\")",
    "reads a null pointer": "import ctypes\nctypes.string_at(0)",
    # too much of everything
    "never ends": "while True:\n    pass",
    "never ends and listens to nothing": "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
    "sleeps": "import time\ntime.sleep(3600)",
    "hoards memory": "x = []\nwhile True:\n    x.append('x' * 1_000_000)",
    "hoards memory at once": "x = 'x' * 10**11",
    "hoards memory in numbers": "x = 10 ** 10 ** 10",
    "hoards memory in files": "n = 0\nwhile True:\n    n += 1\n    open(f'/tmp/{n}', 'wb').write(b'x' * 10**7)",
    "hoards memory in nameless files": "import os\nfor n in range(1000):\n    os.write(os.memfd_create(str(n)), b'x' * 10**7)\n'ESCAPED'",
    "recurses": "def f(): return f()\nf()",
    "recurses past its limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "nests too deep": "eval('(' * 10_000 + ')' * 10_000)",
    "prints without end": "while True:\n    print('x' * 10_000)",
    "prints one long line": "print('x' * 50_000_000)",
    "answers without end": "'x' * 50_000_000",
    "answers with a ring": "x = []\nx.append(x)\nx",
    # the protocol
    "writes to the host's pipe": "import os\nfor n in range(3, 20):\n    try:\n        os.write(n, b'nonsense\\n')\n    except OSError:\n        pass",
    "floods the host's pipe": "import os\nwhile True:\n    for n in range(3, 20):\n        try:\n            os.write(n, b'x' * 4096 + b'\\n')\n        except OSError:\n            pass",
    "asks for a function that there is not": (
        "import os\nfor n in range(3, 20):\n    try:\n"
        "        os.write(n, b'{\"ask\": \"__import__\", \"args\": [\"os\"], \"kwargs\": {}, \"stdout\": \"\"}\\n')\n"
        "    except OSError:\n        pass"
    ),
    "replaces what reports": "import sys, json\njson.dumps = lambda *a, **k: 'nonsense'\n1",
    "leaves": "import sys\nsys.exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "aborts": "import os\nos.abort()",
}  # fmt: skip


@dataclass
class Canaries:
    inputs: dict
    connected: list

    def untouched(self) -> None:
        assert not Path(self.inputs["target"]).exists()
        assert Path(self.inputs["secret_path"]).read_text() == SECRET
        assert self.connected == []


@pytest.fixture(scope="module")
def canaries(tmp_path_factory):
    directory = tmp_path_factory.mktemp("canaries")
    for part in (directory, *list(directory.parents)[:2]):
        part.chmod(0o755)
    (directory / "secret").write_text(SECRET)
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(directory / "socket"))
    server = socket.create_server(("127.0.0.1", 0))
    connected: list = []

    def watch(listening):
        try:
            while True:
                connected.append(listening.accept())
        except OSError:
            return

    unix.listen()
    threads = [threading.Thread(target=watch, args=(listening,), daemon=True) for listening in (unix, server)]
    for thread in threads:
        thread.start()
    inputs = {
        "secret_path": str(directory / "secret"),
        "target": str(directory / "target"),
        "unix_path": str(directory / "socket"),
        "port": server.getsockname()[1],
        "pid": os.getpid(),
    }
    os.environ["OTPY_CANARY"] = SECRET
    yield Canaries(inputs, connected)
    del os.environ["OTPY_CANARY"]
    for listening in (unix, server):
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
    for thread in threads:
        thread.join(5)


def test_there_are_enough_of_them():
    assert len(ESCAPES) >= 40


def contained(place, name, canaries, sandbox):
    """Run a snippet, and look after everything that it might have reached."""
    began = time.monotonic()
    escaped = place.node.run(sandbox.run(ESCAPES[name]))
    assert SECRET not in f"{escaped.value}{escaped.stdout}{escaped.error}"
    assert escaped.value != "ESCAPED"
    assert len(escaped.stdout) < 20_000
    canaries.untouched()
    assert time.monotonic() - began < 30


def still_serves(place, sandbox):
    after = place.node.run(sandbox.run("1 + 1"))
    if after.value != 2:  # the session may have been spoilt; nobody else's is
        assert after.error is not None
        assert place.run("1 + 1")[0].value == 2


@pytest.mark.parametrize("name", ESCAPES)
def test_code_stays_where_it_is(name, quick, canaries):
    sandbox = quick.sandbox(inputs=canaries.inputs)
    try:
        contained(quick, name, canaries, sandbox)
        still_serves(quick, sandbox)
    finally:
        quick.node.run(sandbox.__aexit__(None, None, None))


SPOILING = ("replaces what reports", "makes code objects")
"""What changes the interpreter itself: it is not to be the next one's."""
TOGETHER = [list(ESCAPES)[start::10] for start in range(10)]


@pytest.mark.parametrize("names", TOGETHER, ids=lambda names: names[0])
def test_code_stays_where_it_is_on_an_engine_that_is_slow_to_start(names, slow, canaries):
    sandbox = slow.sandbox(inputs=canaries.inputs)
    for name in names:
        contained(slow, name, canaries, sandbox)
        if name in SPOILING:
            sandbox._give_up()
    still_serves(slow, sandbox)
    slow.node.run(sandbox.__aexit__(None, None, None))
