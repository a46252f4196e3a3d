"""What a computation leaves is where it waits before it is read again."""

import threading
import time

import pytest

from engines.offload.events import Log
from engines.offload.pipeline import fetched_ahead
from engines.offload.write_behind import WriteBehind


@pytest.mark.parametrize("places", [1, 2, 3])
def test_a_reader_that_is_ahead_never_sees_a_value_too_old(places):
    """Places are counters in slow memory: each pass reads one, adds 1, and has it written behind."""
    log, held, passes = Log(), [0] * places, 4
    writer = WriteBehind(log)
    order = list(range(places)) * passes

    def fetch(place):
        reserved = writer.reserve(place)
        return held[place], reserved

    def write(place, value):
        time.sleep(0.002)
        held[place] = value
        return 8

    run = fetched_ahead(order, fetch, log)
    for number, (place, (value, reserved)) in enumerate(run):
        assert value == number // places
        writer.put(reserved, place, lambda place=place, value=value: write(place, value + 1))
    writer.close()
    assert held == [passes] * places
    assert log.sent_bytes("write") == 8 * places * passes


def test_what_a_write_raised_is_the_next_caller_s():
    writer = WriteBehind(Log())

    def fail():
        raise OSError("the disk is full")

    writer.put(writer.reserve("a"), 0, fail)
    with pytest.raises(OSError, match="disk is full"):
        writer.reserve("a")
    with pytest.raises(OSError, match="disk is full"):
        writer.close()


def test_a_reader_of_what_will_not_come_goes_on_at_the_end():
    writer = WriteBehind(Log())
    writer.reserve("a")
    waiting = threading.Thread(target=writer.reserve, args=("a",), daemon=True)
    waiting.start()
    writer.close()
    waiting.join(timeout=5)
    assert not waiting.is_alive()
