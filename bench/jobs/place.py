"""Where a job file runs: its name, image and store."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from bench.jobs.wanted import OBJECT_STORES
from engines.core.errors import InvalidRequest

NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
"""What Kubernetes takes as a name, with room for what it appends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The keys of ``shardbench jobs`` besides the command.

    ``claim`` is a PersistentVolumeClaim that several nodes may write, mounted at ``mount`` in every pod.
    """

    name: str
    image: str | None = None
    claim: str | None = None
    mount: str = "/mnt/results"

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            remedy = "use at most 40 lower-case letters, digits and hyphens"
            raise InvalidRequest("name", self.name, "is not the name of a job", remedy)

    @property
    def needed_image(self) -> str:
        """The container image.

        Raises:
            InvalidRequest: none is given.
        """
        if self.image is None:
            raise InvalidRequest(
                "image", "", "is required", "add image=REGISTRY/IMAGE:TAG, which has shardbench inside"
            )
        return self.image

    def check_store(self, results_dir: str) -> None:
        """Check that pods share the store.

        Raises:
            InvalidRequest: it would be a folder of each pod alone.
        """
        if results_dir.startswith(OBJECT_STORES):
            return
        folder = PurePosixPath(results_dir)
        if self.claim is None or not folder.is_relative_to(self.mount):
            remedy = f"use results_dir={self.mount}/NAME with claim=CLAIM, or gs://BUCKET/NAME"
            raise InvalidRequest("results_dir", results_dir, "would be lost with each pod", remedy)
