"""`mmt export --format=huggingface`: folders that transformers loads, with what belongs there."""

import numpy as np
import pytest
import small_models as small
import test_cards as cards

from mmt_jax import hub as importers
from mmt_jax.cli import main as cli
from mmt_jax.hub import preparation

pytestmark = pytest.mark.torch

CAPTIONS = ["a photo of a cat", "hello, a dog"]


@pytest.fixture(scope="module")
def back(tmp_path_factory):
    """Published → workdir → exported; the last folder, theirs, tokenizer and processor by name."""
    root, found = tmp_path_factory.mktemp("back"), {}
    for name in ("bert", "roberta", "clip"):
        (theirs, *_), tokenizer, photos = cards.SYSTEMS[name]()
        folder, workdir, out = (root / part / name for part in ("in", "run", "out"))
        cards.randomised(theirs).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if photos is not None:
            photos.save_pretrained(folder)
        assert cli.main(["import", f"--from={folder}", f"--model={name}", f"--out={workdir}"]) == 0
        export = ["export", f"--workdir={workdir}", f"--out={out}", "--format=huggingface"]
        assert cli.main(export) == 0
        found[name] = out, theirs, tokenizer, photos
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "roberta", "clip"])
def test_transformers_loads_it_and_says_the_same(back, name):
    torch, transformers, *_ = cards.libraries()
    out, theirs, tokenizer, photos = back[name]
    again, report = type(theirs).from_pretrained(out, output_loading_info=True)
    assert not any(report.values()), report
    own = transformers.AutoTokenizer.from_pretrained(out)
    inputs = tokenizer(CAPTIONS, padding=True, return_tensors="pt")
    assert own(CAPTIONS)["input_ids"] == tokenizer(CAPTIONS)["input_ids"]
    if photos is not None:
        inputs["pixel_values"] = torch.rand(1, 3, cards.SIDE, cards.SIDE)
    with torch.no_grad():
        outs = [model.eval()(**inputs) for model in (theirs, again)]
    logits = [out.logits_per_text if name == "clip" else out.logits for out in outs]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_photos_are_prepared_as_before(back):
    out, _, _, photos = back["clip"]
    again = type(photos).from_pretrained(out)
    assert again.to_dict() == photos.to_dict()


@pytest.mark.parametrize("name", ["clip", "bridgetower"])
def test_photos_of_models_that_came_without_a_way_are_prepared_as_the_familys(tmp_path, name):
    """What is written without the imported file is what is read without it."""
    (theirs, *_), tokenizer, photos = cards.SYSTEMS[name]()
    theirs.save_pretrained(tmp_path / "in")
    tokenizer.save_pretrained(tmp_path / "in")
    found = importers.load(tmp_path / "in", name)
    assert found.others == {}
    importers.save(found.config, found.params, found.tokenizer, tmp_path / "out")
    own = type(photos).from_pretrained(tmp_path / "out")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    expected = own(pixels, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    settings = preparation.read(tmp_path / "out")
    processor = preparation.processor(settings, found.config, name="out")
    ours = (processor(pixels) - preparation.PIXEL_MEAN) / preparation.PIXEL_STD
    np.testing.assert_allclose(ours, expected, atol=0.02)  # 8 bits, over a deviation of 0.26


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (small.config(("merged",)), "family mmt have no counterpart in transformers"),
        (small.config(("text",), family="bert", itm="none"), "[CLS] as the last token"),
    ],
)
def test_what_has_no_counterpart_is_refused(tmp_path, capsys, config, message):
    (tmp_path / "run").mkdir()
    workdir = small.make_workdir(tmp_path / "run", config)
    out = tmp_path / "out"
    export = ["export", f"--workdir={workdir}", f"--out={out}", "--format=huggingface"]
    assert cli.main(export) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not out.exists()
