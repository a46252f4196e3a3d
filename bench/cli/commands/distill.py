"""``shardbench distill``: a small model that learns from a text, alone or from a teacher."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.cli.args import Key
from bench.cli.values import FilePath, Integer, Number
from engines.core.errors import InvalidRequest

SUMMARY: Final = "let a small model learn from a text, alone or from a teacher, and write it as a checkpoint"
VERBS: Final[Mapping[str, str]] = {}
PYTHON_DOCS: Final = "python-docs"
HELD_OUT: Final = "held-out.txt"
LEARNED: Final = "learned.txt"
NUMBER: Final = Number(0.0)
KEYS: Final = (
    Key("student", "bytes-0.4m", "the model that learns: a name of conf/model, of 256 byte values"),
    Key("teacher", None, "the checkpoint to learn from; null: from the text alone", kind=FilePath()),
    Key("text", PYTHON_DOCS, f"a text file, or {PYTHON_DOCS}: the reference topics that Python ships (pydoc_data)"),
    Key("out", None, f"the folder for the checkpoint, {LEARNED} (nine tenths of the text) and {HELD_OUT} (the last)",
        required=True, kind=FilePath()),
    Key("steps", 600, "steps of AdamW", kind=Integer(1)),
    Key("batch_size", 16, "pieces of text a step", kind=Integer(1)),
    Key("time", 128, "tokens of a piece", kind=Integer(2)),
    Key("learning_rate", 0.003, "highest learning rate", kind=NUMBER),
    Key("soft_share", 0.7, "share of the teacher's distribution in the loss, the rest is the text's", kind=NUMBER),
    Key("temperature", 2.0, "by which both models' logits are divided for it", kind=NUMBER),
    Key("seed", 0, "of the first weights and of the pieces", kind=Integer(0)),
)  # fmt: skip
EXAMPLES: Final = (
    "shardbench distill student=bytes-1.8m out=teacher",
    "shardbench distill student=bytes-0.4m teacher=teacher out=student",
    "shardbench run model=bytes-0.4m engine=jax hw=cpu num_chips=1 weight_dtype=float32 engine.checkpoint=student "
    "engine.teacher=teacher engine.text=student/held-out.txt",
)


def main(verb: str | None, settings: Mapping[str, Any]) -> int:
    """Train and write. Returns 0.

    Raises:
        InvalidRequest: the text is too short, the student or the teacher does not read bytes, the student is the
            larger of both, or a share or a temperature makes no sense.
        Unsupported: optax or safetensors is not installed.
    """
    import numpy as np
    from rich.console import Console
    from rich.progress import Progress

    from bench.sweep.catalog import load_model
    from engines.weights.checkpoint.describe import model_of
    from engines.weights.checkpoint.identity import told_as
    from engines.weights.checkpoint.source import open_checked
    from engines.weights.checkpoint.write import llama_config, write_checkpoint

    del verb
    if not settings["soft_share"] <= 1:
        raise InvalidRequest("soft_share", settings["soft_share"], "is a share", "use a number from 0 to 1")
    for key, usual in (("temperature", 2), ("learning_rate", 0.003)):
        if not settings[key] > 0:
            raise InvalidRequest(key, settings[key], "must be > 0", f"use a number like {usual}")
    student = load_model(settings["student"])
    teacher = None
    if settings["teacher"] is not None:
        folder = Path(settings["teacher"])
        with told_as("teacher"):
            teacher = model_of(folder), open_checked(folder, model_of(folder))
    for key, model in (("student", student), *([("teacher", teacher[0])] if teacher else [])):
        if model.vocab_size != 256:
            raise InvalidRequest(key, settings[key], f"has {model.vocab_size} tokens, not 256 bytes", "use bytes-0.4m")
    if teacher is not None and student.params > teacher[0].params:
        problem = f"has {student.params:,} parameters, more than the {teacher[0].params:,} of its teacher"
        raise InvalidRequest("student", settings["student"], problem, "name a smaller model, or leave teacher out")
    llama_config(student)  # refuses what could not be written, before it is learned
    if settings["time"] > student.max_positions:
        problem = f"is more than the {student.max_positions} positions of {student.name}"
        raise InvalidRequest("time", settings["time"], problem, "use fewer tokens")
    content = _text(settings["text"])
    cut = len(content) * 9 // 10
    if len(content) - cut <= settings["time"]:
        raise InvalidRequest(
            "text", settings["text"], f"has {len(content)} bytes", f"use {20 * settings['time']} or more"
        )
    # Small models learn on a CPU; whoever has something better and wants it says so, before JAX is imported.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from engines.transformer.training import TrainingConfig, trained

    names = ("steps", "batch_size", "time", "learning_rate", "soft_share", "temperature", "seed")
    config = TrainingConfig(**{name: settings[name] for name in names})
    losses: list[float] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("steps", total=config.steps)

        def told(number: int, loss: float) -> None:
            losses.append(loss)
            progress.update(task, completed=number + 1)

        ids = np.frombuffer(content[:cut], np.uint8).astype(np.int32)
        weights = trained(student, ids, config, teacher, told)
    out = Path(settings["out"])
    write_checkpoint(out, student, weights)
    (out / LEARNED).write_bytes(content[:cut])
    (out / HELD_OUT).write_bytes(content[cut:])
    told_of = {name: settings[name] for name in ("student", "teacher", "text", *names)} | {"losses": losses}
    (out / "training.json").write_text(json.dumps(told_of) + "\n", encoding="utf-8")
    last = losses[-20:]
    print(f"{student.name}: loss {losses[0]:.3f} → {sum(last) / len(last):.3f} after {config.steps} steps; {out}")
    return 0


def _text(source: str) -> bytes:
    if source == PYTHON_DOCS:
        from pydoc_data.topics import topics

        return "\n".join(topics[name] for name in sorted(topics)).encode()
    try:
        return Path(source).read_bytes()
    except OSError:
        raise InvalidRequest("text", source, "cannot be read", f"give a text file, or {PYTHON_DOCS}") from None
