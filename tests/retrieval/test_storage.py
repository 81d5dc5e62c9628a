"""Indexes on disk: one file, written whole or not at all, read only if it is what was written."""

import asyncio
import io
import json
import os
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpy.errors import ConfigError, DatasetError
from otpy.retrieval import BM25, ENGLISH, Embeddings, FunctionEmbedder, Passage, Tokenizer, storage


def lengths(name="lengths"):
    return FunctionEmbedder(lambda texts: [[float(len(text)), 1.0] for text in texts], name)


passages = st.lists(
    st.builds(
        Passage, st.text(st.characters(), max_size=20), st.text(st.characters(), max_size=3),
        st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.lists(st.booleans()), max_size=2),
    ),
    max_size=6, unique_by=lambda passage: passage.id,
)  # fmt: skip


@given(passages, st.text("ab ", max_size=5))
def test_what_is_read_is_what_was_written(tmp_path_factory, rows, query):
    file = tmp_path_factory.mktemp("index") / "some.index"
    index = BM25(rows, k1=0.9, b=0.4, tokenizer=Tokenizer(ENGLISH))
    index.save(file)
    loaded = BM25.load(file)
    assert loaded == index
    assert loaded.passages == index.passages
    assert [(it, it.score) for it in loaded.top(query, 9)] == [(it, it.score) for it in index.top(query, 9)]
    assert loaded.add(["ab"]).top("ab", 9) == index.add(["ab"]).top("ab", 9)
    if rows:
        vectors = asyncio.run(Embeddings(rows, lengths()).embedded())
        vectors.save(file)
        assert Embeddings.load(file, lengths()) == vectors


def test_vectors_are_not_made_anew_when_they_are_read(tmp_path):
    asyncio.run(Embeddings(["a", "bb"], lengths()).embedded()).save(tmp_path / "v")
    asked = []
    loaded = Embeddings.load(
        tmp_path / "v", FunctionEmbedder(lambda texts: asked.append(texts) or [[2.0, 1.0]], "lengths")
    )
    (best,) = asyncio.run(loaded.search("xx", 1))
    assert best.text == "bb"
    assert asked == [["xx"]]


def test_an_index_without_passages_is_kept_too(tmp_path):
    BM25().save(tmp_path / "b")
    assert BM25.load(tmp_path / "b").top("a") == ()
    Embeddings([], lengths()).save(tmp_path / "v")
    loaded = Embeddings.load(tmp_path / "v", lengths())
    assert asyncio.run(loaded.add(["a"]).search("a"))[0].text == "a"


def test_what_is_not_embedded_yet_cannot_be_saved(tmp_path):
    with pytest.raises(ConfigError, match=r"is not embedded yet; `await index.embedded\(\)` before"):
        Embeddings(["a"], lengths()).save(tmp_path / "v")
    assert not list(tmp_path.iterdir())


def test_vectors_of_another_embedder_are_refused(tmp_path):
    asyncio.run(Embeddings(["a"], lengths()).embedded()).save(tmp_path / "v")
    with pytest.raises(ConfigError, match="has vectors of 'lengths', and the embedder is 'other'"):
        Embeddings.load(tmp_path / "v", lengths("other"))


def stem(word):
    return word[:3]


def test_a_stemmer_has_to_be_given_again(tmp_path):
    BM25(["walking"], tokenizer=Tokenizer(stemmer=stem)).save(tmp_path / "b")
    with pytest.raises(ConfigError, match=r"made with the stemmer stem; give tokenizer=Tokenizer\("):
        BM25.load(tmp_path / "b")
    with pytest.raises(ConfigError, match="made with another tokenizer"):
        BM25.load(tmp_path / "b", tokenizer=Tokenizer())
    assert BM25.load(tmp_path / "b", tokenizer=Tokenizer(stemmer=stem)).top("walks")


def test_the_same_index_is_the_same_file(tmp_path):
    for name in "ab":
        BM25(["x y", "y"]).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numpy_reads_the_arrays(tmp_path):
    np = pytest.importorskip("numpy")
    asyncio.run(Embeddings(["a", "bb"], lengths()).embedded()).save(tmp_path / "v")
    with zipfile.ZipFile(tmp_path / "v") as archive:
        array = np.load(io.BytesIO(archive.read("vectors.npy")), allow_pickle=False)
    assert array.dtype == np.float32
    assert array.reshape(2, 2)[1] == pytest.approx([2 / 5**0.5, 1 / 5**0.5])


def changed(file, name, change):
    with zipfile.ZipFile(file) as archive:
        parts = {each: archive.read(each) for each in archive.namelist()}
    parts[name] = change(parts[name])
    with zipfile.ZipFile(file, "w") as archive:
        for each, data in parts.items():
            if data is not None:
                archive.writestr(each, data)


@pytest.fixture
def saved(tmp_path):
    BM25(["a cat", "a dog"]).save(tmp_path / "b")
    return tmp_path / "b"


def test_every_byte_that_is_changed_is_noticed(saved):
    whole = saved.read_bytes()
    for at in range(0, len(whole), 37):
        saved.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            assert BM25.load(saved) == BM25(["a cat", "a dog"])  # bytes of the zip that mean nothing to us
        except DatasetError as error:
            assert str(saved) in str(error)


def test_half_a_file_is_refused(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 20, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match="is damaged, or no index of otpy"):
            BM25.load(saved)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("passages.json", lambda data: data.replace(b"cat", b"cow"), "does not match its hash"),
        ("places.npy", lambda data: data[:-4] + b"\xff\xff\xff\xff", "does not match its hash"),
        ("words.json", lambda _: None, "does not match its hash"),
        ("index.json", lambda data: data.replace(b'"k1": 1.2', b'"k1": 1.3'), "does not match its hash"),
        ("index.json", lambda data: data.replace(b'"format": 1', b'"format": 9'), "has format 9; .* reads format 1"),
        ("index.json", lambda _: b"[]", "is no index of otpy"),
        ("index.json", lambda _: b"{", "is no index of otpy"),
        ("index.json", lambda _: None, "is no index of otpy: KeyError"),
    ],
)
def test_a_file_that_was_edited_is_refused(saved, name, change, message):
    changed(saved, name, change)
    with pytest.raises(DatasetError, match=message):
        BM25.load(saved)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("places", lambda data: data[:-4] + b"\xff\xff\xff\xff"),
        ("ends", lambda data: data[:-8] + b"\x00" * 8),
        ("lengths", lambda data: data.replace(b"(2,)", b"(1,)")[:-4]),
    ],
)
def test_a_file_whose_parts_do_not_belong_together_is_refused_though_its_hash_be_right(saved, name, change):
    changed(saved, f"{name}.npy", change)
    rehashed(saved)
    with pytest.raises(DatasetError, match="its parts do not belong together"):
        BM25.load(saved)


def rehashed(file, **changes):
    """Give a file the hash that it has to have, as whoever forges one would."""
    with zipfile.ZipFile(file) as archive:
        parts = {each: archive.read(each) for each in archive.namelist()}
    head = {**json.loads(parts.pop("index.json")), **changes}
    del head["hash"]
    changed(file, "index.json", lambda _: json.dumps({**head, "hash": storage._hash(head, parts)}).encode())


def header(text):
    return lambda data: b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data[128:]


def words(value):
    return lambda _: json.dumps(value).encode()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("places.npy", header(b"((((")),
        ("places.npy", header(b"-" * 30_000 + b"1")),
        ("places.npy", lambda data: data.replace(b"<u4", b"|O ")),
        ("places.npy", lambda data: data.replace(b"<u4", b"<f4")),
        ("places.npy", lambda data: data[:128] + bytes(len(data) - 128)),
        ("lengths.npy", lambda data: data[:128] + bytes(len(data) - 128)),
        ("counts.npy", lambda data: data[:128] + bytes(len(data) - 128)),
        ("counts.npy", lambda _: None),
        ("words.json", lambda _: None),
        ("words.json", words(5)),
        ("words.json", words("abc")),
        ("words.json", words([1, 2, 3])),
        ("words.json", words([["a"], ["cat"], ["dog"]])),
        ("words.json", words(["a", "a", "dog"])),
        ("passages.json", words([["a cat", "same", {}], ["a dog", "same", {}]])),
    ],
)
def test_a_forged_file_is_refused_before_anything_is_done_with_it(saved, name, change):
    changed(saved, name, change)
    rehashed(saved)
    with pytest.raises(DatasetError):
        BM25.load(saved)


@pytest.mark.parametrize(
    "head",
    [
        {"k1": "x"}, {"k1": None}, {"k1": float("nan")}, {"b": 2}, {"b": True}, {"format": True}, {"tokenizer": 5},
        {"tokenizer": {}}, {"tokenizer": {"stop_words": [1], "stemmer": None}},
        {"tokenizer": {"stop_words": [], "stemmer": 5}},
    ],
)  # fmt: skip
def test_a_forged_parameter_is_refused(saved, head):
    rehashed(saved, **head)
    with pytest.raises(DatasetError):
        BM25.load(saved)


@pytest.mark.parametrize(
    ("change", "head"),
    [
        (lambda data: data[:-4] + b"\x00\x00\xc0\x7f", {}),
        (lambda data: data[:-4] + b"\xff\xff\x7f\x7f", {}),
        (lambda data: data.replace(b"<f4", b"<u4"), {}),
        (lambda _: None, {}),
        *((lambda data: data, head) for head in ({"width": 0}, {"width": "2"}, {"width": -2}, {"engine": "x"})),
        *((lambda data: data, head) for head in ({"engine": []}, {"embedder": None})),
    ],
)
def test_forged_vectors_are_refused(tmp_path, change, head):
    asyncio.run(Embeddings(["a", "bb"], lengths()).embedded()).save(tmp_path / "v")
    changed(tmp_path / "v", "vectors.npy", change)
    rehashed(tmp_path / "v", **head)
    with pytest.raises(DatasetError):
        Embeddings.load(tmp_path / "v", lengths())


def test_another_kind_of_index_is_refused(saved):
    with pytest.raises(DatasetError, match="is an index of the kind 'bm25', not 'embeddings'"):
        Embeddings.load(saved, lengths())


def test_a_compressed_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "z", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("index.json", b" " * 10_000_000)
    with pytest.raises(DatasetError, match="those are not compressed"):
        BM25.load(tmp_path / "z")


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read: No such file"):
        BM25.load(tmp_path / "none")
    with pytest.raises(DatasetError, match="cannot be written: No such file"):
        BM25().save(tmp_path / "no" / "where")


def test_a_disk_that_fails_leaves_the_older_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DatasetError, match="No space left on device"):
        BM25(["new"]).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
