"""One processor device, and as many threads for every contestant; the ratios stand at the end of the run."""

import os

import pytest

lines = pytest.StashKey[list[str]]()


def pytest_addoption(parser):
    group = parser.getgroup("perf")
    group.addoption("--size", choices=["full", "tiny"], default="full", help="the model; tiny is for trying the suite")
    group.addoption("--threads", type=int, default=0, help="cores that all of them may use; 0 for all there are")
    group.addoption("--seconds", type=float, default=20.0, help="how long each comparison goes on")
    group.addoption("--without-compile", action="store_true", help="leave torch.compile out, which takes a minute")


def pytest_configure(config):
    config.stash[lines] = []
    # Before JAX and torch are imported, which count the cores that they may use.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[: config.getoption("--threads") or len(cores)])
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=1"


def pytest_terminal_summary(terminalreporter, config):
    if config.stash[lines]:
        terminalreporter.section("tokens/s, medians of runs in turn")
        for line in config.stash[lines]:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def say(request):
    """Adds a line to what is told at the end."""
    return request.config.stash[lines].append
