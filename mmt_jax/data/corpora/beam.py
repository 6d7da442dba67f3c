"""The same examples on Apache Beam, for corpora of millions of photos."""

from __future__ import annotations

import apache_beam as beam

from mmt_jax.data.corpora import base, builder, examples


class Examples(beam.PTransform):
    """Key and values of each example of a split; what is left out is written to a list.

    One worker reads the annotations, which is quick; photos are spread over all of them. All need
    this package, and the raw folder at the same path.
    """

    def __init__(self, maker: examples.Maker, rejected: str):
        super().__init__()
        self._maker, self._rejected = maker, rejected

    def expand(self, pcoll: beam.Pipeline) -> beam.PCollection:
        """Reads, spreads, makes."""
        maker = self._maker
        made = (
            pcoll
            | "Split" >> beam.Create([maker.split])
            | "Items" >> beam.FlatMap(lambda split: maker.items())
            | "Spread" >> beam.Reshuffle()
            | "Photos" >> beam.Map(maker.example)
        )
        skipped = made | "Skipped" >> beam.Filter(lambda value: isinstance(value, base.Skipped))
        _ = (
            skipped
            | "Lines" >> beam.Map(builder.line)
            | "List" >> beam.io.WriteToText(self._rejected, num_shards=1, shard_name_template="")
        )
        return made | "Examples" >> beam.Filter(lambda value: not isinstance(value, base.Skipped))
