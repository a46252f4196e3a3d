"""How many layers a step runs whose tokens leave by chance: by hand, in the limits, and against every outcome."""

from itertools import product

import pytest
from builders.points import point

from engines.core.early_exit import Leaving, leaving_of


def test_every_outcome_of_two_tokens_at_two_exits_counted():
    """5 layers with exits after 2 and 4: a token passes 2, 4 or 5 with r, (1 − r)·r and (1 − r)²."""
    rate, chances = 0.3, {2: 0.3, 4: 0.7 * 0.3, 5: 0.7 * 0.7}
    found = Leaving(5, 2, rate, 2)
    assert found.exits == 2
    assert list(found.parts) == [2, 2, 1]
    assert found.mean_layers == pytest.approx(sum(layers * chance for layers, chance in chances.items()))
    both = [(max(one, two), chances[one] * chances[two]) for one, two in product(chances, repeat=2)]
    assert found.layers_of_a_step == pytest.approx(sum(layers * chance for layers, chance in both))
    # The head is read at the first exit by all, at the second by those that came so far.
    assert found.heads == pytest.approx(1 + sum(chance for layers, chance in both if layers > 2))


@pytest.mark.parametrize(("layers", "every"), [(8, 2), (7, 3), (80, 20), (2, 1)])
def test_none_leave_at_0_all_at_the_first_at_1_and_more_sequences_stay_longer(layers, every):
    nobody, everybody = Leaving(layers, every, 0.0, 16), Leaving(layers, every, 1.0, 16)
    assert nobody.mean_layers == nobody.layers_of_a_step == layers
    assert nobody.heads == nobody.exits == -(-layers // every) - 1
    assert (everybody.mean_layers, everybody.layers_of_a_step, everybody.heads) == (every, every, 1)
    steps = [Leaving(layers, every, 0.4, sequences).layers_of_a_step for sequences in (1, 2, 8, 1000)]
    assert steps == sorted(steps)
    assert steps[0] == pytest.approx(Leaving(layers, every, 0.4, 1).mean_layers)
    assert steps[-1] == pytest.approx(layers, rel=0.05) or layers == 80


def test_a_point_leaves_where_its_rate_is_given():
    keys = {"model": "palm-8b", "hw": "tpu-v4", "num_chips": 4, "phase": "decode", "batch_size": 8}
    keys |= {"engine": "analytic", "input_len": 8, "output_len": 8}
    assert leaving_of(point(**keys)) is None
    assert leaving_of(point(**keys, exit_threshold=0.9)) is None
    assert leaving_of(point(**keys, exit_threshold=0.9, exit_rate=0.5)) == Leaving(32, 8, 0.5, 8)
