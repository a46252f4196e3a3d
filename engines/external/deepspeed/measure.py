"""Times DeepSpeed on this machine's GPUs. Its launcher runs this file; nothing else imports it.

The first argument is a JSON file: ``model`` (a folder with config.json, and weights where ``weights`` is true),
``batch_size``, ``input_len``, ``output_len``, ``dtype``, ``warmup_runs``, ``runs``, ``seed``, ``tensor_parallel``, and
``zero``, the configuration of ZeRO stage 3, or null for the inference engine. The last line printed is
``SHARDBENCH {"samples_s": […], "versions": {…}}``: seconds of whole runs, prompt and generated tokens.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MARK = "SHARDBENCH"


def main() -> None:
    """Load the model, run it, print the times from rank 0."""
    import deepspeed  # type: ignore[import-not-found,unused-ignore]
    import torch
    import transformers  # type: ignore[import-not-found,unused-ignore]

    arguments = [each for each in sys.argv[1:] if not each.startswith("--local_rank")]
    asked: dict[str, Any] = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(rank)
    deepspeed.init_distributed()
    dtype = getattr(torch, asked["dtype"])
    model = _zero(asked, dtype) if asked["zero"] else _inference(asked, dtype)
    torch.manual_seed(asked["seed"])
    vocab = transformers.AutoConfig.from_pretrained(asked["model"]).vocab_size
    ids = torch.randint(vocab, (asked["batch_size"], asked["input_len"]), device=f"cuda:{rank}")
    count = asked["output_len"]

    def run() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.inference_mode():
            made = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=count,
                max_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )
        torch.cuda.synchronize()
        assert made.shape[1] == asked["input_len"] + count, "every sequence has as many tokens as were asked for"
        return time.perf_counter() - start

    for _ in range(asked["warmup_runs"]):
        run()
    samples = [run() for _ in range(asked["runs"])]
    versions = {each.__name__: each.__version__ for each in (deepspeed, torch, transformers)}
    if rank == 0:
        sys.stdout.write(f"{MARK} {json.dumps({'samples_s': samples, 'versions': versions})}\n")


def _made(asked: dict[str, Any], dtype: Any) -> Any:
    import transformers

    kind: Any = transformers.AutoModelForCausalLM
    if asked["weights"]:
        return kind.from_pretrained(asked["model"], torch_dtype=dtype)
    return kind.from_config(transformers.AutoConfig.from_pretrained(asked["model"]), torch_dtype=dtype)


def _zero(asked: dict[str, Any], dtype: Any) -> Any:
    """ZeRO-Inference: parameters are made where they are offloaded to, and fetched layer by layer."""
    import deepspeed
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    keep: Any = HfDeepSpeedConfig
    kept = keep(asked["zero"])  # from_pretrained loads into ZeRO's partitions while this is alive
    with deepspeed.zero.Init(config_dict_or_path=asked["zero"], dtype=dtype):
        made = _made(asked, dtype)
    engine = deepspeed.initialize(model=made.eval(), config=asked["zero"])[0]
    engine.module.kept_config = kept
    return engine.module.eval()


def _inference(asked: dict[str, Any], dtype: Any) -> Any:
    import deepspeed

    engine = deepspeed.init_inference(
        _made(asked, dtype),
        dtype=dtype,
        tensor_parallel={"tp_size": asked["tensor_parallel"]},
        replace_with_kernel_inject=True,
        max_out_tokens=asked["input_len"] + asked["output_len"],
    )
    return engine.module


if __name__ == "__main__":
    main()
