"""Many files in one command: each on its own, one summary, nothing half-written."""

import json
import os

import pytest
from builders.results_of_others import INFERENCEX, SERVE

from bench.cli.args import parse
from bench.cli.commands import import_
from bench.rows.store import Store
from engines.core.errors import InvalidRequest, ShardbenchError


@pytest.fixture
def run(tmp_path):
    def call(*words):
        line = [*words, f"results_dir={tmp_path / 'results'}"]
        _, settings = parse("import", line, import_.KEYS, import_.VERBS)
        return import_.main(None, settings)

    return call


@pytest.fixture
def folder(tmp_path):
    """Three results in a folder, one of them in a folder below."""
    where = tmp_path / "runs"
    (where / "below").mkdir(parents=True)
    for name, conc in (("a.json", 32), ("b.json", 64), ("below/c.json", 128)):
        (where / name).write_text(json.dumps({**INFERENCEX, "conc": conc}), encoding="utf-8")
    return where


def stored(tmp_path):
    return sorted(row.batch_size for row in Store(tmp_path / "results").load())


def test_folders_patterns_and_lists_name_files(run, folder, tmp_path):
    assert run(f"data={folder}/*.json") == 0
    assert stored(tmp_path) == [32, 64]
    assert run(f"data={folder}") == 0
    assert stored(tmp_path) == [32, 64, 128]
    assert run(f"data=[{folder}/below,{folder}/a.json,{folder}]") == 0
    assert stored(tmp_path) == [32, 64, 128]


def test_a_pattern_or_folder_without_files_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequest, match=r"data=.*empty: is a folder without a file"):
        run(f"data={tmp_path / 'empty'}")
    with pytest.raises(InvalidRequest, match=r"data=.*\*\.json: matches no file"):
        run(f"data={tmp_path}/*.json")


@pytest.mark.slow
@pytest.mark.thorough
def test_a_thousand_files_and_one_that_is_bad(run, tmp_path, capsys):
    where = tmp_path / "runs"
    where.mkdir()
    for number in range(1000):
        text = json.dumps({**INFERENCEX, "image": f"image {number}"}) if number != 500 else '{"conc": '
        (where / f"{number:04d}.json").write_text(text, encoding="utf-8")
    assert run(f"data={where}") == 3
    printed = capsys.readouterr()
    # One part file: all new rows were stored at once.
    assert len(Store(tmp_path / "results").parts()) == 1
    assert len(Store(tmp_path / "results").load()) == 999
    assert "1,000 files read: 999 inferencex" in printed.out
    assert "1 file refused:" in printed.out
    assert "0500.json: is not JSON" in printed.out
    assert "1000 of 1000 files read" in printed.err
    assert run(f"data={where}", "print=json") == 3
    [summary] = [json.loads(line)["summary"] for line in capsys.readouterr().out.splitlines()]
    assert (summary["rows_added"], summary["rows_already_stored"], summary["files_refused"]) == (0, 999, 1)
    assert summary["refused"][0]["file"].endswith("0500.json")


def test_twenty_refusals_are_printed_and_json_has_all(run, tmp_path, capsys):
    where = tmp_path / "runs"
    where.mkdir()
    (where / "good.json").write_text(json.dumps(INFERENCEX), encoding="utf-8")
    for number in range(25):
        (where / f"bad{number:02d}.json").write_text(f'{{"number": {number}}}', encoding="utf-8")
    assert run(f"data={where}") == 3
    out = capsys.readouterr().out
    assert out.count("has an unknown format") == 20
    assert "and 5 more" in out
    assert run(f"data={where}", "print=json") == 3
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert len(summary["refused"]) == summary["files_refused"] == 25


def test_nothing_that_imports_is_an_invalid_request(run, tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(
        ShardbenchError, match=r"none of the 2 files could be imported; the first: .*a\.json: has an unknown"
    ):
        run(f"data=[{tmp_path}/a.json,{tmp_path}/b.json]")
    with pytest.raises(ShardbenchError, match="unknown format"):
        run(f"data={tmp_path}/a.json")
    assert not (tmp_path / "results").exists()


def test_files_of_every_odd_kind_are_named_and_keep_no_other_out(run, folder, tmp_path, capfd):
    (folder / "empty.json").touch()
    (folder / "bytes.json").write_bytes(b"\x80\x81")
    (folder / "deep.json").write_text("[" * 100_000, encoding="utf-8")
    (folder / "digits.json").write_text('{"conc": ' + "9" * 5000 + "}", encoding="utf-8")
    (folder / "twice.json").write_text('{"conc": 1, "conc": 2}', encoding="utf-8")
    (folder / "huge.json").write_text(json.dumps({**INFERENCEX, "tput_per_gpu": 1e300}), encoding="utf-8")
    (folder / "lost.json").symlink_to(folder / "nowhere")
    name = os.fsencode(folder) + b"/caf\xe9.json"
    with open(name, "w", encoding="utf-8") as file:
        file.write(json.dumps({**INFERENCEX, "conc": 256}))
    assert run(f"data={folder}") == 3
    out = capfd.readouterr().out
    for words in (
        r"empty.json: is not JSON (it is empty)",
        "bytes.json: is not UTF-8 text",
        "deep.json: is nested too deeply",
        "digits.json: has an integer of thousands of digits",
        "twice.json: has conc twice",
        "huge.json: tput_per_gpu=1e+300 must be a number",
        "lost.json: cannot be read",
    ):
        assert words in out
    assert stored(tmp_path) == [32, 64, 128, 256]


def test_lines_that_are_appended_add_their_own_rows_alone(run, tmp_path):
    lines = tmp_path / "runs.jsonl"
    words = [f"data={lines}", "model=llama-3-8b", "hw=h100-80gb", "num_chips=1", "weight_dtype=bfloat16"]
    first = [{**SERVE, "label": "one"}, {**SERVE, "label": "two"}]
    lines.write_text("".join(json.dumps(each) + "\n" for each in first), encoding="utf-8")
    assert run(*words) == 0
    lines.write_text(
        "".join(json.dumps(each) + "\n" for each in (*first, {**SERVE, "label": "three"})), encoding="utf-8"
    )
    assert run(*words) == 0
    labels = [row.details["kept"]["label"] for row in Store(tmp_path / "results").load()]
    assert sorted(labels) == ["one", "three", "two"]


def test_one_bad_result_of_a_file_stores_none_of_it(run, tmp_path):
    lines = tmp_path / "runs.jsonl"
    lines.write_text(json.dumps(INFERENCEX) + "\n" + json.dumps({**INFERENCEX, "conc": 2.5}) + "\n", encoding="utf-8")
    with pytest.raises(ShardbenchError, match=r"runs\.jsonl entry 2: conc=2\.5 must be an integer"):
        run(f"data={lines}")
    assert not (tmp_path / "results").exists()
