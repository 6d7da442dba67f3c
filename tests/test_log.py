import errno
import json
import os
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


def test_a_run_that_goes_on_drops_what_came_after_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    for start, kept in ((2, [1, 2]), (5, [1, 2])):
        Log(tmp_path, 10, start=start, progress=False).close()
        assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == kept


def test_a_line_that_lost_its_end_is_not_gone_on_with(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    log = Log(tmp_path, 10, start=2, progress=False)
    log.write(3, {"loss": 1.5})
    log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_history_that_cannot_be_written_anew_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match="No space left"):
        Log(tmp_path, 10, start=1, progress=False)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_weights_and_biases_that_are_missing_are_told_at_once(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with pytest.raises(UsageError, match="pip install wandb"):
        Log(tmp_path, 10, start=0, progress=False)
