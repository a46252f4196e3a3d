"""How messages count."""


def counted(count: int, noun: str) -> str:
    """``1 row``, ``2 rows``, ``1,550 rows``: of nouns whose plural is theirs and an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
