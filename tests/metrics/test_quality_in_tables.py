from bench.run.progress import print_table
from engines.core.row import Row


def row(**changes) -> Row:
    asked = {"model": "tiny", "hw": "cpu", "num_chips": 1, "engine": "jax", "phase": "decode", "batch_size": 1}
    answer = {"input_len": 1, "output_len": 1, "source": "measured", "status": "ok", "valid": True, "latency_s": 1.0}
    return Row(**{**asked, **answer, **changes})


def test_what_quantising_costs_stands_beside_the_speed(capsys):
    plain = row(weight_dtype="bfloat16")
    print_table([plain, row(weight_dtype="int8", bf16_max_relative_error=0.0214, bf16_kl_divergence=0.00034)])
    heading, *lines = capsys.readouterr().out.splitlines()[1:]
    assert "error to bf16" in heading
    assert "KL to bf16 (nats)" in heading
    assert lines[1].split()[-2:] == ["0.021", "0.00034"]
    assert len(lines[0].split()) == len(lines[1].split()) - 2


def test_nothing_quantised_has_no_column_for_it(capsys):
    print_table([row()])
    assert "bf16" not in capsys.readouterr().out
