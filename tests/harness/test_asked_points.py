"""What was asked is what runs: the points of a command line, counted here by itertools and there by `run`."""

import itertools

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from bench.cli.main import main
from bench.run import runner
from bench.run.runner import RunSummary

pytestmark = pytest.mark.slow

ALPHA = """\
# @package _global_
sweep_name: alpha
points:
  - {model: [palm-8b, tiny], batch_size: [1, 2]}
  - {phase: prefill, batch_size: 4, engine: published}
"""
BETA = """\
# @package _global_
sweep_name: beta
num_chips: 16
points:
  - {engine: [analytic, published], batch_size: 8}
  - {model: own, batch_size: 1}
  - {model: own, batch_size: [1, 2]}
"""
OWN_MODEL = """\
defaults: [tiny, _self_]
name: own
num_layers: 3
"""
SWEPT = """\
defaults: [config, _self_]
hydra:
  sweeper:
    params: {batch_size: "1,2", model: "[tiny, own],palm-8b"}
"""
ALWAYS = """\
defaults: [config, _self_]
hydra: {mode: MULTIRUN}
"""
ENTRIES = {
    None: [{}],
    "alpha": [
        {"model": ["palm-8b", "tiny"], "batch_size": [1, 2]},
        {"phase": ["prefill"], "batch_size": [4], "engine": ["published"]},
    ],
    "beta": [
        {"engine": ["analytic", "published"], "batch_size": [8], "num_chips": [16]},
        {"model": ["own"], "batch_size": [1], "num_chips": [16]},
        {"model": ["own"], "batch_size": [1, 2], "num_chips": [16]},
    ],
}
"""The same recipes once more, with what they set outside of their points in each of them."""
DEFAULTS = {
    "model": ["palm-540b"],
    "engine": ["analytic"],
    "phase": ["decode"],
    "batch_size": [64],
    "num_chips": [64],
}
CHOICES = {
    "model": ["tiny", "palm-8b", "palm-62b", "own"],
    "engine": ["analytic", "published"],
    "phase": ["prefill", "decode"],
    "batch_size": [1, 2, 3, 64],
    "num_chips": [8, 16, 64],
    "sweep": ["alpha", "beta"],
}


FILES = {"sweep/alpha": ALPHA, "sweep/beta": BETA, "model/own": OWN_MODEL, "swept": SWEPT, "always": ALWAYS}


class Asked:
    """`run` up to the points: what it would evaluate."""

    def __init__(self, folder):
        self.folder = folder
        self.requests = []

    def __call__(self, *words):
        self.requests = []
        code = main(["run", "--config-dir", str(self.folder), *words])
        assert code == 0
        return self.points()

    def evaluate(self, requests):
        self.requests = requests
        return RunSummary(is_follower=True)

    def points(self):
        found = [
            (request.options.sweep_name, point.model.name, point.engine, point.phase, point.batch_size, point.num_chips)
            for request in self.requests
            for job in request.jobs
            for point in job.points
        ]
        assert len(found) == len(set(found)), "a point would run twice"
        return set(found)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    found = Asked(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run", found.evaluate)
        yield found


def expected(jobs):
    """The points of jobs, each a mapping from key to its list of values."""
    found = set()
    for job in jobs:
        for recipe in job.get("sweep", [None]):
            for entry in ENTRIES[recipe]:
                values = {**DEFAULTS, **entry, **job}
                found |= {(recipe, *point) for point in itertools.product(*(values[key] for key in DEFAULTS))}
    return found


@st.composite
def lists(draw, key, several=True):
    """(text, values): one value, or a list of them however a user spaces and quotes it."""
    values = draw(st.lists(st.sampled_from(CHOICES[key]), min_size=1, max_size=3 if several else 1))
    if len(values) == 1 and draw(st.booleans()):
        return str(values[0]), values
    quote = draw(st.sampled_from(["", "", "'", '"'])) if isinstance(values[0], str) else ""
    separator = draw(st.sampled_from([",", ", ", " , "]))
    return f"[{separator.join(f'{quote}{value}{quote}' for value in values)}]", values


@st.composite
def command_lines(draw):
    """(words, jobs): overrides of any keys, with lists inside commas inside -m."""
    multirun = draw(st.booleans())
    keys = draw(st.lists(st.sampled_from(sorted(CHOICES)), unique=True, max_size=4))
    words, axes = [], {}
    for key in keys:
        alternatives = [draw(lists(key)) for _ in range(draw(st.integers(1, 2)) if multirun else 1)]
        lead = draw(st.sampled_from(["", "+", "++"] if key in ("model", "engine", "sweep") else [""]))
        words.append(f"{lead}{key}={','.join(text for text, _ in alternatives)}")
        axes[key] = [values for _, values in alternatives]
    jobs = [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*axes.values())]
    position = draw(st.integers(0, len(words)))
    return [*words[:position], *(["-m"] if multirun else []), *words[position:]], jobs


@examples(max_examples=8)
@given(asking=command_lines())
def test_every_point_that_was_asked_is_evaluated_once_and_no_other(asked, asking):
    words, jobs = asking
    assert asked(*words) == expected(jobs)


@pytest.mark.parametrize(
    ("words", "jobs"),
    [
        (["-m", "model=[palm-8b,palm-62b],tiny"], [{"model": ["palm-8b", "palm-62b"]}, {"model": ["tiny"]}]),
        (["sweep=[alpha,beta]"], [{"sweep": ["alpha", "beta"]}]),
        (["+sweep=[alpha, 'beta']", "batch_size=[1,2]"], [{"sweep": ["alpha", "beta"], "batch_size": [1, 2]}]),
        (["+sweep=alpha,beta", "-m"], [{"sweep": ["alpha"]}, {"sweep": ["beta"]}]),
        (["-m", "batch_size=range(1,4)"], [{"batch_size": [1, 2, 3]}]),
        (["-m", "batch_size=choice(1,3)", "model=sort(own,tiny)"], [{"batch_size": [1, 3], "model": ["tiny", "own"]}]),
        (["-m", "model=glob(palm-8*)", "batch_size=shuffle(1,2)"], [{"model": ["palm-8b"], "batch_size": [1, 2]}]),
        (["hydra.mode=MULTIRUN", "batch_size=1,2"], [{"batch_size": [1, 2]}]),
        (["-cn", "swept", "-m"], [{"batch_size": [1, 2], "model": ["tiny", "own", "palm-8b"]}]),
        (["-cn", "swept", "-m", "batch_size=3"], [{"batch_size": [3], "model": ["tiny", "own", "palm-8b"]}]),
        (["--config-name=always", "batch_size=1,2"], [{"batch_size": [1, 2]}]),
        (["batch_size=1", "batch_size=2"], [{"batch_size": [2]}]),
    ],
)  # fmt: skip
def test_each_form_of_several_values(asked, words, jobs):
    assert asked(*words) == expected(jobs)


def test_a_repeated_point_and_a_key_given_twice_are_told(asked, capfd):
    asked("-m", "batch_size=1,1", "num_chips=8", "num_chips=16")
    err = capfd.readouterr().err
    assert "1 point asked more than once" in err
    assert "num_chips is given more than once; the last counts: num_chips=16" in err


def test_changes_of_a_key_hold_for_every_choice_of_a_list_and_of_a_recipe(asked):
    models = {point[1] for point in asked("model=[tiny,palm-8b]", "model.num_layers=5")}
    assert models == {"tiny+num_layers=5", "palm-8b+num_layers=5"}
    models = {point[1] for point in asked("sweep=alpha", "model.num_layers=5")}
    assert models == {"palm-8b+num_layers=5", "tiny+num_layers=5", "palm-540b+num_layers=5"}


def test_each_recipe_keeps_its_own_settings(asked):
    asked("sweep=[alpha,beta]")
    assert {request.options.sweep_name for request in asked.requests} == {"alpha", "beta"}
    asked("sweep=[alpha,beta]", "sweep_name=both")
    assert {request.options.sweep_name for request in asked.requests} == {"both"}


def test_each_engine_of_a_list_has_its_own_settings(asked):
    asked("engine=[analytic,published]", "engine.timeout_s=7")
    settings = [job.engine_config for request in asked.requests for job in request.jobs]
    assert [(each["name"], each["timeout_s"]) for each in settings] == [("analytic", 7), ("published", 7)]


@pytest.mark.parametrize("multirun", [[], ["-m"]])
def test_a_setting_of_some_engines_of_a_list_is_theirs(asked, multirun):
    asked("engine=[analytic,compiled]", "engine.trace_dir=traces", *multirun)
    settings = [job.engine_config for request in asked.requests for job in request.jobs]
    assert [(each["name"], each.get("trace_dir")) for each in settings] == [("analytic", None), ("compiled", "traces")]
    assert main(["run", "engine=[analytic,compiled]", "engine.nokey=3", *multirun]) == 2


@pytest.mark.parametrize("key", ["results_dir", "sweep_name"])
def test_rows_of_a_job_go_where_that_job_says(shardbench, key):
    done = shardbench(
        "run", "-m", f"{key}=here,there", "batch_size=[1,2]", "print=json", "wandb.mode=disabled"
    )  # fmt: skip
    assert len(shardbench.rows(done)) == 4
    folders = ("here", "there") if key == "results_dir" else ("results",)
    for folder in folders:
        lines = [
            line
            for part in (shardbench.folder / folder / "rows").glob("*.jsonl")
            for line in part.open(encoding="utf-8")
        ]
        assert len(lines) == 4 // len(folders)
