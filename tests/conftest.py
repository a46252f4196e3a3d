"""What holds for all tests."""

import atexit
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from room import Room
from temporary import keep_in_one_folder
from thinning import kept

# Threads of PyTorch that wait for work keep their core from the other workers of the suite, and from each other: a test
# of small matrices then takes several times as long. It is read when PyTorch is imported, here or in a child.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# The suite starts hundreds of interpreters of the same modules, each of which would compile them anew where the
# environment asks for no compiled files.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tests measure on a machine that others use, and workers of the suite on one that they share: what else it does is no
# reason for a row not to be valid here, and no test waits for another's measurement. Tests of either say so themselves.
os.environ["HOST_PROC"] = os.environ["HOST_SYS"] = os.devnull
os.environ["SHARDBENCH_DEVICES"] = tempfile.mkdtemp(prefix="shardbench-tests-devices-")
atexit.register(shutil.rmtree, os.environ["SHARDBENCH_DEVICES"], ignore_errors=True)
# A shared machine stalls now and then: an example that took long, or was long in the making, is no failure. And the
# same code passes or fails every time; --hypothesis-profile=explore draws other examples.
STEADY = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("explore", **STEADY)
settings.register_profile("shardbench", derandomize=True, **STEADY)
settings.load_profile("shardbench")
# A shell starts what it runs in the background with Ctrl-C ignored, and so would every command of a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
SLOW_S = 0.5
"""What a slow test takes where its marker does not say it: most stand in a file of many."""
# Tracing a program makes many objects that live as long as the trace: collecting them often finds nothing, and takes a
# tenth of a test's time.
gc.set_threshold(200_000, 20, 100)


def pytest_addoption(parser):
    parser.addoption("--thorough", action="store_true", help="every case of every test: make thorough")


def pytest_configure(config):
    """The controller's folder is that of its workers too."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        config.add_cleanup(keep_in_one_folder().close)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config, items):
    """Thin out cases; keep a file's tests in one worker, unless they name a group of their own; begin with the longest.

    A file's tests share what they have compiled. Files whose slow tests take longest come first
    (``--no-loadscope-reorder`` keeps them there), so that no worker is left with a long file at the end.
    """
    if not config.option.thorough and not _by_name(config):
        _thin_out(config, items)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    seconds = Counter()
    for item in items:
        if (slow := item.get_closest_marker("slow")) is not None:
            seconds[item.path] += slow.kwargs.get("seconds", SLOW_S)
    items.sort(key=lambda item: -seconds[item.path])


def pytest_collection_finish(session):
    """Raise where pytest-xdist would part the tests of a file, each of which then makes what they share again."""
    grouped = hasattr(session.config, "workerinput") and session.config.getvalue("loadgroup")
    if grouped and not all("@" in item.nodeid for item in session.items):
        raise pytest.UsageError("this pytest does not show pytest-xdist the groups of tests: install pytest<9.2")


def _by_name(config):
    """Whether single cases are asked for: those run."""
    return any("::" in each for each in config.args) or bool(config.option.keyword)


def _thin_out(config, items):
    """Leave out what only ``--thorough`` runs."""
    cases, chosen = {}, []
    for item in items:
        if (marker := item.get_closest_marker("thorough")) is None:
            chosen.append(item)
        elif (every := marker.kwargs.get("every")) is not None:
            cases.setdefault((item.path, item.function.__qualname__, every), []).append(item)
    for (*_, every), of_one in cases.items():
        chosen += kept(of_one, every)
    chosen_ids = {id(item) for item in chosen}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen_ids])
    items[:] = [item for item in items if id(item) in chosen_ids]


@pytest.fixture(scope="session")
def worker_room():
    return Room()


@pytest.fixture(scope="module", autouse=True)
def room_for_other_workers(worker_room):
    """After a module the programs that JAX keeps are dropped, where they fill more than a worker's share of memory."""
    yield
    worker_room.make()


@pytest.fixture(scope="module")
def plainly_compiled():
    """What this module's tests compile for this machine is compiled fast and runs slowly; see ``compiling.plainly``."""
    from compiling import jit_plainly

    with pytest.MonkeyPatch.context() as patch:
        jit_plainly(patch)
        yield


@pytest.fixture(scope="module")
def plainly_prepared():
    """What this module's engines lower and compile before they run it, likewise; what they jit stays as it is."""
    from compiling import prepare_plainly

    with pytest.MonkeyPatch.context() as patch:
        prepare_plainly(patch)
        yield


@pytest.fixture(scope="module")
def small_peaks():
    """This module's engine=jax measures the peaks of this machine in no time; see ``quick_engines``."""
    from quick_engines import use_small_peaks

    with pytest.MonkeyPatch.context() as patch:
        use_small_peaks(patch)
        yield


@pytest.fixture(scope="module")
def small_torch_peaks():
    """Likewise engine=torch, in ranks of this process."""
    from quick_engines import use_small_torch_peaks

    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        use_small_torch_peaks(patch)
        yield
