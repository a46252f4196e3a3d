"""The job of a composed config, for ranks that torchrun starts."""

from dataclasses import replace
from typing import Any

from engines.core.chip import Chip
from engines.core.errors import InvalidRequest
from engines.core.model import Model
from engines.core.point import Point
from engines.core.runtime import AUTO, Runtime
from engines.torch.engine import TorchEngine
from engines.torch.job import Job
from engines.torch.quality import scores_of


def job_from(path: str, ranks: int, here: int) -> tuple[Job, TorchEngine]:
    """The job of a YAML file as ``shardbench run … --cfg job`` prints it, and the engine with its settings.

    ``here`` of the ``ranks`` are on this machine.

    Raises:
        InvalidRequest: the file is not a composed config, or its num_chips is not ``ranks``.
        Unsupported: the engine does not support its point.
    """
    from omegaconf import OmegaConf

    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        given = {name: key.alternatives(config[name]) for name, key in Point.schema().items()}
        values: dict[str, Any] = {name: found[0] if len(found) == 1 else found for name, found in given.items()}
        asked = Runtime.from_config(config["runtime"]) if config["runtime"]["name"] != AUTO else None
        model, chip, settings = Model(**config["model"]), Chip.from_config(config["hw"]), dict(config["engine"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(
            "POINT.yaml", path, f"is not a composed config ({error})", "write it with shardbench run … --cfg job"
        ) from None
    point = Point(model=model, chip=chip, engine="torch", runtime=asked, **values)
    if point.num_chips != ranks:
        raise InvalidRequest("num_chips", point.num_chips, f"must be torchrun's {ranks} ranks", "change one of them")
    settings.pop("_target_", None)
    engine = TorchEngine(**settings)
    job = engine.job(point, here)
    return replace(job, scores=scores_of(job)), engine
