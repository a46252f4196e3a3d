"""The same text is the same result, however the file is packed and encoded."""

import bz2
import gzip
import json
import lzma

import pytest

from bench.cli.main import main as shardbench
from bench.importers import text
from bench.importers.paths import files_of
from bench.importers.text import suffix_of, text_of
from bench.rows.store import Store
from engines.core.errors import ShardbenchError

LATENCY = {"avg_latency": 1.5, "latencies": [1.5, 1.4, 1.6], "percentiles": {"50": 1.5}}
GIVEN = "model=llama-3-8b hw=h100-80gb num_chips=1 batch_size=8 input_len=32 output_len=128 weight_dtype=bfloat16"
WAYS = {
    "plain.json": lambda said: said.encode(),
    "marked.json": lambda said: said.encode("utf-8-sig"),
    "wide.json": lambda said: said.encode("utf-16"),
    "big_endian.json": lambda said: b"\xfe\xff" + said.encode("utf-16-be"),
    "packed.JSON.gz": lambda said: gzip.compress(said.encode()),
    "packed.json.bz2": lambda said: bz2.compress(said.encode()),
    "packed.json.xz": lambda said: lzma.compress(said.encode("utf-8-sig")),
    "packed_without_a_word.json": lambda said: gzip.compress(said.encode("utf-16")),
}


@pytest.mark.parametrize("name", WAYS)
def test_text_is_read_however_it_is_written(tmp_path, name):
    (tmp_path / name).write_bytes(WAYS[name]("µs, größer\n"))
    assert text_of(tmp_path / name) == "µs, größer\n"
    assert suffix_of(tmp_path / name) == ".json"
    assert files_of(str(tmp_path)) == [tmp_path / name]


def test_a_result_in_every_way_is_one_row(tmp_path):
    for name, written in WAYS.items():
        (tmp_path / name).write_bytes(written(json.dumps(LATENCY)))
    assert shardbench(["import", f"data={tmp_path}", f"results_dir={tmp_path / 'store'}", *GIVEN.split()]) == 0
    assert len(Store(tmp_path / "store").load()) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x80\x81", "is not UTF-8 text"),
        ("Größe".encode("latin-1"), "is not UTF-8 text"),
        (gzip.compress(b"{}" * 1000, mtime=0)[:-9], "packed and damaged"),
        (b"\x1f\x8bno", "packed and damaged"),
        (b"BZh9no", "packed and damaged"),
        (lzma.compress(b"{}" * 1000)[:-9], "packed and damaged"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, content, problem):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ShardbenchError, match=problem):
        text_of(tmp_path / "file")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LARGEST_BYTES", 1 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(1 << 21)))
    with pytest.raises(ShardbenchError, match="larger than 1 MiB"):
        text_of(tmp_path / "bomb.gz")
