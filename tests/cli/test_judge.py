"""`otpy judge`, as people use it: at a terminal, by a form, from a file; beside a run that lives or is dead."""

from __future__ import annotations

import contextlib
import html
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from otpy.cli.failures import Stopped
from otpy.cli.judge_bench import Bench
from otpy.cli.judge_form import Form, served
from otpy.cli.judge_shown import harmless
from otpy.cli.keys import Keys
from otpy.cli.main import main
from otpy.cli.screen import Screen
from otpy.errors import TeleprompterError
from otpy.teleprompters.judgements import Judgements
from otpy.teleprompters.questions import about_instruction, about_score, choices_of
from otpy.testing import LoopbackLM
from tests.cli.conftest import Ran
from tests.teleprompters.planted import RIGHT, needs

WORDS = ("saw", "axe", "fig")


def question(word, kind="tool", **more):
    more = {"choices": choices_of(None, None), "label": {"kind": RIGHT.get(word)}, **more}
    return about_score("Is it right?", inputs={"word": word}, outputs={"kind": kind}, **more)


@pytest.fixture
def queue(tmp_path):
    path = tmp_path / "queue.db"
    with Judgements(path, create=True) as questions:
        questions.ask([question(word) for word in WORDS])
    return path


@pytest.fixture
def file(queue):
    with Judgements(queue) as questions:
        yield questions


@pytest.fixture
def here(capsys, tmp_path, monkeypatch):
    """The command line in this process, which takes no time to start."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        status = main([str(each) for each in arguments])
        return Ran(status, *capsys.readouterr())

    return run


class TestTheCommand:
    """In a pipe, from a file, for programs."""

    def test_it_lists_what_waits_without_the_right_answers(self, here, queue):
        otpy = here
        ran = otpy("judge", queue, "--list")
        assert ran.status == 0, ran.err
        assert all(word in ran.out for word in WORDS)
        assert "3 waiting, 0 answered" in ran.out
        exported = otpy("judge", queue, "--json").json
        assert [one["shown"]["inputs"]["word"] for one in exported["pending"]] == list(WORDS)
        assert "label" not in exported["pending"][0]
        assert otpy("judge", queue, "--json", "--show-label").json["pending"][2]["label"] == {"kind": "fruit"}

    def test_answers_from_a_file_are_kept_once(self, here, queue, write, file):
        otpy = here
        keys = [one.key for one in file.pending()]
        lines = [{"key": keys[0], "choice": "yes", "feedback": "good"}, {"key": keys[1], "value": 0, "judge": "bob"}]
        write("answers.jsonl", "".join(json.dumps(line) + "\n" for line in lines) + "\n")
        ran = otpy("judge", queue, "--answers", "answers.jsonl", "--name", "anna", "--json")
        assert (ran.status, ran.json) == (0, {"kept": 2, "known": 0, "pending": 1})
        assert otpy("judge", queue, "--answers", "answers.jsonl", "--name", "anna", "--json").json["known"] == 2
        found = file.take(keys)
        assert [(v.judge, v.value, v.words) for (v,) in found.values()] == [("anna", 1.0, "good"), ("bob", 0.0, "")]

    @pytest.mark.parametrize("end", ["\u2028", "\u0085"])
    def test_other_ends_of_lines_in_a_text_are_part_of_it(self, here, queue, write, file, end):
        key = file.pending()[0].key
        line = {"key": key, "choice": "yes", "feedback": f"good{end}one"}
        write("answers.jsonl", json.dumps(line, ensure_ascii=False) + "\n")
        assert here("judge", queue, "--answers", "answers.jsonl").status == 0
        assert file.take([key])[key][0].words == f"good{end}one"

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{", "line 2: no JSON"),
            ("[]", "line 2: an object with a"),
            ('{"key": 3}', "line 2: an object with a"),
            ('{"key": "x", "choice": "yes"}', "no such question"),
            ('{"key": "KEY", "choice": "perhaps"}', "allowed: one of no (0), yes (1)"),
            ('{"key": "KEY", "choice": "yes", "judge": 3}', "judge=3"),
            ('{"key": "KEY", "choice": "yes", "judge": ""}', "judge=''"),
        ],
    )
    def test_a_wrong_line_is_named_and_nothing_is_kept(self, here, write, file, line, message):
        queue = file.path
        one, other, _ = (each.key for each in file.pending())
        write("answers.jsonl", json.dumps({"key": one, "choice": "yes"}) + "\n" + line.replace("KEY", other) + "\n")
        ran = here("judge", queue, "--answers", "answers.jsonl")
        assert ran.status == 2
        assert message in ran.err
        assert file.standing().pending == 3

    def test_without_a_terminal_it_names_the_other_ways(self, otpy, queue):
        ran = otpy("judge", queue)
        assert ran.status == 2
        assert "--answers FILE.jsonl" in ran.err

    @pytest.mark.parametrize("options", [("--list", "--web"), ("--port", "70000")])
    def test_options_that_do_not_fit_are_refused(self, here, queue, options):
        assert here("judge", queue, *options).status == 2

    def test_a_file_that_is_no_database_is_said_to_be_neither_a_run_nor_a_queue(self, here, tmp_path):
        (tmp_path / "rows.jsonl").write_text('{"word": "saw", "kind": "tool"}\n' * 20)
        ran = here("judge", tmp_path / "rows.jsonl", "--list")
        assert ran.status == 2
        assert "rows.jsonl is neither the journal of a run nor a queue" in ran.err

    def test_a_file_that_is_not_there_is_named(self, here, tmp_path):
        ran = here("judge", "nothing.db", "--list")
        assert ran.status == 2
        assert "no such file, and no run in .otpy/runs begins with 'nothing.db'" in ran.err
        assert not (tmp_path / "nothing.db").exists()


class TestATerminal:
    """One key for an answer."""

    def work(self, file, keys, line="", **how):
        pressed = iter(keys)

        def key():
            found = next(pressed)
            if found == "^C":
                raise KeyboardInterrupt
            return found

        bench = Bench(Screen(), file, "anna", key=key, line=lambda _: line, **how)
        bench.work()
        return bench

    def verdicts(self, file):
        found = file.take([question(word).key for word in WORDS])
        return [found[question(word).key][0].choice if question(word).key in found else None for word in WORDS]

    def test_a_key_is_an_answer(self, file, capsys):
        assert self.work(file, "110q").done == 3
        assert self.verdicts(file) == ["yes", "yes", "no"]
        said = capsys.readouterr().out
        assert "word: saw" in said
        assert "kind: tool" in said
        assert "fruit" not in said  # the right answer is nobody's business
        assert "3 answered, 0 left" in said

    def test_the_right_answer_is_shown_to_who_asks_for_it(self, file, capsys):
        self.work(file, "ssq", show_label=True)
        assert "fruit" in capsys.readouterr().out

    def test_what_is_skipped_comes_last_and_wrong_keys_do_nothing(self, file):
        self.work(file, "sx?110q")
        assert self.verdicts(file) == ["no", "yes", "yes"]

    def test_an_answer_may_be_taken_back_and_given_anew(self, file):
        assert self.work(file, "1u01q").done == 2
        assert self.verdicts(file) == ["no", "yes", None]

    def test_words_go_with_the_answer(self, file):
        self.work(file, "f0q", line=" Too sweet. ")
        ((verdict,),) = file.take([question("saw").key]).values()
        assert verdict.words == "Too sweet."

    def test_ctrl_c_keeps_what_was_answered_and_frees_what_was_looked_at(self, file):
        with pytest.raises(Stopped, match="1 answered, 2 left; what was answered is kept"):
            self.work(file, ["1", "^C"])
        assert self.verdicts(file) == ["yes", None, None]
        assert file.claim("bob").key == question("axe").key

    def test_who_comes_late_is_told_and_goes_on(self, file, capsys):
        pressed = iter("1q")

        def key():
            found = next(pressed)
            if found == "1":
                file.answer(question("saw").key, "bob", {"choice": "no"})
            return found

        Bench(Screen(), file, "anna", key=key).work()
        assert "bob answered this meanwhile" in capsys.readouterr().out
        assert self.verdicts(file) == ["no", None, None]

    def test_when_nothing_waits_any_key_looks_again(self, file):
        pressed = iter("111 1q")

        def key():
            found = next(pressed)
            if found == " ":
                file.ask([question("date")])
            return found

        bench = Bench(Screen(), file, "anna", key=key)
        bench.work()
        assert bench.done == 4

    def test_long_answers_are_cut_and_shown_whole_on_request(self, file, capsys, monkeypatch):
        shown = []
        monkeypatch.setattr("pydoc.pager", shown.append)
        file.ask([question("lime", "tool\n" * 500)])
        self.work(file, "111mq")
        assert "lines more: m shows all" in capsys.readouterr().out
        assert shown[0].count("tool") == 500

    def test_nothing_a_model_writes_moves_the_terminal(self, file, capsys):
        file.ask([question("lime", "\x1b[2J\x07\u202egnp")])
        self.work(file, "111q")
        said = capsys.readouterr().out
        assert "\\x1b[2J\\x07\\u202egnp" in said
        assert harmless("ok \U0001f469\u200d\U0001f373\n") == "ok \U0001f469\u200d\U0001f373\n"

    def test_an_instruction_is_approved_edited_vetoed_or_pinned(self, file, monkeypatch):
        script = file.path.parent / "editor.py"
        script.write_text("import sys; open(sys.argv[1], 'a').write(' Now.')")
        monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")
        texts = [f"Do {word}." for word in WORDS]
        self.work(file, "111q")
        file.ask([about_instruction("self", text, "Do.") for text in texts])
        self.work(file, "eavpq")
        keys = [about_instruction("self", text, "Do.").key for text in texts]
        found = [file.take([key])[key][0] for key in keys]
        assert [one.choice for one in found] == ["approve", "veto", "pin"]
        assert [one.words for one in found] == ["Do saw. Now.", "Do axe.", "Do fig."]


@pytest.mark.skipif(sys.platform == "win32", reason="its terminals are others")
class TestARealTerminal:
    """A process of its own at a terminal."""

    def at(self, queue, environment, keys):
        import pty

        ours, theirs = pty.openpty()
        command = [sys.executable, "-W", "error", "-m", "otpy", "judge", str(queue), "--name", "anna"]
        with subprocess.Popen(
            command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        ) as process:
            os.close(theirs)
            said = b""
            try:
                for key in keys:
                    seen = len(said)
                    while b"? help" not in said[seen:]:
                        said += os.read(ours, 4096)
                    os.write(ours, key)
                with contextlib.suppress(OSError):  # it is closed
                    while more := os.read(ours, 4096):
                        said += more
                return process.wait(10), said.decode()
            finally:
                os.close(ours)
                process.kill()  # a test that has failed does not wait for it

    def test_keys_are_read_one_by_one_and_ctrl_c_loses_nothing(self, queue, environment, file):
        status, said = self.at(queue, environment, [b"1", b"0", b"\x03"])
        assert status == 130
        assert "-> yes" in said
        assert "-> no" in said
        assert "2 answered, 1 left; what was answered is kept" in said
        assert set(file.take([question("saw").key, question("axe").key])) == {question("saw").key, question("axe").key}


@pytest.mark.skipif(sys.platform == "win32", reason="typer reads the keys there")
class TestKeys:
    """At a terminal that two ends of a pseudo-terminal are."""

    @pytest.fixture
    def ends(self):
        import pty

        ours, theirs = pty.openpty()
        yield ours, theirs
        os.close(ours)
        os.close(theirs)

    def test_those_pressed_before_anybody_waits_are_kept_and_arrows_are_one(self, ends):
        ours, theirs = ends
        with Keys(theirs).taken() as keys:
            os.write(ours, "1é\x03\x1b[1~".encode())
            assert [keys.key() for _ in range(4)] == ["1", "é", "\x03", "\x1b[1~"]

    def test_lines_are_read_whole_in_between_and_the_terminal_is_as_it_was_at_the_end(self, ends):
        import termios

        ours, theirs = ends
        before = termios.tcgetattr(theirs)
        with Keys(theirs).taken() as keys:
            assert termios.tcgetattr(theirs) != before
            with keys.plain():
                os.write(ours, b"too long\n")
                assert os.read(theirs, 100) == b"too long\n"
            os.write(ours, b"q")
            assert keys.key() == "q"
        assert termios.tcgetattr(theirs) == before


class TestTheForm:
    """In a browser on this machine, and nobody else's."""

    @pytest.fixture
    def form(self, queue):
        return Form(queue, "anna")

    @pytest.fixture
    def server(self, form):
        with served(form) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield server
            server.shutdown()
            thread.join()

    def ask(self, server, path, data=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        headers = {"Host": f"127.0.0.1:{server.server_port}", **headers}
        try:
            body = None if data is None else "&".join(f"{name}={value}" for name, value in data.items())
            connection.request("GET" if data is None else "POST", path, body, headers)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()

    def test_a_question_is_answered_and_the_next_one_comes(self, server, form, file):
        here = f"/{form.secret}/"
        _, page = self.ask(server, here)
        assert "Is it right?" in page
        assert ">saw</pre>" in page
        assert "3 left, 0 judged by anna" in page
        key = re.search(r'name="key" value="(\w+)"', page)[1]
        posted, _ = self.ask(server, here + "answer", {"key": key, "answer": "no", "words": "Too%0D%0Along"})
        assert (posted.status, posted.headers["location"]) == (303, here)
        _, page = self.ask(server, here)
        assert ">axe</pre>" in page
        self.ask(server, here + "answer", {"key": "", "act": "undo"})
        _, page = self.ask(server, here)
        assert ">saw</pre>" in page
        assert "taken back" in page
        self.ask(server, here + "answer", {"key": key, "answer": "no", "words": "Too%0D%0Along"})
        file.leave("anna")
        assert file.take([key])[key][0].words == "Too\nlong"

    def test_skipping_and_the_end(self, server, form, file):
        here = f"/{form.secret}/"
        one = file.pending()[0].key
        self.ask(server, here + "answer", {"key": one, "act": "skip"})
        assert ">axe</pre>" in self.ask(server, here)[1]
        for each in file.pending():
            self.ask(server, here + "answer", {"key": each.key, "answer": "yes", "words": ""})
        _, page = self.ask(server, here)
        assert "Nothing waits for you now" in page

    def test_a_wrong_answer_is_told_on_the_page(self, server, form, file):
        here, key = f"/{form.secret}/", file.pending()[0].key
        self.ask(server, here + "answer", {"key": key, "answer": "perhaps", "words": ""})
        assert "allowed: one of no (0), yes (1)" in self.ask(server, here)[1]
        assert file.standing().pending == 3

    def test_an_instruction_is_edited_in_the_form(self, server, form, file):
        for each in file.pending():
            file.answer(each.key, "bob", {"choice": "yes"})
        file.ask([about_instruction("self", "Do <b>it</b>.", "Do.")])
        here = f"/{form.secret}/"
        _, page = self.ask(server, here)
        assert "Do &lt;b&gt;it&lt;/b&gt;." in page
        key = file.pending()[0].key
        self.ask(server, here + "answer", {"key": key, "answer": "pin", "words": "Do+it+now."})
        file.leave("anna")
        ((verdict,),) = file.take([key]).values()
        assert (verdict.choice, verdict.words) == ("pin", "Do it now.")

    def test_what_a_model_writes_is_text_and_no_markup(self, server, form, file):
        evil = "</pre><script>alert(1)</script>\"'&"
        for each in file.pending():
            file.answer(each.key, "bob", {"choice": "yes"})
        file.ask([question(evil, evil, choices=choices_of(None, {'"><i>': 1, "skip": 0}), guidance=evil)])
        response, page = self.ask(server, f"/{form.secret}/")
        assert evil not in page
        assert html.escape(evil) in page
        assert '"><i>' not in page
        assert page.count("<script") == 1
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert re.search(r"script-src 'nonce-([^']+)'", policy)[1] in page
        key = file.pending()[0].key
        self.ask(server, f"/{form.secret}/answer", {"key": key, "answer": "skip", "words": ""})  # a label of that name
        file.leave("anna")
        assert file.take([key])[key][0].value == 0.0

    @pytest.mark.parametrize("path", ["/", "/answer", "/x/", "/SECRET", "/SECRET/other"])
    def test_who_does_not_know_the_secret_sees_nothing(self, server, form, path, file):
        path = path.replace("SECRET", form.secret)
        response, page = self.ask(server, path)
        assert response.status == 404
        assert form.secret not in page
        assert "saw" not in page
        key = file.pending()[0].key
        response, _ = self.ask(server, path, {"key": key, "answer": "yes"})
        assert response.status == 404
        assert file.standing().pending == 3

    @pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
    def test_another_page_cannot_post_even_if_it_knew(self, server, form, headers, file):
        key = file.pending()[0].key
        response, _ = self.ask(server, f"/{form.secret}/answer", {"key": key, "answer": "yes"}, **headers)
        assert response.status == 404
        assert file.standing().pending == 3

    @pytest.mark.parametrize("length", ["2000000", "-1", "x"])
    def test_an_endless_answer_is_not_read(self, server, form, length):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        with contextlib.closing(connection):
            connection.putrequest("POST", f"/{form.secret}/answer")
            connection.putheader("content-length", length)
            connection.endheaders()
            assert connection.getresponse().status == 413

    def test_a_file_that_is_gone_is_told(self, server, form, queue):
        queue.unlink()
        _, page = self.ask(server, f"/{form.secret}/")
        assert "there is no such file" in page

    def test_a_port_that_is_taken_is_named(self, server, queue):
        from otpy.cli.judge_form import serve

        with pytest.raises(TeleprompterError, match=f"port {server.server_port}"):
            serve(Screen(), queue, "anna", port=server.server_port, show_label=False)

    def test_the_command_prints_the_address_and_ctrl_c_ends_it_with_nothing_lost(self, queue, environment, file):
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "otpy",
            "judge",
            str(queue),
            "--web",
            "--name",
            "anna",
            "--json",
        ]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            url = json.loads(process.stdout.readline())["url"]
            port, secret = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/([\w-]+)/", url).groups()
            connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
            with contextlib.closing(connection):
                connection.request("POST", f"/{secret}/answer", f"key={file.pending()[0].key}&answer=yes&words=")
                assert connection.getresponse().status == 303
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        assert file.take([question("saw").key])


RUN = """
import sys
import otpy
from otpy.teleprompters.human import HumanMetric
from tests.teleprompters.planted import STUDENT, TRAIN, VAL

url, journal = sys.argv[1:]
client = {"model": "openai/x", "base_url": url, "api_key": "none"}
with otpy.start(settings={"clients": {"default": client}, "cache": {"enabled": False}}):
    optimizer = otpy.BootstrapFewShotWithRandomSearch(
        HumanMetric("Is it right?"), num_candidate_programs=2, max_bootstrapped_demos=2, max_labeled_demos=2,
        max_concurrency=2,
    )
    program = optimizer.compile(STUDENT, trainset=TRAIN, valset=VAL, journal=journal)
print(program.content_hash())
"""


class TestARun:
    """In a process of its own, which may be dead while people judge."""

    def judge_all(self, otpy, tmp_path, journal, asked):
        """Answer everything that waits, as the command line does, or by it."""
        with Judgements(journal) as questions:
            waiting = [one.to_dict() for one in questions.pending()]
            lines = []
            for one in waiting:
                asked[one["key"]] += 1
                right = RIGHT[one["shown"]["inputs"]["word"]] == one["shown"]["outputs"]["kind"]
                lines.append({"key": one["key"], "choice": "yes" if right else "no"})
            if otpy is None:
                questions.answer_all([(line["key"], "anna", line) for line in lines])
                return
        (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
        assert otpy("judge", journal, "--answers", tmp_path / "answers.jsonl", "--name", "anna").status == 0

    def waits(self, process, journal):
        """Until the run has come to where it needs a person, or is over."""
        last, since = -1, time.monotonic()
        while process.poll() is None:
            pending = 0
            with contextlib.suppress(TeleprompterError), Judgements(journal) as questions:
                pending = questions.standing().pending
            if pending != last:
                last, since = pending, time.monotonic()
            if pending and time.monotonic() - since > 0.3:
                return True
            time.sleep(0.02)
        return False

    def program(self, otpy, tmp_path, environment, name, kills):
        """Start a run, kill it as often while it waits, judge, and return its program and what was asked of whom."""
        journal, asked, bodies = tmp_path / name, Counter(), Counter()

        def script(body):
            bodies[json.dumps(body, sort_keys=True)] += 1
            return needs("apple")(body)

        def start():
            command = [sys.executable, "-W", "error", "-c", RUN, server.url, str(journal)]
            return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        with LoopbackLM(script) as server:
            process, left = start(), kills
            while self.waits(process, journal):
                dead = left > 0
                if dead:
                    left -= 1
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                self.judge_all(otpy if dead else None, tmp_path, journal, asked)
                if dead:
                    process = start()
            out, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
        assert not left
        return out, asked, bodies

    @pytest.mark.timeout(300)
    def test_killed_while_it_waits_and_judged_while_it_is_dead_it_ends_in_the_same_program(
        self, otpy, tmp_path, environment
    ):
        whole, asked, bodies = self.program(otpy, tmp_path, environment, "whole.run", 0)
        killed, again, sent = self.program(otpy, tmp_path, environment, "killed.run", 2)
        assert killed == whole
        assert again == asked
        assert set(again.values()) == {1}
        assert sent.keys() == bodies.keys()
        assert sent.total() - bodies.total() <= 2 * 2  # what was in flight as it was killed: two at most, each time
