"""A model learns from text and from a teacher, and is written as a checkpoint that every engine reads."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from builders.models import small_model
from builders.points import point

from bench.cli.main import main
from engines.core.errors import InvalidRequest, Unsupported
from engines.jax.engine import JaxEngine
from engines.jax.quality import quality_of
from engines.jax.settings import Settings
from engines.torch.engine import TorchEngine
from engines.transformer.reference import reference_logits
from engines.transformer.training import TrainingConfig, forward, loss_of, read_all, trained
from engines.weights.checkpoint.describe import model_of
from engines.weights.checkpoint.source import open_checked
from engines.weights.checkpoint.write import write_checkpoint
from engines.weights.held_out import windows_of
from engines.weights.random import prompt, tensors, values

pytest.importorskip("optax", reason="comes with shardbench[distill]")
SMALL = small_model(
    block="serial", norm="rmsnorm", norms_per_layer=2, num_kv_heads=2, vocab_size=256, norm_epsilon=1e-6, name="bytes"
)
STUDENT = small_model(
    block="serial", norm="rmsnorm", norms_per_layer=2, num_kv_heads=2, vocab_size=256, norm_epsilon=1e-6, num_layers=1
)
CONFIG = TrainingConfig(steps=30, batch_size=4, time=16, learning_rate=0.02, soft_share=0.5, temperature=2.0, seed=0)
TEXT = b"one two three four five six seven eight nine ten. " * 40
IDS = np.frombuffer(TEXT, np.uint8).astype(np.int32)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    losses = []
    weights = trained(SMALL, IDS, CONFIG, None, lambda _, loss: losses.append(loss))
    write_checkpoint(folder, SMALL, weights)
    (folder / "text.txt").write_bytes(TEXT)
    return folder, weights, losses


def test_what_is_trained_is_what_engines_run():
    tokens = prompt(SMALL, 2, 7, 0)
    ours = np.asarray(forward(SMALL, read_all(SMALL, 0), jnp.asarray(tokens)))
    theirs = reference_logits(SMALL, tokens, list(range(7)), 0).transpose(1, 0, 2)
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_the_loss_falls_from_that_of_guessing(taught):
    _, _, losses = taught
    assert losses[0] == pytest.approx(math.log(256), rel=0.15)
    assert losses[-1] < 0.7 * losses[0]


def test_the_checkpoint_holds_what_was_learned(taught):
    folder, weights, _ = taught
    model = model_of(folder)
    stored = open_checked(folder, model)
    for name, spec in tensors(SMALL).items():
        assert np.array_equal(values(spec, stored), weights[name]), name


def test_the_losses_are_those_of_the_formula():
    pieces = jnp.asarray(IDS[:10].reshape(1, 10))
    own, other = read_all(STUDENT, 1), read_all(SMALL, 0)
    logits, wanted = (np.asarray(forward(*each, pieces[:, :-1]))[0].astype(float) for each in
                      ((STUDENT, own), (SMALL, other)))  # fmt: skip

    def shares(scores):
        raised = np.exp(scores - scores.max(-1, keepdims=True))
        return raised / raised.sum(-1, keepdims=True)

    hard = -np.log(shares(logits)[np.arange(9), IDS[1:10]]).mean()
    p, q = shares(wanted / 2), shares(logits / 2)
    soft = 4 * (p * np.log(p / q)).sum(-1).mean()
    assert float(loss_of(STUDENT, CONFIG, None, own, pieces)) == pytest.approx(hard, rel=1e-4)
    both = float(loss_of(STUDENT, CONFIG, (SMALL, other), own, pieces))
    assert both == pytest.approx(0.5 * hard + 0.5 * soft, rel=1e-3)


def quality(folder, model, source, **settings):
    keys = {"phase": "decode", "batch_size": 1, "input_len": 4, "output_len": 2, "weight_dtype": "float32"}
    asked = point(model, "cpu", engine="jax", num_chips=1, **keys)
    return quality_of(asked, asked, Settings(**settings), source, source)


def test_quality_of_a_teacher_against_itself_is_perfect_and_of_a_stranger_is_not(taught):
    folder, _, losses = taught
    model, text = model_of(folder), str(folder / "text.txt")
    same = quality(folder, model, open_checked(folder, model), teacher=str(folder), text=text)
    assert (same.kl, same.agreement) == (pytest.approx(0, abs=1e-12), 1.0)
    assert math.exp(losses[-1]) < same.perplexity < 5  # pieces of 64 tokens, where 16 were learned
    stranger = quality(folder, STUDENT, 0, teacher=str(folder), text=text)
    assert stranger.kl > 0.5
    assert stranger.agreement < 0.5
    assert stranger.perplexity > 5 * same.perplexity
    assert quality(folder, STUDENT, 0) is None


def test_a_student_comes_nearer_to_its_teacher(taught):
    folder, _, _ = taught
    teacher = model_of(folder), open_checked(folder, model_of(folder))
    kept = []
    trained(STUDENT, IDS, CONFIG, teacher, lambda _, loss: kept.append(loss))
    assert kept[-1] < 0.7 * kept[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["student=tiny"], "has 1024 tokens, not 256 bytes"),
        (["student=llama-3.2-1b"], "has 128256 tokens, not 256 bytes"),
        (["text=nowhere.txt"], "text=nowhere.txt: cannot be read"),
        (["temperature=0"], "temperature=0.0: must be > 0"),
        (["soft_share=2"], "soft_share=2.0: is a share"),
        (["steps=0"], "steps=0"),
        (["learning_rate=0"], "learning_rate=0.0: must be > 0"),
        (["time=4096"], "time=4096: is more than the 2048 positions of bytes-0.4m"),
        (["teacher=nowhere"], "teacher=nowhere: is not a folder"),
    ],
)
def test_bad_keys_are_refused_before_anything_is_learned(words, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["distill", "out=made", *words]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_writes_checkpoint_held_out_text_and_losses(tmp_path, capsys, monkeypatch):
    config = tmp_path / "conf" / "model"
    config.mkdir(parents=True)
    from bench.sweep.model_files import model_yaml

    (config / "bytes-small.yaml").write_text(model_yaml(STUDENT).replace("name: small", "name: bytes-small"))
    (tmp_path / "text.txt").write_bytes(TEXT)
    monkeypatch.chdir(tmp_path)
    words = ["steps=2", "batch_size=2", "time=8", "text=text.txt", "student=bytes-small", "out=made"]
    assert main(["distill", "--config-dir", "conf", *words]) == 0
    assert "after 2 steps" in capsys.readouterr().out
    learned, held_out = ((tmp_path / "made" / f"{name}.txt").read_bytes() for name in ("learned", "held-out"))
    assert held_out == TEXT[len(TEXT) * 9 // 10 :]
    assert learned + held_out == TEXT
    assert len(json.loads((tmp_path / "made" / "training.json").read_text())["losses"]) == 2
    assert model_of(tmp_path / "made").num_layers == 1


def test_a_text_without_tokens_or_too_short_is_refused(tmp_path):
    (tmp_path / "text").write_text("short")
    with pytest.raises(InvalidRequest, match="has 5 tokens"):
        windows_of(str(tmp_path / "text"), SMALL, None)
    with pytest.raises(InvalidRequest, match="without a tokenizer"):
        windows_of(str(tmp_path / "text"), small_model(), None)


def test_only_what_llamas_config_says_is_written(tmp_path):
    with pytest.raises(Unsupported, match="only models with Llama's layer"):
        write_checkpoint(tmp_path / "made", small_model(), {})
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("engine", [JaxEngine, TorchEngine])
@pytest.mark.parametrize("key", ["checkpoint", "teacher"])
def test_what_is_no_checkpoint_is_told_by_the_key_that_named_it(engine, key, tmp_path):
    with pytest.raises(InvalidRequest, match=rf"engine\.{key}="):
        engine(**{key: str(tmp_path)})


def test_perplexity_is_that_of_another_program(taught):
    """exp of transformers' own loss over the same pieces of text."""
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    folder, _, _ = taught
    text = str(folder / "text.txt")
    pieces = torch.from_numpy(windows_of(text, model_of(folder), None)).long()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        loss = float(theirs(input_ids=pieces, labels=pieces).loss)
    ours = quality(folder, model_of(folder), open_checked(folder, model_of(folder)), text=text)
    assert ours.perplexity == pytest.approx(math.exp(loss), rel=1e-5)
