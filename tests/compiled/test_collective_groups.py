"""Which chips exchange what, as HLO writes it, and how long that takes around a ring."""

import pytest
from hand_schedule import LINKS, RING, TORUS

from engines.compiled.cost.torus import Torus, collective_time
from engines.compiled.hlo.collective import Collective
from engines.compiled.hlo.replica_groups import Hop, group_axes, parse_groups, parse_pairs, permute_hops


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("{{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("{}", [[0, 1, 2, 3]]),
        ("mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", [[0, 2], [1, 3]]),
        ("mesh['a'=1,'b'=4], device_ids=([4]) {'b':(1)2}", [[0, 2], [1, 3]]),
        ("mesh['a'=1,'b'=4] {'b':(2)2}", [[0, 1], [2, 3]]),
    ],
)
def test_replica_groups_in_every_form(text, groups):
    assert parse_groups(text, 4) == groups


def test_groups_are_told_as_torus_axes():
    shape = (2, 2, 2)
    assert group_axes([[0, 1], [2, 3], [4, 5], [6, 7]], shape) == (2,)
    assert group_axes([[0, 4], [1, 5], [2, 6], [3, 7]], shape) == (0,)
    assert group_axes([[0, 1, 2, 3], [4, 5, 6, 7]], shape) == (1, 2)
    assert group_axes([[0, 3], [1, 2], [4, 7], [5, 6]], shape) is None


def test_a_permute_loads_the_links_it_crosses():
    ring = parse_pairs(RING)
    assert permute_hops(ring, (1, 1, 4), (False, False, True)) == ({Hop(2, 1): 1}, 1)
    # Without the wrap-around the last send goes back over three links.
    assert permute_hops(ring, (1, 1, 4), (False, False, False)) == ({Hop(2, 1): 1, Hop(2, -1): 1}, 3)


def ring(opcode, **changes):
    content = {
        "opcode": opcode, "whole_bytes": 8e6, "shard_bytes": 2e6, "groups": "{{0,1,2,3}}", "pairs": "",
        "emitter": "", "strategy": "", "colors": None,
    }  # fmt: skip
    return Collective(**{**content, **changes})


def test_ring_collectives_by_hand():
    # 6 of 8 MB pass, over two links of 40 GB/s of payload, in three hops.
    assert collective_time(ring("all-gather"), TORUS, LINKS).seconds == pytest.approx(6e6 / 80e9 + 3e-6)
    assert collective_time(ring("all-reduce"), TORUS, LINKS).seconds == pytest.approx(2 * (6e6 / 80e9 + 3e-6))
    open_torus = Torus(shape=(1, 1, 4), wrap=(False, False, False), link_bytes_per_s=50e9)
    assert collective_time(ring("all-gather"), open_torus, LINKS).seconds == pytest.approx(6e6 / 40e9 + 3e-6)
