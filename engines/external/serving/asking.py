"""What a server with OpenAI's interface says of itself."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Final

from engines.core.errors import ShardbenchError, TimedOut, Unsupported
from engines.host.program import ProgramFailed

ASK_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.1


class NoAnswer(ShardbenchError):
    """Nothing answers at an address; the message is the reason alone."""


def model_names(url: str) -> list[str]:
    """The models that a server lists under ``/v1/models``.

    Raises:
        NoAnswer: nothing answers there, or something else does.
    """
    content = _json(f"{url}/v1/models")
    listed = content.get("data") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) and "id" in each for each in listed):
        raise NoAnswer("what answers lists no models under /v1/models")
    return [str(each["id"]) for each in listed]


def version_of(url: str) -> str | None:
    """What the server says of its version under ``/version``, as vLLM does; None if it does not."""
    try:
        content = _json(f"{url}/version")
    except NoAnswer:
        return None
    return str(content["version"]) if isinstance(content, dict) and "version" in content else None


def wait_until_ready(url: str, timeout_s: float, ended: Callable[[], str | None]) -> None:
    """Return once a server that was just started lists its models.

    Args:
        url: where it will answer.
        timeout_s: how long to wait.
        ended: a sentence if the server has ended, else None.

    Raises:
        ProgramFailed: it ended.
        TimedOut: it does not answer in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            model_names(url)
        except NoAnswer as error:
            if (reason := ended()) is not None:
                raise ProgramFailed(reason) from None
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"engine.start_timeout_s={timeout_s:g}: the server did not answer in time ({error}); raise it"
                ) from None
            time.sleep(POLL_S)
        else:
            return


def chosen_name(url: str, wanted: str | None) -> str:
    """The name by which the server knows the model: ``wanted``, or the only one that it lists.

    Raises:
        ProgramFailed: no server answers at ``url``.
        Unsupported: it does not have the model, or has several and none was named.
    """
    try:
        names = model_names(url)
    except NoAnswer as error:
        raise ProgramFailed(
            f"engine.url={url}: no server answers there ({error}); start it, or give the address of another"
        ) from None
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return str(wanted)
    has = ", ".join(names) or "none"
    if wanted is None:
        raise Unsupported(f"engine.served_model=null: the server has the models {has}; name one of them")
    raise Unsupported(
        f"engine.served_model={wanted}: the server at {url} does not have it; use one of its models: {has}"
    )


def _json(address: str) -> Any:
    try:
        with urllib.request.urlopen(address, timeout=ASK_TIMEOUT_S) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise NoAnswer(f"HTTP status {error.code}") from None
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise NoAnswer(str(getattr(reason, "strerror", None) or reason)) from None
