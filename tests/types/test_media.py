"""Images, sounds and files: what they are made of, what is refused, and that nothing is opened to find out."""

from __future__ import annotations

import base64
import builtins
import copy
import io
import json
import pathlib
import pickle
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from otpy.errors import SignatureError
from otpy.lm import Media
from otpy.signatures import InputField, OutputField, Signature
from otpy.types import Audio, File, Image
from otpy.types.magic import media_type_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
WAV = b"RIFF\x04\x00\x00\x00WAVEfmt "


@pytest.fixture
def sealed(monkeypatch):
    """No file and no connection can be opened."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"opened {args}")

    for place, name in ((builtins, "open"), (io, "open"), (pathlib.Path, "open"), (socket, "socket")):
        monkeypatch.setattr(place, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0....", "image/jpeg"),
        (b"GIF89a..", "image/gif"),
        (b"RIFF....WEBPVP8 ", "image/webp"),
        (b"BM......", "image/bmp"),
        (b"II*\x00....", "image/tiff"),
        (b"\x00\x00\x00\x1cftypavif", "image/avif"),
        (b"\x00\x00\x00\x1cftypheic", "image/heic"),
        (WAV, "audio/wav"),
        (b"ID3\x04....", "audio/mpeg"),
        (b"\xff\xfb\x90\x00", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "audio/aac"),
        (b"fLaC....", "audio/flac"),
        (b"OggS....", "audio/ogg"),
        (b"\x1aE\xdf\xa3....", "audio/webm"),
        (b"\x00\x00\x00\x1cftypM4A ", "audio/mp4"),
        (b"%PDF-1.7", "application/pdf"),
        (b"PK\x03\x04....", "application/zip"),
        (b"\xff\xfeh\x00i\x00", ""),  # a text in UTF-16
        (b"<html>", ""),
        (b"", ""),
        (b"\xff", ""),
    ],
)
def test_the_first_bytes_decide_what_bytes_are(start, kind):
    assert media_type_of(start) == kind


@given(st.binary(max_size=20))
def test_any_bytes_have_a_known_type_or_none(data):
    assert media_type_of(data) == "" or "/" in media_type_of(data)


def test_bytes_become_one_part_of_a_message():
    assert Image(PNG).parts() == (Media("image", "image/png", PNG),)
    assert Audio(WAV).parts() == (Media("audio", "audio/wav", WAV),)
    assert File(b"%PDF-1.7", name="a.pdf").parts() == (Media("file", "application/pdf", b"%PDF-1.7", name="a.pdf"),)


def test_an_address_is_handed_on_and_never_opened(sealed):
    assert Image("https://example.org/a/cat.JPG?x=1").parts() == (
        Media("image", "image/jpeg", url="https://example.org/a/cat.JPG?x=1"),
    )
    assert Image("https://example.org/cat", detail="low").parts() == (
        Media("image", "image/*", url="https://example.org/cat", detail="low"),
    )
    assert Image("https://example.org/cat", media_type="image/png").media_type == "image/png"


def test_a_data_url_is_read_and_its_bytes_decide_whatever_it_says():
    url = f"data:image/jpeg;base64,{base64.b64encode(PNG).decode()}"
    assert Image(url) == Image(PNG)
    assert File("data:,plain%20text").data == b"plain text"


def test_an_image_of_pillows_becomes_a_png():
    pillow = pytest.importorskip("PIL.Image")
    assert Image(pillow.new("RGB", (2, 2))).media_type == "image/png"


def test_an_array_becomes_a_wav():
    numpy = pytest.importorskip("numpy")
    sound = Audio.from_array(numpy.array([[0.0, 1.0], [-1.0, 2.0]]), 8000)
    assert sound.media_type == "audio/wav"
    assert sound.data is not None
    assert sound.data.endswith(b"\x00\x00\xff\x7f\x01\x80\xff\x7f")
    for wrong in (numpy.array([]), numpy.array(["a"]), [0.0]):
        with pytest.raises(SignatureError, match=r"Audio\.from_array: an array of floats or int16"):
            Audio.from_array(wrong, 8000)


def test_a_file_of_this_machine_is_read_only_when_that_is_said(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    assert Image.from_path(path) == Image(PNG) == Image.from_bytes(PNG)
    assert File.from_path(path, name="other.png").name == "other.png"
    (tmp_path / "notes.md").write_text("# hi")
    assert repr(File.from_path(tmp_path / "notes.md")) == "File(4 bytes, text/markdown, name='notes.md')"
    with pytest.raises(SignatureError, match="No such file"):
        Image.from_path(tmp_path / "none.png")


@pytest.mark.parametrize(
    "place", ["cat.png", "/etc/passwd", "file:///etc/passwd", "~/x.png", "C:\\cat.png", pathlib.Path("/etc/passwd")]
)
def test_a_path_is_never_opened_by_validation(sealed, place):
    reads = (Image, TypeAdapter(Image).validate_python, Signature("image: Image -> text").validate_inputs)
    for read in reads:
        value = {"image": place} if read is reads[2] else place
        with pytest.raises((SignatureError, ValidationError), match="https:// address"):
            read(value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"", "no bytes at all; allowed: 1 to 20,971,520 bytes"),
        (b"<html>", "these bytes are no image that is known: they begin with b'<html>'"),
        (WAV, "these bytes are no image that is known: they are audio/wav"),
        ("data:image/png;base64,%%%", "a data: URL whose base64 is broken"),
        ("data:image/png", "a data: URL without a comma, so without data"),
        ("data:image/png,<html>", "these bytes are no image that is known: they begin with b'<html>', not image/png"),
        ("ftp://example.org/x", "'ftp://example.org/x' is no https:// address"),
        (5, "int is no Image; allowed: bytes, an https:// address, a data: URL"),
        (pathlib.Path("x"), "a file is read by Image.from_path"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(source, said):
    with pytest.raises(SignatureError) as raised:
        Image(source)
    assert said in str(raised.value)


def test_what_is_too_large_is_refused_with_the_limit(tmp_path):
    class Small(Image):
        max_bytes = 10

    path = tmp_path / "big.png"
    path.write_bytes(PNG)
    for make in (lambda: Small(PNG), lambda: Small.from_path(path)):
        with pytest.raises(SignatureError, match="allowed: 1 to 10 bytes"):
            make()


def test_no_repr_and_no_error_shows_bytes():
    image = Image(PNG + b"SECRET")
    shown = [repr(image), str(image), repr([image]), repr(image.parts())]
    with pytest.raises(SignatureError) as raised:
        Signature("image: Image -> text").validate_inputs({"image": WAV + b"SECRET" * 9})
    assert not any("SECRET" in text for text in [*shown, str(raised.value)])


def test_a_private_address_needs_leave_and_no_data_gives_itself_leave():
    url = "http://127.0.0.1:8000/cat.png"
    assert Image(url, allow_private=True).url == Image.from_url(url, allow_private=True).url == url
    with pytest.raises(SignatureError, match=r"is a private address \(127\.0\.0\.1\); allow_private=True"):
        Image(url)
    for data in (
        url,
        {"url": url},
        {"url": url, "allow_private": True},
        {"url": url, "context": {"allow_private": True}},
    ):
        with pytest.raises(ValidationError):
            TypeAdapter(list[Image]).validate_python([data])
        with pytest.raises(ValidationError):
            TypeAdapter(list[Image]).validate_json(json.dumps([data]))


def test_a_provider_keeps_files_under_names():
    file = File.from_file_id("file-abc", name="terms.pdf")
    assert file.parts() == (Media("file", "application/octet-stream", url="file-abc", name="terms.pdf"),)
    assert TypeAdapter(File).validate_json(file.model_dump_json()) == file
    for wrong in ("", "http://127.0.0.1/"):
        with pytest.raises(SignatureError, match="file_id="):
            File.from_file_id(wrong)
    with pytest.raises(SignatureError, match="one of them"):
        File(b"x", file_id="y")


class Page(BaseModel):
    number: int
    scan: Image | None = None


class Read(Signature):
    """Read the pages."""

    cover: Image = InputField()
    pages: list[Page] = InputField()
    others: dict[str, Image] = InputField()
    text: str = OutputField()


@given(st.binary(max_size=30), st.sampled_from([None, "low", "high"]))
def test_media_survive_json_wherever_they_stand(body, detail):
    image = Image(PNG + body, detail=detail)
    values = {
        "cover": Image("https://example.org/x.png"),
        "pages": [Page(number=1, scan=image)],
        "others": {"a": image},
    }
    inputs = Read.validate_inputs(values)
    stored = json.loads(json.dumps(Read.dump_inputs(inputs) | {"text": "?"}))
    assert Read.read_json(stored) == {**inputs, "text": "?"}


@pytest.mark.parametrize(
    "value", [Image(PNG), Image("https://example.org/x"), Audio(WAV), File(b"hi", name="a.txt"), File.from_file_id("f")]
)
def test_media_are_values(value):
    for other in (
        copy.deepcopy(value),
        pickle.loads(pickle.dumps(value)),
        type(value).model_validate(value.model_dump()),
    ):
        assert other == value
        assert hash(other) == hash(value)
    with pytest.raises(ValidationError, match="frozen"):
        value.url = "https://example.org"
