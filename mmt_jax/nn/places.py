"""Over which axes of a mesh the parameters of shared parts are cut.

A row is a regex over the whole path of a parameter, and what each of its axes is cut over: "model",
by entries; the field of the model's config that counts the heads, over "model" by whole heads; or,
under `config.fsdp`, "data". Attention is cut by heads, an MLP by its inner width, the vocabulary
and the detector classes by entries: each pair of matrices needs one reduction. A family's own rows
are its `Network.places`.
"""

from __future__ import annotations

from jax.sharding import PartitionSpec

P = PartitionSpec
Rows = tuple[tuple[str, PartitionSpec], ...]

PLACES: Rows = (
    (r"(.*/)?tokens/embedding", P("model", "data")),
    (r"(.*/)?positions/embedding", P("data")),
    (r"(.*/)?(segments|(\w+_)?cls)/embedding", P()),
    (r"image/(embed/)?(features|boxes|patches)/(kernel|bias)", P("data")),
    (r"(.*/)?(\w+_)?norm/(scale|bias)", P()),
    *(
        row
        for part, heads in (
            (r"text/stack/.*", "text_heads"),
            (r"image/stack/.*", "image_heads"),
            (r"(?!(text|image)/stack/).*", "heads"),
        )
        for row in (
            (rf"{part}/(attention|cross)/(query|key|value)/kernel", P("data", heads)),
            (rf"{part}/(attention|cross)/(query|key|value)/bias", P(heads)),
            (rf"{part}/(attention|cross)/out/kernel", P(heads, "data")),
        )
    ),
    (r".*/(attention|cross)/out/bias", P()),
    (r".*/mlp/hidden/kernel", P("data", "model")),
    (r".*/mlp/hidden/bias", P("model")),
    (r".*/mlp/out/kernel", P("model", "data")),
    (r".*/mlp/out/bias", P()),
    (r"project_(text|image)/(kernel|bias)", P("data")),
    (r"(.*/)?pooler/(kernel|bias)", P("data")),
    (r"match/(kernel|bias)", P()),
    (r"log_scale", P()),
    (r"calibration/(scale|bias)", P()),
    (r"(word|region|answer)_head/dense/(kernel|bias)", P("data")),
    (r"word_head/decoder/kernel", P("data", "model")),
    (r"word_head/bias", P("model")),
    (r"(region_head/outs/\w+|answer_head/out)/kernel", P("data", "model")),
    (r"(region_head/outs/\w+|answer_head/out)/bias", P("model")),
)
