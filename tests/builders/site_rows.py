"""Rows of all kinds that a site must show."""

from builders.rows import a_row

HOSTILE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>&lt;b&gt; $x$ </script> `é`"


def rows_of_all_kinds():
    """Rows of every source and outcome on two machines, hostile text in the fields that take any."""
    sources = ("measured", "compiled", "predicted", "published")
    common = {"latency_s": 0.5, "step_time_s": 0.125, "valid": True, "tokens_per_s": 32.0, "mfu": 0.25}
    rows = [
        a_row(**{
            **common,
            "source": source,
            "point_id": f"{source}-{size}",
            "batch_size": size,
            "latency_s": 0.01 * size * (1 + place),
            "cost_chip_s_per_token": 1.0 / size,
            "created_at": f"2026-01-02T03:04:{place:02d}.{size:03d}+00:00",
            "host": "one" if size < 4 else "two",
        })
        for place, source in enumerate(sources)
        for size in (1, 2, 4, 8)
    ]  # fmt: skip
    ends = [("oom", "needs 99 GiB"), ("unsupported", "no such layout"), ("failed", "crashed"), ("timeout", "60 s")]
    rows += [
        a_row(status=status, error=error, source="predicted", point_id=status, created_at=f"2026-01-03T00:00:0{n}.000Z")
        for n, (status, error) in enumerate(ends)
    ]
    rows.append(a_row(**{**common, "valid": False, "invalid_reason": "too noisy", "point_id": "noisy"}))
    texts = dict.fromkeys(("model", "hw", "system", "reference", "host", "device_kind", "invalid_reason"), HOSTILE)
    more = {"versions": {HOSTILE: HOSTILE}, "details": {HOSTILE: {HOSTILE: [HOSTILE]}}, "ffn_layout": HOSTILE}
    rows.append(
        a_row(**{**common, **texts, **more, "point_id": "hostile", "samples_s": [0.4, 0.5, 0.6], "engine": "imported"})
    )
    return rows
