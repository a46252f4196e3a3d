"""Values on the command line: names and paths are text exactly as typed; the rest is what its key says, or refused."""

import importlib
import os
import string

import pytest
from builders.rows import a_row
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.cli.args import Key, parse
from bench.cli.main import COMMANDS, MODULES, main
from bench.cli.values import LARGEST, Boolean, Choice, FilePath, Integer, ListOf, Number, Text, items, listed
from bench.rows.store import Store
from engines.core.errors import InvalidRequest

pytestmark = pytest.mark.slow(seconds=0.03)

TYPED = [
    *("1e3", "true", "null", "~x", "=", "a=b", "#", "a # b", "'", "''", '"x', ",", "a,b", "é", "名", "-1", "0x10"),
    *("1_000", " ", " a ", "{a: b}", "$HOME", "${oc.env:HOME}", "*", "[b", "a]", "%", "!!int", "2026-01-01", "no"),
    *("..", "\\"),
]
TEXTS = st.one_of(
    st.sampled_from(TYPED),
    # 60 characters are at most 240 bytes: a longer name of a file is refused
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60),
)
KEYS = [
    (name, key)
    for name in COMMANDS
    if name != "run"
    for key in importlib.import_module(f"bench.cli.commands.{MODULES.get(name, name)}").KEYS
]


def kind_of(key):
    """What decides how a value is read: a key's name, and the limits and choices of its kind, do not."""
    return type(key.takes), type(getattr(key.takes, "kind", None)), key.default is None, key.required


def a_key_of_each_kind(keys):
    """Cases of one key of each kind; those of the others are for ``--thorough``."""
    first = {kind_of(key): (command, key) for command, key in reversed(keys)}
    return pytest.mark.parametrize(
        ("command", "key"),
        [
            pytest.param(
                command,
                key,
                id=f"{command}-{key.name}",
                marks=() if first[kind_of(key)] == (command, key) else pytest.mark.thorough,
            )
            for command, key in keys
        ],
    )


def is_text(kind):
    return isinstance(kind, (Text, FilePath))


TEXT_KEYS = [(command, key) for command, key in KEYS if is_text(getattr(key.takes, "kind", key.takes))]


def read(key, text):
    return parse("x", [f"{key.name}={text}"], [key], {})[1][key.name]


def home(text):
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


@a_key_of_each_kind(TEXT_KEYS)
@given(text=TEXTS)
def test_a_text_reaches_every_command_as_it_was_typed(command, key, text):
    kind = getattr(key.takes, "kind", key.takes)
    expected = home(text) if isinstance(kind, FilePath) else text
    if not isinstance(key.takes, ListOf):
        assert read(key, text) == expected
    else:
        assume(not (text.startswith("[") and text.endswith("]")))
        assert read(key, text) == [expected]
        assert read(key, listed([text, text])) == [expected, expected]


@a_key_of_each_kind(KEYS)
@given(text=TEXTS)
def test_a_value_is_of_its_kind_or_refused_with_its_key(command, key, text):
    try:
        value = read(key, text)
    except InvalidRequest as error:
        value, refused = None, error.key
    else:
        refused = None
    assert matches(key, key.takes, value) if refused is None else refused == key.name


def matches(key, kind, value):
    match kind:
        case _ if value is None:
            return key.default is None and not kind.is_text
        case ListOf():
            return value in kind.words or (len(value) >= kind.least and all(matches(key, kind.kind, x) for x in value))
        case Choice():
            return value in kind.names
        case Boolean():
            return isinstance(value, bool)
        case Integer():
            return type(value) is int and kind.minimum <= value <= LARGEST
        case Number():
            return type(value) is float and abs(value) < float("inf")
    return isinstance(value, str)


def test_an_empty_value_is_refused():
    for _, key in KEYS:
        with pytest.raises(InvalidRequest, match="is empty") as caught:
            read(key, "")
        assert caught.value.key == key.name


@pytest.mark.parametrize("name", [*(name for name in TYPED if name != ".."), "a\nb", "[a,b].csv"])
def test_files_get_the_names_that_were_typed(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    Store(tmp_path / "kept").append([a_row()])
    assert main(["results", "export", "results_dir=kept", "format=jsonl", f"out={name}"]) == 0
    assert sorted(os.listdir()) == sorted(["kept", name])
    os.remove(name)
    os.rename("kept", name)
    capsys.readouterr()
    assert main(["results", "list", f"results_dir={name}", "print=json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_home_is_the_same_in_every_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir("/")
    Store(tmp_path / "kept").append([a_row()])
    assert main(["results", "list", "results_dir=~/kept", "print=json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["report", "results_dir=~/kept", "out=~/report", "figures=[]"]) == 0
    assert (tmp_path / "report" / "report.md").is_file()
    assert main(["compare", "old=~/kept", "new=~/kept"]) == 0
    (tmp_path / "mine" / "model").mkdir(parents=True)
    assert main(["--config-dir", "~/mine", "results", "list", "results_dir=~"]) == 0


@given(st.lists(st.text(), max_size=6))
def test_a_list_of_any_texts_can_be_typed(texts):
    texts = [text for text in texts if text]
    assert items("data", listed(texts)) == texts


@given(st.text(string.printable.replace("\0", "")))
def test_any_text_is_a_list_or_one_item_or_refused(text):
    try:
        found = items("data", text)
    except InvalidRequest:
        assert text.startswith("[")
        assert text.endswith("]")
        return
    if not (text.startswith("[") and text.endswith("]") and len(text) > 1):
        assert found == [text]
    assert items("data", listed(found)) == found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a,b]", ["a", "b"]),
        ("[ a , b ]", ["a", "b"]),
        ("a,b.csv", ["a,b.csv"]),
        ("['a,b.csv',c]", ["a,b.csv", "c"]),
        ("[\"it's\",'it''s']", ["it's", "it's"]),
        ("[Bob's.csv]", ["Bob's.csv"]),
        ("[]", []),
        ("[run[0].csv,x={a,b}]", ["run[0].csv", "x={a,b}"]),
        ("[ab]*.csv", ["[ab]*.csv"]),
    ],
)
def test_lists(text, expected):
    assert items("data", text) == expected


@pytest.mark.parametrize("text", ["[a,]", "[,]", "[a,,b]", "['a]", "['a'b]", "[(]", "[a]b]", "[}]"])
def test_a_list_that_is_none_says_how_to_write_one(text):
    with pytest.raises(InvalidRequest, match="write a list as"):
        items("data", text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Integer(1), "64", 64),
        (Integer(0), "+007", 7),
        (Integer(1), str(LARGEST), LARGEST),
        (Number(), "1e9", 1e9),
        (Number(), ".5", 0.5),
        (Number(minimum=0), "0", 0.0),
        (Boolean(), "True", True),
        (ListOf(Integer(1), words=("auto",)), "auto", "auto"),
        (ListOf(Integer(1)), "[1,2]", [1, 2]),
        (ListOf(Integer(1)), "3", [3]),
    ],
)
def test_values(kind, text, value):
    assert kind.parse("key", text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((Integer(1), text) for text in ("0", "-1", "1.0", "1e3", "1_0", "٣", "x", "9" * 5000, "-" + "9" * 5000)),
        *((Number(), text) for text in ("nan", "inf", "1e999", "x", "0x1", "1_0", "true", "٣")),
        (Number(above=0), "0"),
        (Number(minimum=0), "-1e-9"),
        (Number(above=0, below=1), "1"),
        (Boolean(), "1"),
        (Boolean(), "yes"),
    ],
)
def test_values_of_another_kind(kind, text):
    with pytest.raises(InvalidRequest):
        kind.parse("key", text)


def test_null_is_no_value_for_a_limit_and_a_name_for_a_file():
    limit, file = Key("limit", None, "", kind=Number()), Key("file", None, "", kind=FilePath())
    assert read(limit, "null") is None
    assert read(file, "null") == "null"
