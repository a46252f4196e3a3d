"""The package's extras, read from its metadata: which exist, which are installed, which one provides a module."""

from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE: Final = "shardbench"


def extras() -> dict[str, bool]:
    """Extra → whether all its requirements are installed."""
    return {name: all(map(_is_installed, requirements)) for name, requirements in _requirements().items()}


def extra_of(module: str) -> str | None:
    """The smallest extra that requires the distribution named like ``module``; None if there is none."""
    wanted = canonicalize_name(module.partition(".")[0])
    found = [
        name
        for name, requirements in _requirements().items()
        if any(canonicalize_name(each.name) == wanted for each in requirements)
    ]
    return min(found, key=_size, default=None)


def _size(extra: str) -> tuple[int, int]:
    """Number of an extra's requirements, and of the extras in them: jax < gpu < all."""
    requirements = _requirements()[extra]
    return len(requirements), sum(len(each.extras) for each in requirements)


@cache
def _requirements() -> dict[str, list[Requirement]]:
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        return {}  # a checkout that was not installed
    return {name: _of_extra(package, name) for name in package.metadata.get_all("Provides-Extra") or ()}


def _of_extra(package: Distribution, extra: str) -> list[Requirement]:
    """The requirements that an extra adds to the package's own."""
    parsed = [Requirement(line) for line in package.requires or ()]
    return [
        each
        for each in parsed
        if each.marker and each.marker.evaluate({"extra": extra}) and not each.marker.evaluate({"extra": ""})
    ]


def _is_installed(requirement: Requirement) -> bool:
    """Whether a distribution is installed in a matching version, with the extras that the requirement names."""
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        return False
    return requirement.specifier.contains(found.version, prereleases=True) and all(
        _is_installed(each) for extra in requirement.extras for each in _of_extra(found, extra)
    )
