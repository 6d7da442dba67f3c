import json
import sys
import types

import pytest

from mmt_jax.errors import UsageError
from mmt_jax.train.log import Log


def test_weights_and_biases_gets_what_the_file_gets(monkeypatch, tmp_path):
    told = []
    run = types.SimpleNamespace(
        log=lambda values, step: told.append({"step": step} | values),
        finish=lambda: told.append("over"),
    )
    wandb = types.SimpleNamespace(init=lambda **_: run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    log = Log(tmp_path, 10, start=0, progress=False)
    log.write(5, {"loss": 1.5})
    log.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert told == [json.loads(line), "over"] == [{"step": 5, "loss": 1.5}, "over"]


def test_weights_and_biases_that_are_missing_are_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with pytest.raises(UsageError, match="pip install wandb"):
        Log(tmp_path, 10, start=0, progress=False)
