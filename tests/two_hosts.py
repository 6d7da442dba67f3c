"""Run by test_train as each of two hosts, with the folder of a run: trains there.

The second host is told to end, by SIGTERM, while the run is evaluated; then the run goes on.
"""

import dataclasses
import functools
import os
import signal
import sys

import jax
import test_train

from mmt_jax.configs.config import EvalConfig
from mmt_jax.infer import retrieval
from mmt_jax.train import loop, sharding
from mmt_jax.train.signals import Interrupted


def main(folder):
    config = dataclasses.replace(
        test_train.CONFIG,
        mesh=(("data", 2),),
        eval=EvalConfig(every=2, split="val", limit=5, best="image_retrieval/r@1"),
    )

    scores = functools.partial(retrieval.evaluator, progress=False)

    def stop(*_):
        if jax.process_index() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    try:
        loop.train(config, folder, evaluator=lambda *_: stop, progress=False)
    except Interrupted as stopped:
        print(stopped)
    loop.train(config, folder, evaluator=scores, progress=False)


if __name__ == "__main__":
    sharding.initialize()
    main(*sys.argv[1:])
