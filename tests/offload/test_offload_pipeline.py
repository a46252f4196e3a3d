"""Layers fetched ahead: what runs at once, in which order, and how many bytes are read."""

import resource
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.core.errors import ShardbenchError
from engines.offload.events import Event, Log
from engines.offload.layer_file import ALIGN, LayerFile, LayerWriter, padded_bytes
from engines.offload.pipeline import fetched_ahead
from engines.offload.read_ahead import ReadAhead

WAIT_S = 30


def read_from_storage():
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    raise AssertionError("no read_bytes")


def written(folder, layers):
    writer = LayerWriter(folder, "these")
    for arrays in layers:
        writer.add(arrays)
    return writer.close()


def test_the_next_layer_is_fetched_while_one_computes_and_never_more():
    """Compute waits for the next fetch to begin, and each fetch for the compute that frees its room to have begun."""
    order = list(range(5))
    begun = {layer: threading.Event() for layer in order}
    released = []

    def fetch(layer):
        assert layer < 2 or released[-1] >= layer - 2, "two layers are on the device at once, not three"
        begun[layer].set()
        return -layer

    for layer, value in fetched_ahead(order, fetch, log := Log()):
        assert value == -layer
        if layer + 1 in begun:
            assert begun[layer + 1].wait(WAIT_S), "the next fetch begins before this compute ends"
        released.append(layer)
    assert [each.layer for each in log.of("compute")] == order


def test_what_a_fetch_raises_reaches_the_caller_and_ends_the_thread():
    def fetch(layer):
        if layer == 2:
            raise ShardbenchError("gone")
        return layer

    seen = []
    with pytest.raises(ShardbenchError, match="gone"):
        seen.extend(layer for layer, _ in fetched_ahead(range(4), fetch, Log()))
    assert seen == [0, 1]
    assert not [each for each in threading.enumerate() if each.name == "offload-fetch"]


def test_leaving_early_ends_the_thread():
    running = fetched_ahead(range(100), lambda layer: layer, Log())
    assert next(running)[0] == 0
    running.close()
    assert not [each for each in threading.enumerate() if each.name == "offload-fetch"]


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(1, 5000), min_size=1, max_size=4), min_size=1, max_size=5), st.data())
def test_a_file_gives_back_every_layer_in_any_order_with_the_bytes_of_the_closed_form(tmp_path_factory, sizes, data):
    layers = [[np.arange(size, dtype=np.float32) + number for size in own] for number, own in enumerate(sizes)]
    file = written(tmp_path_factory.mktemp("layers"), layers)
    order = data.draw(st.lists(st.sampled_from(range(len(layers))), max_size=8))
    log = Log()
    with ReadAhead(file, order, log) as reader:
        for layer in order:
            staged = reader.take(layer)
            expected = b"".join(each.tobytes() for each in layers[layer])
            assert bytes(staged.payload) == expected
            reader.release(staged)
    assert log.sent_bytes("read") == sum(padded_bytes(4 * sum(sizes[layer])) for layer in order)
    assert all(each.offset % ALIGN == each.read_bytes % ALIGN == 0 for each in file.extents)


def test_the_kernel_counts_the_same_bytes_as_the_reader(tmp_path):
    layers = [[np.random.default_rng(number).random(300_000 + number)] for number in range(4)]
    file = written(tmp_path, layers)
    order = [0, 1, 2, 3] * 3
    log, before = Log(), read_from_storage()
    with ReadAhead(file, order, log) as reader:
        if not reader.direct:
            pytest.skip("the file system of temporary files has no direct I/O")
        for layer in order:
            reader.release(reader.take(layer))
    assert log.sent_bytes("read") == 3 * sum(padded_bytes(8 * (300_000 + number)) for number in range(4))
    assert read_from_storage() - before == log.sent_bytes("read")


def test_a_file_is_found_again_by_what_it_holds_and_only_whole(tmp_path):
    file = written(tmp_path, [[np.zeros(10)]])
    assert LayerFile.found(tmp_path, "these") == file
    assert LayerFile.found(tmp_path, "others") is None
    with file.path.open("ab") as more:
        more.write(b"x")
    assert LayerFile.found(tmp_path, "these") is None


def test_a_file_that_was_cut_off_is_an_error_of_the_taker(tmp_path):
    file = written(tmp_path, [[np.zeros(10_000)]])
    with file.path.open("r+b") as cut:
        cut.truncate(ALIGN)
    with ReadAhead(file, [0], Log()) as reader, pytest.raises(ShardbenchError, match=r"layers\.bin: ends before byte"):
        reader.take(0)


def test_a_log_counts_fetches_that_began_before_the_compute_before_them_ended():
    log = Log(
        [Event("copy", 0, 0, 1, 8), Event("compute", 0, 1, 3), Event("copy", 1, 2, 4, 8), Event("compute", 1, 4, 5)]
    )
    log.events.append(Event("copy", 2, 5.5, 6, 8))
    assert log.overlapped() == 1
    assert log.summary(last=1)["copy_bytes"] == 24
    assert log.summary(last=1)["timeline"] == [["compute", 1, 0, 1], ["copy", 2, 1.5, 2]]


def test_a_disk_that_fills_while_layers_are_written_keeps_none_of_them(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = LayerWriter(tmp_path, "these")
    writer.add([np.zeros(ALIGN, np.uint8)])
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * ALIGN, before[1]))
    try:
        with pytest.raises(ShardbenchError, match=r"the layers cannot be written there \(.+\); use another folder"):
            writer.add([np.zeros(4 * ALIGN, np.uint8)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
