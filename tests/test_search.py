"""Indices of embeddings, and the commands that write and search them."""

import base64
import dataclasses
import io
import json
import re
import shutil

import numpy as np
import pytest
import small_models

from mmt_jax.cli import main as cli
from mmt_jax.corpus import Corpus
from mmt_jax.data import formats
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError
from mmt_jax.infer.predict import Predictor
from mmt_jax.infer.search import index as indices
from mmt_jax.infer.search import sheet
from mmt_jax.photo import FEATURES, WHOLE, rows

pytest.importorskip("faiss")

TOWERS = small_models.config(("text", "image"), family="two_tower", itm="contrastive")
PHOTOS = 90
QUERIES = ("a red cube", "two green balls")


def corpus(*, pixels=True):
    """Photos of one to three rows, with ids that are not their places."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 4, PHOTOS))])
    low = rng.uniform(0, 0.5, (offsets[-1], 2))
    boxes = np.concatenate([low, low + 0.4], axis=1).astype(np.float32)
    boxes[offsets[1:] - 1] = WHOLE[:4]
    words = small_models.CAPTIONS
    return Corpus(
        name="photos",
        image_ids=np.arange(PHOTOS) * 7 + 100,
        offsets=offsets,
        rows=rows(
            rng.normal(size=(offsets[-1], small_models.FEATURE_DIM)).astype(np.float32), boxes
        ),
        captions=tuple(
            (words[i % 4], f"{words[(i + 1) % 4]} <b>&")[: 1 + i % 2] for i in range(PHOTOS)
        ),
        pixels=rng.integers(0, 256, (PHOTOS, 4, 6, 3), np.uint8) if pixels else None,
    )


@pytest.fixture(scope="module")
def towers():
    return small_models.build(TOWERS)


@pytest.fixture(scope="module")
def examples():
    return Examples.of(TOWERS, [corpus()], small_models.TOKENIZER)


@pytest.fixture(scope="module")
def texts():
    return small_models.TOKENIZER.texts(QUERIES, length=small_models.LENGTH)


def photos(found):
    return [[hit.place for hit in hits] for hits in found.hits]


# ---- Indices -------------------------------------------------------------------------------------


def test_inner_products_rank_as_the_model_scores(towers, examples, texts):
    index = indices.build(*towers, examples)
    found = index.search(*towers, texts, top=7)
    scores = Predictor(*towers).score(texts, examples.images(np.arange(PHOTOS)))
    assert photos(found) == np.argsort(-scores, axis=1)[:, :7].tolist()
    best = [[hit.score for hit in hits] for hits in found.hits]
    np.testing.assert_allclose(best, -np.sort(-scores, axis=1)[:, :7], rtol=1e-4)
    assert index.image_ids[:3] == (100, 107, 114)
    assert index.captions[1] == ("two green balls", "a cube left of a ball <b>&")


def test_cosines_leave_lengths_aside(towers, examples, texts):
    found = indices.build(*towers, examples, metric="cosine").search(*towers, texts, top=5)
    images = Predictor(*towers).embed(examples.images(np.arange(PHOTOS)))
    captions = Predictor(*towers).embed(texts)
    lengths = np.linalg.norm(captions, axis=1)[:, None] * np.linalg.norm(images, axis=1)
    cosines = captions @ images.T / lengths
    assert photos(found) == np.argsort(-cosines, axis=1)[:, :5].tolist()
    np.testing.assert_allclose(found.hits[0][0].score, cosines[0].max(), rtol=1e-4)


@pytest.mark.parametrize("metric", indices.METRICS)
@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_other_kinds_find_the_same_among_few_photos(towers, examples, texts, kind, metric):
    flat = indices.build(*towers, examples, metric=metric).search(*towers, texts, top=5)
    found = indices.build(*towers, examples, kind=kind, metric=metric)
    assert photos(found.search(*towers, texts, top=5)) == photos(flat)


def test_an_inverted_file_reads_a_part_of_many_photos():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 4)).astype(np.float32)
    vectors = indices._vectors(indices._faiss(), rows, "ivf")
    assert (vectors.nlist, vectors.nprobe) == (102, 8)  # 4000 // 39 lists


@pytest.mark.parametrize("kind", indices.KINDS)
def test_no_more_photos_than_there_are(towers, examples, texts, kind):
    found = indices.build(*towers, examples, kind=kind).search(*towers, texts, top=500)
    assert sorted(photos(found)[0]) == list(range(PHOTOS))


@pytest.mark.parametrize("kind", indices.KINDS)
def test_an_index_survives_the_disk(towers, examples, texts, tmp_path, kind):
    index = indices.build(*towers, examples, kind=kind, workdir="run", source="s", split="val")
    indices.write(index, tmp_path / "new" / "index")
    again = indices.read(tmp_path / "new" / "index")
    assert (again.about, again.image_ids, again.captions) == (
        index.about,
        index.image_ids,
        index.captions,
    )
    assert again.search(*towers, texts, top=5) == index.search(*towers, texts, top=5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index"]
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        indices.write(index, tmp_path / "new" / "index")


def test_an_index_belongs_to_its_model(towers, examples, texts):
    model, params = towers
    index = indices.build(model, params, examples, workdir="work/towers")
    other = {**params, "text": {**params["text"], "tokens": {"embedding": np.zeros((90, 16))}}}
    with pytest.raises(UsageError, match=r"another model \(by what was in work/towers then\)"):
        index.search(model, other, texts, top=3)
    with pytest.raises(UsageError, match="top is 0"):
        index.search(model, params, texts, top=0)


def test_what_cannot_be_indexed(towers, examples):
    merged = small_models.build(small_models.config(("text", "merged")))
    with pytest.raises(UsageError, match="has no embeddings to be indexed"):
        indices.build(*merged, examples)
    photos = corpus()
    narrow = photos.rows | {FEATURES: photos.rows[FEATURES][:, 1:]}
    photos = dataclasses.replace(photos, rows=narrow)
    with pytest.raises(UsageError, match="features of width 5, but the model reads 6; give"):
        Examples.of(TOWERS, [photos], small_models.TOKENIZER)
    with pytest.raises(UsageError, match="kind=tree is unknown; it is one of flat, ivf, hnsw"):
        indices.build(*towers, examples, kind="tree")
    with pytest.raises(UsageError, match="metric=l2 is unknown"):
        indices.build(*towers, examples, metric="l2")


def test_damaged_indices_are_told(towers, examples, tmp_path):
    index = indices.build(*towers, examples)
    with pytest.raises(UsageError, match=r"gone does not exist; write one with `mmt index"):
        indices.read(tmp_path / "gone")
    with pytest.raises(UsageError, match="is no index"):
        indices.read(tmp_path)
    for name, spoil in (
        ("index.faiss", lambda content: content[: len(content) // 2]),
        ("index.faiss", lambda content: b""),
        ("photos.jsonl", lambda content: content[: content.rindex(b"{")]),
        ("photos.jsonl", lambda content: b'{"image_id": 1}\n'),
        ("index.json", lambda content: b"{}"),
        ("index.json", lambda content: b"["),
    ):
        shutil.rmtree(tmp_path / "index", ignore_errors=True)
        indices.write(index, tmp_path / "index")
        path = tmp_path / "index" / name
        path.write_bytes(spoil(path.read_bytes()))
        with pytest.raises(UsageError, match=r"is damaged .* write it again"):
            indices.read(tmp_path / "index")


def test_fingerprint_changes_with_any_value_path_or_shape():
    params = {"a": {"kernel": np.arange(6.0)}, "b": np.zeros(2)}
    found = indices.fingerprint(params)
    assert found == indices.fingerprint({"b": np.zeros(2), "a": {"kernel": np.arange(6.0)}})
    others = (
        {"a": {"kernel": np.arange(6.0) + np.eye(6)[5] * 1e-9}, "b": np.zeros(2)},
        {"a": {"bias": np.arange(6.0)}, "b": np.zeros(2)},
        {"a": {"kernel": np.arange(6.0).reshape(2, 3)}, "b": np.zeros(2)},
    )
    assert len({found, *map(indices.fingerprint, others)}) == 4


# ---- Commands ------------------------------------------------------------------------------------


@pytest.fixture
def mmt(capsys):
    def run(*argv):
        status = cli.main([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A workdir of two towers, and photos with and without pixels."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "run").mkdir()
    small_models.make_workdir(folder / "run", TOWERS)
    formats.write(corpus(), folder / "photos", "test")
    formats.write(corpus(pixels=False), folder / "plain", "test")
    return folder


def make(mmt, folder, out, data="photos", *more):
    argv = (f"--workdir={folder / 'run'}", f"--data=regions:{folder / data}", "--split=test")
    return mmt("index", *argv, f"--out={out}", *more)


@pytest.mark.slow
def test_the_table_and_its_json(mmt, folder, tmp_path, towers, examples, texts):
    status, out, _ = make(mmt, folder, tmp_path / "index")
    assert status == 0
    assert out.startswith("90 photos of regions:")
    asked = ("search", f"--index={tmp_path / 'index'}", "--top=3")
    captions = [f"--caption={caption}" for caption in QUERIES]
    status, text, _ = mmt(*asked, *captions, "--json")
    assert status == 0
    rows = json.loads(text)
    assert [row["caption"] for row in rows] == list(QUERIES)
    found = indices.build(*towers, examples).search(*towers, texts, top=3)
    for row, hits in zip(rows, found.hits, strict=True):
        assert [photo["rank"] for photo in row["photos"]] == [1, 2, 3]
        assert [photo["image_id"] for photo in row["photos"]] == [100 + 7 * h.place for h in hits]
        assert row["photos"][0]["captions"] == list(corpus().captions[hits[0].place])
    status, table, _ = mmt(*asked, captions[0])
    first = rows[0]["photos"][0]
    numbers = [f"{first[name]:.3f}" for name in ("score", "probability")]
    cells = ["1", *numbers, f"{first['image_id']}", *first["captions"][0].split()]
    assert table.splitlines()[0] == QUERIES[0]
    assert table.splitlines()[3].split() == cells


def test_the_page_shows_the_photos(mmt, folder, tmp_path):
    from matplotlib import image

    make(mmt, folder, tmp_path / "index", "photos", "--metric=cosine", "--kind=hnsw")
    asked = ("search", f"--index={tmp_path / 'index'}", "--caption=a ball <i>", "--json")
    status, text, _ = mmt(*asked, "--top=4", f"--html={tmp_path / 'new' / 'found.html'}")
    assert status == 0
    page = (tmp_path / "new" / "found.html").read_text()
    (row,) = json.loads(text)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 4
    for picture, photo in zip(pictures, row["photos"], strict=True):
        shown = image.imread(io.BytesIO(base64.b64decode(picture)), format="png")
        expected = corpus().pixels[(photo["image_id"] - 100) // 7]
        np.testing.assert_array_equal(np.round(shown[..., :3] * 255), expected)
    assert "a ball &lt;i&gt;" in page
    assert "<i>" not in page
    assert "http" not in page


def test_the_page_escapes_whatever_an_index_holds(towers, examples):
    index = indices.build(*towers, examples)
    ids = ("<script>x</script>",) * PHOTOS
    index = dataclasses.replace(index, image_ids=ids)
    page = sheet.render(index, [("<i>", None)], [[indices.Hit(0, 1.0)]], pixels={}, note="<u>")
    assert not {"<script>", "<i>", "<u>"} & set(re.findall(r"<[^>]*>", page))


def test_photos_without_captions_are_found_too(mmt, folder, tmp_path):
    shutil.copytree(folder / "photos", tmp_path / "bare")
    lines = (tmp_path / "bare" / "test.jsonl").read_text().splitlines()
    photos = [{**json.loads(line), "captions": []} for line in lines]
    (tmp_path / "bare" / "test.jsonl").write_text("\n".join(map(json.dumps, photos)))
    found = []
    for data in (tmp_path / "bare", folder / "photos"):
        out = tmp_path / f"index of {data.name}"
        argv = (f"--workdir={folder / 'run'}", f"--data=regions:{data}", "--split=test")
        assert mmt("index", *argv, f"--out={out}")[0] == 0
        _, text, _ = mmt("search", f"--index={out}", "--caption=a red cube", "--json")
        found.append([hit["image_id"] for hit in json.loads(text)[0]["photos"]])
    assert found[0] == found[1] != []
    status, _, err = mmt("eval", *argv[:1], f"--data=regions:{tmp_path / 'bare'}", "--split=test")
    assert status == 2
    assert "test.jsonl:1: photo 100 has no caption" in err


@pytest.mark.parametrize("kind", ["regions", "records"])
def test_the_page_of_photos_without_pixels(mmt, folder, tmp_path, kind):
    source = f"regions:{folder / 'plain'}"
    if kind == "records":
        pack = ("data", "pack", f"--data={source}", "--split=test", f"--out={tmp_path / 'packed'}")
        assert mmt(*pack)[0] == 0
        source = f"records:{tmp_path / 'packed'}"
    workdir = f"--workdir={folder / 'run'}"
    mmt("index", workdir, f"--data={source}", "--split=test", f"--out={tmp_path / 'index'}")
    page = tmp_path / "found.html"
    asked = ("search", f"--index={tmp_path / 'index'}", "--caption=a ball", f"--html={page}")
    assert mmt(*asked)[0] == 0
    text = page.read_text()
    assert "<img" not in text
    assert "There are no pictures" in text
    assert text.count("<li>") == 10
    status, _, err = mmt(*asked)
    assert status == 2
    assert "found.html exists and is not overwritten" in err


def test_a_page_does_not_show_the_photos_of_a_source_that_changed(mmt, folder, tmp_path):
    shutil.copytree(folder / "photos", tmp_path / "photos")
    argv = (f"--workdir={folder / 'run'}", f"--data=regions:{tmp_path / 'photos'}")
    mmt("index", *argv, "--split=test", f"--out={tmp_path / 'index'}")
    lines = (
        (tmp_path / "photos" / "test.jsonl").read_text().replace('"image_id": 100', '"image_id": 5')
    )
    (tmp_path / "photos" / "test.jsonl").write_text(lines)
    arrays = dict(np.load(tmp_path / "photos" / "test.npz"))
    arrays["image_ids"][0] = 5
    np.savez(tmp_path / "photos" / "test.npz", **arrays)
    page = tmp_path / "found.html"
    mmt("search", f"--index={tmp_path / 'index'}", "--caption=a ball", f"--html={page}")
    assert "has other photos than when it was indexed" in page.read_text()


def test_a_model_that_moved_is_found_by_its_new_path(mmt, folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    argv = (f"--workdir={tmp_path / 'run'}", f"--data=regions:{folder / 'photos'}")
    mmt("index", *argv, "--split=test", f"--out={tmp_path / 'index'}")
    (tmp_path / "run").rename(tmp_path / "moved")
    asked = ("search", f"--index={tmp_path / 'index'}", "--caption=a ball")
    status, _, err = mmt(*asked)
    assert status == 2
    assert "run is not a training workdir" in err
    assert mmt(*asked, f"--workdir={tmp_path / 'moved'}")[0] == 0


def test_wrong_use_of_the_commands(mmt, folder, tmp_path):
    def message(result):
        status, out, err = result
        assert (status, out, err.count("\n")) == (2, "", 1)
        return err

    ask = ("search", f"--index={tmp_path / 'index'}", "--caption=a ball")
    assert "write one with `mmt index" in message(mmt(*ask))
    assert "kind=tree is unknown" in message(
        make(mmt, folder, tmp_path / "x", "photos", "--kind=tree")
    )
    make(mmt, folder, tmp_path / "index")
    assert "not overwritten" in message(make(mmt, folder, tmp_path / "index"))
    assert "top is -1" in message(mmt(*ask, "--top=-1"))
    assert "is empty" in message(mmt(*ask[:2], "--caption= "))
    (tmp_path / "merged").mkdir()
    merged = small_models.config(("text", "merged"))
    small_models.make_workdir(tmp_path / "merged", merged)
    other = f"--workdir={tmp_path / 'merged'}"
    assert "was written by another model" in message(mmt(*ask, other))
    asked = ("index", other, f"--data=regions:{folder / 'photos'}", "--split=test")
    assert "has no embeddings" in message(mmt(*asked, f"--out={tmp_path / 'y'}"))
