"""Compiling for GPUs that are not there, through the real command line: rows, their reuse, and a quiet stderr."""

import pytest

pytest.importorskip("jax_plugins.xla_cuda12", reason="the compiler comes with shardbench[gpu-compiler]")


def words(folder, *more):
    return [
        "run",
        "engine=compiled",
        "model=gpt-350m",
        "hw=a100-80gb",
        "phase=decode",
        "input_len=32",
        "output_len=2",
        "weight_dtype=float16",
        f"engine.cache_dir={folder}",
        "wandb.mode=disabled",
        "print=json",
        *more,
    ]


@pytest.mark.slow
@pytest.mark.thorough
def test_gpus_of_a_node_are_rows_and_more_of_them_one_sentence(shardbench, tmp_path):
    asked = words(tmp_path / "programs", "num_chips=[2,16]", "batch_size=8")
    done = shardbench(*asked, code=0)
    two, sixteen = shardbench.rows(done)
    assert (two["status"], two["source"], two["hw"]) == ("ok", "compiled", "a100-80gb")
    assert two["details"]["hot_loop"]["decode"]["longest"]
    assert two["versions"]["jax-cuda12-pjrt"]
    assert sixteen["status"] == "unsupported"
    assert "the 8 GPUs of one node" in sixteen["error"]
    # XLA says that it finds no CUDA driver, and that is no news here.
    assert "cuda" not in done.stderr.lower()
    again = shardbench(*asked, code=0)
    assert shardbench.rows(again)[0]["created_at"] == two["created_at"]
    # Another option is another program, and another row.
    other = shardbench(
        *asked[:-2], "num_chips=2", "batch_size=8", "+engine.compiler_options.xla_gpu_enable_triton_gemm=false"
    )
    assert shardbench.rows(other)[0]["point_id"] != two["point_id"]
