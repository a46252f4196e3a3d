"""What two layouts of the same layer send: every collective of PaLM 540B's layer in a decode step on 64 TPU v4."""

from bench.sweep.catalog import load_chip, load_model
from engines.core.point import Point
from engines.transformer.comm.volume import Transfer, layer_transfers
from engines.transformer.partition.resolve import plan_of

LAYOUTS = ("ws_1d", "ws_2d")


def collectives_of(ffn_layout: str) -> list[Transfer]:
    """The collectives of one layer, one token a sequence, batch 512."""
    point = Point(
        model=load_model("palm-540b"),
        chip=load_chip("tpu-v4"),
        engine="analytic",
        phase="decode",
        num_chips=64,
        batch_size=512,
        input_len=2047,
        output_len=1,
        ffn_layout=ffn_layout,
        attn_sharding="batch",
    )
    return layer_transfers(plan_of(point), time=1)


def main() -> None:
    """Print each layout's collectives and their sum."""
    for layout in LAYOUTS:
        transfers = collectives_of(layout)
        print(f"{layout}: {sum(each.payload_bytes for each in transfers) / 2**20:.1f} MiB a chip and layer")
        for each in transfers:
            print(f"  {each.kind:15} {each.axes:4} {each.payload_bytes / 2**20:7.2f} MiB  {each.what}")


if __name__ == "__main__":
    main()
