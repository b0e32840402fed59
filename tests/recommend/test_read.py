import gzip
import sys

import numpy as np
import pytest

from gesm import GesmError
from gesm.recommend import Interactions, read_interactions

pd = pytest.importorskip("pandas")

CSV = "who,user,item,time,n\nx,7,a,2020-01-02,3\ny,5,b,2020-01-01 12:00,1\n"


@pytest.fixture
def path(tmp_path):
    def write(name, content=CSV):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write


def check(data):
    assert data.user_ids.tolist() == [5, 7]
    assert data.item_ids.tolist() == ["a", "b"]
    assert data.user.tolist() == [0, 1]
    assert data.item.tolist() == [1, 0]
    assert data.time.tolist() == [1577880000, 1577923200]


def test_text(path):
    check(read_interactions(path("t.csv")))
    check(read_interactions(path("t.tsv", CSV.replace(",", "\t"))))
    check(read_interactions(path("t.csv.gz", gzip.compress(CSV.encode()))))
    data = read_interactions(path("t.csv"), item="who", time=None, weight="n", name="shop")
    assert (data.item_ids.tolist(), data.time, data.weight.tolist(), data.name) == (["x", "y"], None, [3, 1], "shop")


def test_a_byte_order_mark_and_words_that_pandas_takes_for_nothing(path):
    data = read_interactions(path("t.csv", "\ufeffuser,item,time\nNA,null,1\nNone,nan,2\n"))
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == (["NA", "None"], ["nan", "null"])


def test_rows_longer_than_the_header_do_not_shift_columns(path):
    with pytest.raises(GesmError, match="rows have more fields than the header; name all columns, or quote"):
        read_interactions(path("t.csv", "user,item,time\na,1,2,9\nb,2,3,9\n"))
    data = read_interactions(path("t.csv", "user,item,time\na,1,2,\nb,2,3,\n"), time=None)
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == (["a", "b"], [1, 2])


def test_text_without_header_by_numbers(path):
    data = read_interactions(path("u.data", "9\t4\t5\t200\n9\t2\t1\t100\n"), user=0, item=1, time=3, weight=2)
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == ([9], [2, 4])
    assert (data.time.tolist(), data.weight.tolist(), data.name) == ([100, 200], [1, 5], "u.data")


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (["7", "12", "-3"], [-3, 7, 12]),
        (["7", "0", '"12"'], [0, 7, 12]),
        ([" 7", "7 ", "12"], [7, 12]),
        (["7", "007", "12"], ["007", "12", "7"]),
        (["7", "7.0", "12"], ["12", "7", "7.0"]),
        (["7", "12a", "12"], ["12", "12a", "7"]),
        (["7", "1" * 19, "+7"], ["+7", "1" * 19, "7"]),
    ],
)
@pytest.mark.parametrize("header", [True, False])
def test_ids_are_numbers_only_if_nothing_is_lost(column, ids, header, path):
    lines = ["user,item,time"] * header + [f"{name},{place},{place}" for place, name in enumerate(column)]
    names = ("user", "item", "time") if header else (0, 1, 2)
    data = read_interactions(path("t.csv", "\n".join(lines)), *names)
    assert data.user_ids.tolist() == ids
    assert data.item_ids.tolist() == [0, 1, 2]
    assert data.user_ids[data.user].astype(str).tolist() == [name.strip(' "') for name in column]


def test_npz_without_pandas(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    file = path("t.npz", "")
    np.savez(file, user=np.array([1, 0]), item=np.array([3, 3]), timestamp=np.array([8, 4]))
    data = read_interactions(file)
    assert (data.user.tolist(), data.time.tolist()) == ([0, 1], [4, 8])


def test_parquet(path):
    pytest.importorskip("pyarrow")
    file = path("t.parquet", "")
    pd.DataFrame(
        {"user": [7, 5], "item": ["a", "b"], "time": pd.to_datetime(["2020-01-02 00:00", "2020-01-01 12:00"])}
    ).to_parquet(file)
    check(read_interactions(file))


@pytest.mark.parametrize("dates", [["2020-01-02", "2020-01-01 12:00"], ["2020-01-02 01:00+01:00", "2020-01-01 12:00Z"]])
@pytest.mark.parametrize("parsed", [False, True])
def test_frames(dates, parsed):
    times = pd.to_datetime(pd.Series(dates), format="ISO8601", utc="+" in dates[0]) if parsed else dates
    check(Interactions.from_pandas(pd.DataFrame({"user": [7, 5], "item": ["a", "b"], "timestamp": times})))


def frame(**columns):
    return pd.DataFrame({"user": [1, 2], "item": [1, 2], "time": [1, 2]} | columns)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: read_interactions(path("t.xls")), "no table that can be read"),
        (lambda path: read_interactions(path("t.npz.gz")), "no table that can be read"),
        (lambda path: read_interactions("none.csv"), "does not exist"),
        (lambda path: read_interactions(path("t.csv"), user="u"), "no column 'u'; there are 'who', 'user'"),
        (lambda path: read_interactions(path("t.csv"), time="when"), "pass time=None"),
        (lambda path: read_interactions(path("t.csv"), user=0, item="item"), "all names or all numbers"),
        (lambda path: read_interactions(path("t.csv"), user=8, item=1, time=2), r"no column 8; there are 0, 1"),
        (lambda path: read_interactions(path("t.csv"), user=0, item=1, time=8), r"no column 8; there are 0, 1"),
        (lambda path: read_interactions(path("t.npz"), user=0, item=1, time=2), "are for text files"),
        (lambda path: read_interactions(path("t.npz")), "cannot be read as npz"),
        (lambda path: read_interactions(path("t.csv", "")), "cannot be read as .csv"),
        (lambda path: read_interactions(path("t.csv", "user,item,time\n")), "user is empty"),
        (lambda path: read_interactions(path("t.csv", "user,item,time\n1,,3\n")), "'item' is missing"),
        (lambda path: read_interactions(path("t.csv", "user,item,time\n1,2,x\n")), "no date"),
        (lambda path: Interactions.from_pandas(frame(user=["a", None])), "'user' is missing"),
        (lambda path: Interactions.from_pandas(frame(), weight="w"), "no column 'w'"),
    ],
)
def test_errors(call, message, path):
    with pytest.raises(GesmError, match=message):
        call(path)


@pytest.mark.parametrize(("name", "module"), [("t.csv", "pandas"), ("t.parquet", "pyarrow")])
def test_missing_package_names_the_extra(name, module, path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(GesmError, match=r"pip install gesm\[recsys\]"):
        read_interactions(path(name))
