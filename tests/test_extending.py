"""What docs/extending.md says that additions cost: each is made, of the code that it shows."""

import json
import pathlib

import numpy as np
import pages
import pytest
import test_study
from PIL import Image

import mmt_jax
import mmt_jax.models
from mmt_jax import detectors
from mmt_jax.cli import main as cli
from mmt_jax.configs import models as sizes
from mmt_jax.configs.config import Config, DataConfig, EvalConfig, ObjectiveConfig, OptimConfig
from mmt_jax.data import formats
from mmt_jax.infer import retrieval
from mmt_jax.ingest import corpora
from mmt_jax.photo import FEATURES
from mmt_jax.study import claims
from mmt_jax.train import loop

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "extending.md"


@pytest.mark.slow
def test_a_family_is_a_folder_and_its_name(tmp_path, monkeypatch):
    """Two files and a name, and it trains, is evaluated and answers."""
    folder = tmp_path / "families" / "average"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    for name in ("config.py", "network.py"):
        (folder / name).write_text(pages.code(PAGE, f"mmt_jax/models/average/{name}"))
    places = [*mmt_jax.models.__path__, str(folder.parent)]
    monkeypatch.setattr(mmt_jax.models, "__path__", places)
    monkeypatch.setattr(sizes, "NAMES", (*sizes.NAMES, "average"))

    config = Config(
        tag="average",
        steps=30,
        batch_size=16,
        log_every=10,
        model=sizes.FAMILIES["average"](),
        objective=ObjectiveConfig(itm="contrastive", candidates=16, mlm=0.0, mrm=0.0),
        data=DataConfig(source="scenes", size=64, vocab_size=300, text_length=16),
        optim=OptimConfig(lr=0.03, warmup_steps=3),
        eval=EvalConfig(limit=10),
    )
    run = tmp_path / "run"
    found = loop.train(config, run, evaluator=retrieval.evaluator, progress=False)
    assert found["loss"] < 3.2  # log 16 + log 2 = 3.47 where nothing is learned
    assert 0 <= found["image_retrieval/r@1"] <= 1
    record = {
        "image/bboxes": np.array([[0, 0, 1, 1, 1]], np.float32),
        "image/detection_features": np.zeros((1, 176), np.float32),
        "image/padding_mask": np.zeros(1, np.int32),
    }
    scores = mmt_jax.load(run).score(record, ["a red circle", "two stars"])
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_a_corpus_is_a_reader_and_a_row(tmp_path, monkeypatch):
    """`titles.tsv`, a file name and a title a line, is prepared as published corpora are."""
    tfds = pytest.importorskip("tensorflow_datasets")
    from mmt_jax.ingest.corpora import builder

    (titles,) = pages.module(PAGE, "mmt_jax/ingest/corpora/titles.py").CORPORA
    monkeypatch.setattr(corpora, "CORPORA", (*corpora.CORPORA, titles))
    configs = {titles.name: tfds.core.BuilderConfig(name=titles.name)}  # made as it is imported
    monkeypatch.setattr(builder.Mmt, "builder_configs", builder.Mmt.builder_configs | configs)
    raw, out = tmp_path / "raw", tmp_path / "out"
    (raw / "photos").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png"]):
        Image.new("RGB", (40, 30), (200 * number, 9, 9)).save(raw / "photos" / name)
    (raw / "titles.tsv").write_text("a.png\tone dark photo\nb.png\tone red photo\n")
    prepared = ["data", "prepare", "--corpus=titles", f"--raw={raw}", f"--out={out}"]
    assert cli.main([*prepared, "--runner=local"]) == 0
    found = {example["image/id"]: example for example in corpora.read(out, "train")}
    assert {key: example["text/captions"] for key, example in found.items()} == {
        "a.png": ["one dark photo"],
        "b.png": ["one red photo"],
    }


def test_a_detector_is_a_module_with_load(tmp_path, monkeypatch):
    module = pages.module(PAGE, "mmt_jax/detectors/halves.py")
    monkeypatch.setitem(detectors._MODULES, "halves", module)
    monkeypatch.setitem(detectors.DETECTORS, "halves", module.MODEL)
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[2:] = 10, 20, 30
    Image.fromarray(picture).save(photos / "1.png")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"image_id": 1, "captions": ["two"]}))
    argv = ["features", f"--images={photos}", f"--out={out}", "--detector=halves:x,scale=0.5"]
    assert cli.main([*argv, f"--captions={tmp_path / 'captions.jsonl'}"]) == 0
    features = formats.read(out, "train").rows[FEATURES]
    np.testing.assert_allclose(features[:2], [[0, 0, 0], [5, 10, 15]], atol=1e-3)


@pytest.mark.slow
def test_a_claim_is_a_row(tmp_path, monkeypatch):
    row = eval(pages.code(PAGE, "in mmt_jax/study/claims.py"), vars(claims))
    monkeypatch.setitem(claims.CLAIMS, row.id, row)
    found, _ = test_study.carry_out(test_study.SMALL, tmp_path / "study")
    assert test_study.claim(found, "C12")["verdict"] == "supported"
    assert row.statement in (tmp_path / "study" / "report.html").read_text()
