"""A data file is read whole or refused with the file, the row and the column."""

import builtins
import collections
import datetime as dt
import gzip
import itertools
import json
import math
import re
import tracemalloc
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import otpy
from otpy.errors import ConfigError, DatasetError
from otpy.evaluate.dataset import check_labels, iter_dataset, load_dataset


@pytest.fixture
def file(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_jsonl_and_csv_hold_the_same_rows(file):
    jsonl = file("rows.jsonl", '{"q": "a, b", "n": "1"}\n\n{"q": "c", "n": "2"}\n')
    csv = file("rows.csv", '\ufeffq,n\n"a, b",1\nc,2\n')
    assert load_dataset(jsonl) == load_dataset(csv) == [{"q": "a, b", "n": "1"}, {"q": "c", "n": "2"}]
    assert dict(load_dataset(jsonl, inputs=["q"])[0].inputs()) == {"q": "a, b"}


def test_an_array_of_objects_and_values_between_tabs_are_read_too(file):
    rows = [{"q": "a, b", "n": "1"}, {"q": "c", "n": "2"}]
    assert load_dataset(file("rows.json", json.dumps(rows))) == rows
    assert load_dataset(file("rows.json.gz", gzip.compress(json.dumps(rows).encode()))) == rows
    assert load_dataset(file("rows.tsv", "q\tn\na, b\t1\nc\t2\n")) == rows


def test_what_stands_between_values_may_be_said(file):
    path = file("rows.csv", "q;n\na, b;1\n")
    assert load_dataset(path, delimiter=";") == [{"q": "a, b", "n": "1"}]
    for mark in (";", "\t", "|"):
        with pytest.raises(DatasetError, match=re.escape(f"load_dataset(…, delimiter={mark!r})")):
            load_dataset(file("rows.csv", f"q{mark}n\na{mark}1\n"))
    assert load_dataset(file("rows.csv", "q;n\na\n"), delimiter=",") == [{"q;n": "a"}]
    for mark in ("", ";;", '"', 1):
        with pytest.raises(DatasetError, match="allowed: one character"):
            load_dataset(path, delimiter=mark)
    for source in (file("rows.jsonl", "{}"), [{"q": 1}]):
        with pytest.raises(DatasetError, match=r"is for .csv and .tsv files; leave it out"):
            load_dataset(source, delimiter=";")


def test_rows_below_the_limit_are_not_looked_at(file):
    path = file("rows.jsonl", '{"q": 1}\n{"q": 2}\nbroken')
    assert load_dataset(path, limit=2) == [{"q": 1}, {"q": 2}]
    assert len(load_dataset([{"q": 1}], limit=5)) == 1
    assert [row.q for row in iter_dataset(({"q": n} for n in itertools.count()), limit=3)] == [0, 1, 2]
    for limit in (0, -1, 1.5, True):
        with pytest.raises(DatasetError, match=f"limit={limit}; allowed: a number of rows, from 1"):
            load_dataset(path, limit=limit)


def test_json_beside_data_files_is_about_them(tmp_path, file):
    file("dataset_infos.json", "{}")
    file("rows.jsonl", '{"q": 1}\n')
    file("readme.json", "{}")
    assert load_dataset(tmp_path) == [{"q": 1}]
    (tmp_path / "rows.jsonl").unlink()
    (tmp_path / "readme.json").write_text('[{"q": 2}]')
    assert load_dataset(tmp_path) == [{"q": 2}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", "", "has no rows"),
        ("rows.json", "[]", "has no rows"),
        ("rows.json", '{"q": 1}\n{"q": 2}\n', "is not JSON: .*; one object a line is named .jsonl"),
        (
            "rows.json",
            '{"data": [{"q": 1}]}',
            r"is one object, with 'data'; .*load_dataset\(json.load\(file\)\['…'\]\)",
        ),
        ("rows.json", "7", "is 7; an array of objects is meant"),
        ("rows.json", '[{"q": 1, "n": 1}, 7]', "row 2: is not an object of columns: 7"),
        ("rows.jsonl", '[{"q": 1,\n "n": 2}]', "row 1: is not JSON: .*; a file that is one array .* is named .json"),
        ("rows.tsv", "q\tn\n1\n", "row 1: has 1 values for 2 columns"),
        ("rows.csv", "q,n\n1,2,3\n", "row 1: has 3 values for 2 .*; a value with ',' in it stands in double quotes"),
        ("rows.csv", "", "has no rows"),
        ("rows.csv", "q,n\n", "has no rows"),
        ("rows.jsonl", '{"q": 1, "n": 2}\n{"q": ', "row 2: is not JSON"),
        ("rows.jsonl", "[1, 2]\n", "row 1: is not an object"),
        ("rows.jsonl", '{"q": 1, "n": 1}\n{"q": 2}\n', "row 2: column 'n' is missing; the row has q"),
        ("rows.csv", "q,n\n1\n", "row 1: has 1 values for 2 columns"),
        ("rows.csv", "q,q\n1,2\n", "'q' more than once"),
        ("rows.jsonl", '{"q": 1, "n": 1}\n{"q": 1, "n": 2, "q": 3}\n', "row 2: has the key 'q' more than once"),
        ("rows.json", '[{"q": 1, "n": {"a": 1, "a": 2}}]', "has the key 'a' more than once"),
        ("rows.csv", 'q,n\n"open,1\n', "is not CSV"),
        ("rows.csv", b"q,n\n\xff,1\n", "is not UTF-8"),
        ("rows.txt", "q", "unknown kind of file '.txt'; known: .jsonl, .csv"),
    ],
)
def test_a_broken_file_is_refused_by_file_row_and_column(file, name, content, message):
    path = file(name, content)
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(path, required=["q", "n"])
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        load_dataset(tmp_path / "nothing.jsonl")


def test_an_unknown_label_is_named_with_its_row_and_those_allowed():
    class Sort(otpy.Signature):
        """Sort."""

        text: str = otpy.InputField()
        kind: Literal["a", "b"] = otpy.OutputField()

    rows = [otpy.Example(text="x", kind="a"), otpy.Example(text="y", kind="c")]
    with pytest.raises(
        DatasetError, match=r"rows\.csv, row 2: column 'kind' has the unknown label 'c'; allowed: 'a', 'b'"
    ):
        check_labels(rows, Sort, "rows.csv")
    check_labels(rows[:1], Sort)


ROWS = [{"text": f"é{n}", "n": n, "tags": ["x", str(n)], "none": None} for n in range(5)]
FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["pos", "neg"], "_type": "ClassLabel"},
    "tags": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
}


def labelled(labels):
    """A table as `datasets` writes it: labels are numbers, their names are in the metadata."""
    metadata = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    columns = {"text": [f"t{n}" for n in range(len(labels))], "label": labels, "tags": [["x"]] * len(labels)}
    return pa.table(columns).replace_schema_metadata(metadata)


def stream(table, path, rows_a_batch=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)


def saved(directory, *tables):
    """A directory as `Dataset.save_to_disk` writes it."""
    names = [f"data-{number:05}-of-{len(tables):05}.arrow" for number in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        stream(table, directory / name)
    (directory / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": None}
    (directory / "state.json").write_text(json.dumps(state))
    return directory


def test_parquet_and_both_formats_of_arrow_hold_the_same_rows(tmp_path):
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    stream(table, tmp_path / "stream.arrow")
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    for name in ("rows.parquet", "stream.arrow", "file.arrow"):
        assert load_dataset(tmp_path / name, inputs=["text"], required=["n"]) == ROWS


def test_a_packed_file_is_read_as_it_is(tmp_path):
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"q": 1}\n{"q": 2}\n'))
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfq\r\n1\r\n2\r\n"))
    assert load_dataset(tmp_path / "rows.jsonl.gz") == [{"q": 1}, {"q": 2}]
    assert load_dataset(tmp_path / "rows.csv.gz") == [{"q": "1"}, {"q": "2"}]


def test_a_pattern_takes_several_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    for name, number in (("2.jsonl", 2), ("1.jsonl", 1), ("b/3.jsonl", 3), ("[x].jsonl", 4)):
        (tmp_path / name).write_text(json.dumps({"n": number}) + "\n")
    assert [row.n for row in load_dataset(f"{tmp_path}/?.jsonl")] == [1, 2]
    assert [row.n for row in load_dataset(f"{tmp_path}/**/[123].jsonl")] == [1, 2, 3]
    assert [row.n for row in load_dataset(tmp_path / "[x].jsonl")] == [4]


def test_a_row_of_several_files_is_named_by_its_file_and_its_place_there(tmp_path):
    (tmp_path / "1.jsonl").write_text('{"q": 1}\n{"q": 2}\n')
    (tmp_path / "2.jsonl").write_text('{"q": 3}\n{"a": 4}\n')
    with pytest.raises(DatasetError, match=r"2\.jsonl, row 2: column 'q' is missing"):
        load_dataset(f"{tmp_path}/*.jsonl", required=["q"])


def test_a_directory_saved_by_datasets_is_read_in_its_own_order(tmp_path):
    found = load_dataset(saved(tmp_path / "one", labelled([0, 1]), labelled([1, -1, None])))
    assert [row.label for row in found] == ["pos", "neg", "neg", None, None]
    assert found[0] == {"text": "t0", "label": "pos", "tags": ["x"]}


def test_labels_that_datasets_numbers_are_read_by_their_names_from_parquet_too(tmp_path):
    pq.write_table(labelled([1, 0]), tmp_path / "rows.parquet")
    assert [row.label for row in load_dataset(tmp_path / "rows.parquet")] == ["neg", "pos"]
    pq.write_table(labelled([1, 2]), tmp_path / "rows.parquet")
    with pytest.raises(DatasetError, match="row 2: column 'label' has the label 2, of 2 names"):
        load_dataset(tmp_path / "rows.parquet")


@pytest.mark.parametrize("directory", ["", "data"])
def test_a_directory_of_shards_is_one_dataset(tmp_path, directory):
    (tmp_path / directory).mkdir(exist_ok=True)
    for number in (1, 0):
        table = pa.table({"n": [2 * number, 2 * number + 1]})
        pq.write_table(table, tmp_path / directory / f"train-{number:05}-of-00002.parquet")
    (tmp_path / "README.md").write_text("what it is")
    assert [row.n for row in load_dataset(tmp_path)] == [0, 1, 2, 3]


def test_a_directory_of_several_datasets_says_how_to_name_one(tmp_path):
    for split in ("train", "test"):
        pq.write_table(labelled([0]), tmp_path / f"{split}-00000-of-00001.parquet")
        saved(tmp_path / "dict" / split, labelled([1]))
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path)
    named = str(caught.value).rpartition("one of them: ")[2].split(", ")
    assert [len(load_dataset(name)) for name in named] == [1, 1]
    with pytest.raises(DatasetError, match="holds several datasets") as caught:
        load_dataset(tmp_path / "dict")
    named = str(caught.value).rpartition("one of them: ")[2].split(", ")
    assert [load_dataset(name)[0].label for name in named] == ["neg", "neg"]


def test_a_directory_without_one_of_its_shards_is_refused(tmp_path):
    pq.write_table(labelled([0]), tmp_path / "train-00001-of-00002.parquet")
    with pytest.raises(DatasetError, match=r"its shard train-00000-of-00002\.parquet is missing"):
        load_dataset(tmp_path)
    saved(tmp_path / "one", labelled([0]), labelled([1]))
    (tmp_path / "one" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DatasetError, match=r"data-00001-of-00002\.arrow: cannot be read: No such file"):
        load_dataset(tmp_path / "one")


def test_broken_tables_are_refused_by_file(file, tmp_path):
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["q", "q"])
    stream(twice, tmp_path / "twice.arrow")
    whole, empty = tmp_path / "whole.parquet", tmp_path / "empty"
    empty.mkdir()
    pq.write_table(labelled([0] * 10_000), whole)
    for path, message in (
        (file("rows.parquet", "no such thing"), "cannot be read: .*Parquet"),
        (file("rows.arrow", "no such thing"), "cannot be read: "),
        (file("cut.parquet", whole.read_bytes()[:-100]), "cannot be read: "),
        (tmp_path / "twice.arrow", "has the column 'q' more than once"),
        (file("rows.jsonl.gz", gzip.compress(b'{"q": 1}\n')[:-4]), "is no whole gzip file"),
        (file("plain.csv.gz", "q\n1\n"), "is no whole gzip file"),
        (file("bad.csv.gz", gzip.compress(b"q\n\xff\n")), "is not UTF-8: byte 0xff in line 2"),
        (
            file("rows.txt.gz", ""),
            r"unknown kind of file '\.txt\.gz'; known: \.jsonl, \.csv, \.tsv, \.json, \.jsonl\.gz",
        ),
        (tmp_path / "*.nothing", "no file matches"),
        (empty, "no data file in the directory"),
        (file("empty.parquet", ""), "cannot be read: "),
        (file("empty.arrow", ""), "cannot be read: "),
    ):
        with pytest.raises(DatasetError, match=message) as caught:
            load_dataset(path)
        assert str(path) in str(caught.value)


def test_a_list_in_place_of_an_object_and_a_text_in_place_of_a_list_are_refused():
    with pytest.raises(DatasetError, match=r"inputs='text' is one text; a list of columns is meant: \['text'\]"):
        load_dataset([{"text": 1}], inputs="text")
    with pytest.raises(DatasetError, match=r"list, row 2: is not an object of columns: 'a'"):
        load_dataset([{"text": 1}, "a"])
    for source in (7, None, {"text": 1}, b"rows.jsonl"):
        with pytest.raises(DatasetError, match="holds no rows; allowed: a path, a frame"):
            load_dataset(source)


def test_without_pyarrow_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    real = builtins.__import__

    def without(name, *arguments):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'otpy-framework\[parquet\]'"):
        load_dataset(tmp_path / "rows.parquet")


class Polars:
    """What `load_dataset` asks of a frame of polars."""

    def __init__(self, rows):
        self.rows = rows

    def iter_rows(self, *, named):
        assert named
        return iter(self.rows)


class NAType:
    """As pandas names its gap; comparing it is refused there."""

    def __bool__(self):
        raise TypeError


class Array(list):
    def tolist(self):
        return list(self)


class Pandas:
    """What `load_dataset` asks of a frame of pandas; its cells are numbers, gaps and arrays."""

    def __init__(self, **columns):
        self.cells, self.columns = columns, list(columns)

    def items(self):
        return self.cells.items()

    def itertuples(self):
        raise AssertionError


def test_frames_are_rows_with_nothing_where_they_have_gaps():
    assert load_dataset(Polars(ROWS), inputs=["text"]) == ROWS
    frame = Pandas(q=["a", "b", NAType()], n=[1.0, math.nan, 2.0], tags=[Array(["x"]), None, Array()])
    assert load_dataset(frame) == [
        {"q": "a", "n": 1.0, "tags": ["x"]},
        {"q": "b", "n": None, "tags": None},
        {"q": None, "n": 2.0, "tags": []},
    ]
    frame.columns = ["q", "q", "tags"]
    with pytest.raises(DatasetError, match="Pandas: has a column more than once: q, q, tags"):
        load_dataset(frame)
    assert load_dataset(pa.Table.from_pylist(ROWS)) == ROWS
    with pytest.raises(DatasetError, match="Table: has a column more than once: q, q"):
        load_dataset(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["q", "q"]))


def test_a_real_frame_of_pandas_is_read():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    day = dt.datetime(2026, 1, 2)  # noqa: DTZ001 - as in a file without zones
    frame = pandas.DataFrame({"q": ["a", None], "n": [1, 2], "x": [0.5, None], "day": [day, None], "t": [["x"], []]})
    rows = [{"q": "a", "n": 1, "x": 0.5, "day": day, "t": ["x"]}, {"q": None, "n": 2, "x": None, "day": None, "t": []}]
    assert load_dataset(frame) == load_dataset(frame.set_index(pandas.Index([7, 7]))) == rows
    assert load_dataset(frame.convert_dtypes()) == rows
    assert type(load_dataset(frame)[0].n) is int


def test_a_real_frame_of_polars_is_read_and_a_lazy_one_named():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    assert load_dataset(polars.DataFrame(ROWS)) == ROWS
    with pytest.raises(DatasetError, match=r"LazyFrame: is not read yet; call \.collect\(\)"):
        load_dataset(polars.DataFrame(ROWS).lazy())


def test_a_generator_of_rows_is_read_one_at_a_time():
    pulled = []

    def rows():
        for n in itertools.count():
            pulled.append(n)
            yield collections.ChainMap({"n": n})

    found = iter_dataset(rows(), inputs=["n"])
    assert [next(found).n for _ in range(3)] == pulled == [0, 1, 2]


def test_what_is_wrong_with_a_row_is_said_when_it_is_its_turn(file):
    found = iter_dataset(file("rows.jsonl", '{"q": 1}\n{"q"\n'))
    assert next(found).q == 1
    with pytest.raises(DatasetError, match="row 2: is not JSON"):
        next(found)
    with pytest.raises(DatasetError, match="unknown kind of file"):
        iter_dataset("rows.txt")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "jsonl.gz", "parquet", "arrow"])
def test_reading_a_large_file_takes_no_more_memory_than_a_small_one(tmp_path, kind):
    def peak(count):
        path = tmp_path / f"{count}.{kind}"
        table = pa.table({"n": list(range(count)), "q": ["how much is this worth?"] * count})
        if kind == "parquet":
            pq.write_table(table, path, row_group_size=1_000)  # one is read at a time
        elif kind == "arrow":
            stream(table, path, rows_a_batch=count)
        else:
            opened = gzip.open(path, "wt") if kind.endswith(".gz") else path.open("w")  # noqa: SIM115 - closed below
            with opened as out:
                out.write("n,q\n" if kind == "csv" else "")
                line = "{n},{q}\n" if kind == "csv" else '{{"n": {n}, "q": "{q}"}}\n'
                out.writelines(line.format(n=n, q="how much is this worth?") for n in range(count))
        assert sum(1 for _ in itertools.islice(iter_dataset(path), 10)) == 10  # imports and caches
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        most = before
        for number, _ in enumerate(iter_dataset(path, inputs=["q"])):
            if number % 1_000 == 0:
                most = max(most, pa.total_allocated_bytes())
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return traced + most - before

    peak(10)
    small, large = peak(2_000), peak(20_000)
    assert large < 1.5 * small + 200_000


@given(st.lists(st.dictionaries(st.text(min_size=1), st.none() | st.integers() | st.text() | st.lists(st.text()))))
def test_whatever_json_holds_comes_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {}]))
    assert load_dataset(path) == [*rows, {}]
