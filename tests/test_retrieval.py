import dataclasses
import json
import pathlib

import numpy as np
import pytest
import small_models

from mmt_jax.cli.main import main
from mmt_jax.configs.config import EvalConfig
from mmt_jax.corpus import Corpus
from mmt_jax.data import formats, schema
from mmt_jax.data.pipeline import Examples
from mmt_jax.errors import UsageError
from mmt_jax.infer import relevance, retrieval
from mmt_jax.photo import WHOLE, rows

PHOTOS = 4
# Photo by photo: two captions, one, one, two.
CAPTIONS = (
    ("a red cube", "a cube"),
    ("two green balls",),
    ("a cube left of a ball",),
    ("a blue ball", "ball"),
)
MODEL = small_models.config(("text", "single"))
MODEL_JOINT = small_models.config(("text", "merged"))


def corpus(*, image_ids=(10, 11, 12, 13), width=small_models.FEATURE_DIM):
    rng = np.random.default_rng(0)
    offsets = np.array([0, 3, 4, 8, 10])
    low = rng.uniform(0, 0.5, (10, 2))
    boxes = np.concatenate([low, low + 0.4], axis=1).astype(np.float32)
    boxes[offsets[1:] - 1] = WHOLE[:4]
    return Corpus(
        name="photos",
        image_ids=np.array(image_ids),
        offsets=offsets,
        rows=rows(rng.normal(size=(10, width)).astype(np.float32), boxes),
        captions=CAPTIONS,
    )


def examples(*, limit=PHOTOS, **kwargs):
    return Examples([corpus(**kwargs).head(limit)], small_models.TOKENIZER)


def test_both_directions_by_hand():
    scores = np.array(
        [  # photo 0, 1, 2, 3
            [9, 1, 2, 3],  # of photo 0: rank 1
            [5, 6, 7, 1],  # of photo 0: rank 3
            [8, 8, 0, 0],  # of photo 1: tied, rank 2
            [0, 0, 0, 0],  # of photo 2: all tied, rank 4
            [1, 0, 9, 8],  # of photo 3: rank 2
            [0, 0, 0, 1],  # of photo 3: rank 1
        ],
        np.float32,
    )
    found = retrieval.Retrieval.of(scores, examples())
    np.testing.assert_array_equal(found.image_ranks, [1, 3, 2, 4, 2, 1])
    # Photo 0: 9 is on top. 1: 8 is. 2: 0 is behind 9, 7, 2 and tied with 0, 0. 3: 8 is on top.
    np.testing.assert_array_equal(found.text_ranks, [1, 1, 6, 1])
    assert found.metrics["num_images"] == 4
    assert found.metrics["num_captions"] == 6
    assert found.flat() == pytest.approx(
        {
            "image_retrieval/r@1": 2 / 6,
            "image_retrieval/r@5": 1,
            "image_retrieval/r@10": 1,
            "image_retrieval/median_rank": 2,
            "image_retrieval/mean_rank": 13 / 6,
            "image_retrieval/map": (1 + 1 / 3 + 1 / 2 + 1 / 4 + 1 / 2 + 1) / 6,
            "text_retrieval/r@1": 3 / 4,
            "text_retrieval/r@5": 3 / 4,
            "text_retrieval/r@10": 1,
            "text_retrieval/median_rank": 1,
            "text_retrieval/mean_rank": 9 / 4,
            # Photo 0: at 1, and behind 8 at 3. 2: at 6. 3: at 1, and behind two 3s at 4.
            "text_retrieval/map": ((1 + 2 / 3) / 2 + 1 + 1 / 6 + (1 + 2 / 4) / 2) / 4,
            "rsum": 2 / 6 + 1 + 1 + 3 / 4 + 3 / 4 + 1,
        }
    )


def test_answers_tell_each_query_with_what_it_found():
    scores = np.array([[9, 1, 2, 3], *[[0, 1, 2, -np.inf]] * 5], np.float32)
    lines = list(retrieval.answers(scores, examples(), 0, 2))
    ids, captions = examples().image_ids.tolist(), examples().captions
    assert lines[0] == {
        "caption": captions[0],
        "found": [
            {"image_id": ids[0], "score": 9.0, "right": True},
            {"image_id": ids[3], "score": 3.0, "right": False},
        ],
        "right": [ids[0]],
    }
    assert lines[6]["image_id"] == ids[0]
    assert lines[6]["found"][0] == {"caption": captions[0], "score": 9.0, "right": True}
    assert lines[6]["right"] == list(captions[:2])
    assert [len(line["found"]) for line in lines] == [2] * 9 + [1]  # one was not scored


def test_the_same_photo_twice_is_relevant_twice():
    scores = np.zeros((6, 4), np.float32)
    scores[0] = [0, 0, 0, 1]  # a caption of photo 0 prefers its copy
    twice = retrieval.Retrieval.of(scores, examples(image_ids=(10, 11, 12, 10)))
    assert twice.image_ranks[0] == 1
    assert retrieval.Retrieval.of(scores, examples()).image_ranks[0] == 4


@pytest.mark.slow
def test_evaluate_ranks_the_scores_of_the_model():
    model, params = small_models.build(MODEL)
    data = examples()
    found = retrieval.evaluate(model, params, data)
    batch = schema.from_image(data.images(data.caption_to_image))
    # Each caption with its own photo, then with every other: how many are at least as probable?
    texts = schema.from_text(data.texts(np.arange(6)))
    own = small_models.probability(model, params, batch | texts)
    ahead = np.ones(6, int)
    for shift in range(1, PHOTOS):
        others = (data.caption_to_image + shift) % PHOTOS
        inputs = schema.from_image(data.images(others)) | texts
        ahead += small_models.probability(model, params, inputs) >= own
    np.testing.assert_array_equal(found.image_ranks, ahead)


@pytest.mark.slow
def test_photos_are_read_when_their_turn_comes(monkeypatch):
    model, params = small_models.build(MODEL_JOINT)
    data = examples()
    whole = retrieval.evaluate(model, params, data)
    read, images = [], data.images
    monkeypatch.setattr(data, "images", lambda rows: read.append(len(rows)) or images(rows))
    found = retrieval.evaluate(model, params, data, pairs=4)
    assert read == [2, 2]
    np.testing.assert_array_equal(found.image_ranks, whole.image_ranks)


def test_folds_rank_within_themselves():
    scores = np.full((6, 4), 0.1)
    scores[[0, 1, 2, 4, 5], [0, 0, 1, 3, 3]] = 0.5
    scores[0, 3] = 0.9  # a better photo, but of the other fold
    scores[3, 3] = 0.9  # and one of the same fold
    halves = [
        retrieval.Retrieval.of(scores[:3, :2], examples()),
        retrieval.Retrieval.of(scores[3:, 2:], examples(), first=2),
    ]
    found = retrieval.Retrieval.join(halves)
    np.testing.assert_array_equal(found.image_ranks, [1, 1, 1, 2, 1, 1])
    # No caption likes photo 2, its own as little as the others; photo 3's are behind a wrong one.
    np.testing.assert_array_equal(found.text_ranks, [1, 1, 3, 2])
    assert found.image_ids.tolist() == [10, 11, 12, 13]
    assert found.caption_to_image.tolist() == [0, 0, 1, 2, 3, 3]
    assert found.metrics["image_retrieval"]["r@1"] == pytest.approx(5 / 6)


@pytest.mark.slow
def test_evaluate_in_folds_is_evaluating_each():
    model, params = small_models.build(MODEL)
    found = retrieval.evaluate(model, params, examples(), fold=2)
    first = retrieval.evaluate(model, params, examples(limit=2))
    np.testing.assert_array_equal(found.image_ranks[:3], first.image_ranks)
    np.testing.assert_array_equal(found.text_ranks[:2], first.text_ranks)
    assert found.image_ranks.max() <= 2
    whole = retrieval.evaluate(model, params, examples(), fold=4)
    assert whole.flat() == retrieval.evaluate(model, params, examples()).flat()
    for wrong in (3, -2):
        with pytest.raises(UsageError, match=f"4 photos cannot be cut into folds of {wrong}"):
            retrieval.evaluate(model, params, examples(), fold=wrong)


def test_ndcg_grades_photos_by_their_captions(tmp_path):
    scores = np.random.default_rng(0).normal(size=(6, 4))
    captions = [caption for photo in CAPTIONS for caption in photo]
    expected = relevance.ndcg(scores, relevance.rouge_l(captions, CAPTIONS))
    found = retrieval.Retrieval.of(scores, examples(), ndcg=True)
    np.testing.assert_allclose(found.ndcg, expected)
    assert found.flat()["image_retrieval/ndcg@25"] == pytest.approx(expected.mean())
    last = retrieval.Retrieval.of(scores[3:, 2:], examples(), first=2, ndcg=True)
    mine = relevance.ndcg(scores[3:, 2:], relevance.rouge_l(captions[3:], CAPTIONS[2:]))
    np.testing.assert_allclose(last.ndcg, mine)
    found.write(tmp_path / "scores.json")
    with np.load(tmp_path / "scores.ranks.npz") as arrays:
        np.testing.assert_array_equal(arrays["ndcg"], found.ndcg)
    assert "image_retrieval/ndcg@25" not in retrieval.Retrieval.of(scores, examples()).flat()


@pytest.mark.slow
def test_rerank_ranks_what_embeddings_leave_out_last():
    config = small_models.config(("text", "image"), family="two_tower", itm="contrastive")
    model, params = small_models.build(config)
    every, best = (retrieval.evaluate(model, params, examples(), rerank=k) for k in (0, 1))
    # A score that is the embeddings' own keeps the first places as they are.
    np.testing.assert_array_equal(best.image_ranks == 1, every.image_ranks == 1)
    np.testing.assert_array_equal(best.text_ranks == 1, every.text_ranks == 1)
    assert best.image_ranks[2] == PHOTOS  # neither is the other's best
    with pytest.raises(UsageError, match="has no embeddings to choose pairs by"):
        retrieval.evaluate(*small_models.build(MODEL_JOINT), examples(), rerank=1)
    with pytest.raises(UsageError, match="rerank is -1"):
        retrieval.evaluate(model, params, examples(), rerank=-1)


@pytest.mark.slow
def test_rerank_takes_another_models_best_and_adds_its_score():
    model, params = small_models.build(MODEL_JOINT)
    similar = np.random.default_rng(1).permutation(24).reshape(6, 4).astype(np.float32)
    found = {}

    def scores(name, **how):
        def seen(matrix, _):
            found[name] = matrix

        retrieval.evaluate(model, params, examples(), seen=seen, **how)
        return found[name]

    def by(captions, photos):
        return similar[np.ix_(captions, photos)]

    chosen = np.zeros((6, 4), bool)
    chosen[np.arange(6), similar.argmax(axis=1)] = True
    chosen[similar.argmax(axis=0), np.arange(4)] = True
    joint = scores("all")
    wanted = np.where(chosen, joint, -np.inf)
    np.testing.assert_allclose(scores("best", rerank=1, by=by), wanted, atol=1e-5)
    summed = scores("sum", rerank=1, by=by, weight=0.5)
    np.testing.assert_allclose(summed, wanted + 0.5 * similar, atol=1e-5)
    for how in ({"by": by}, {"rerank": 1, "weight": 0.5}):
        with pytest.raises(UsageError, match="with --by=WORKDIR and --rerank=K, both of them"):
            retrieval.evaluate(model, params, examples(), **how)


@pytest.mark.slow
def test_similarity_is_what_a_model_that_embeds_ranks_by():
    model, params = small_models.build(MODEL)
    found = retrieval.similarity(model, params, examples())(np.arange(1, 6), np.array([2, 0]))
    seen = []
    retrieval.evaluate(model, params, examples(), seen=lambda matrix, _: seen.append(matrix))
    np.testing.assert_allclose(found, seen[0][1:][:, [2, 0]], atol=1e-5)
    with pytest.raises(UsageError, match="no embeddings to choose pairs by"):
        retrieval.similarity(*small_models.build(MODEL_JOINT), examples())


@pytest.mark.slow
def test_eval_by_another_workdir_prints_and_writes_what_evaluate_finds(tmp_path, capsys):
    formats.write(corpus(), tmp_path / "photos", "dev")
    workdirs = [str(tmp_path / name) for name in ("joint", "towers")]
    for folder, config in zip(workdirs, (MODEL_JOINT, MODEL), strict=True):
        small_models.make_workdir(pathlib.Path(folder), config)
    asked = ["eval", "--split=dev", f"--data=regions:{tmp_path}/photos", f"--workdir={workdirs[0]}"]

    def mmt(*more):
        return main([*asked, *more]), capsys.readouterr().err

    out = tmp_path / "found.json"
    how = (f"--by={workdirs[1]}", "--rerank=1", "--weight=0.5")
    assert mmt(*how, f"--out={out}")[0] == 0
    model, params = small_models.build(MODEL_JOINT)
    by = retrieval.similarity(*small_models.build(MODEL), examples())
    wanted = retrieval.evaluate(model, params, examples(), rerank=1, by=by, weight=0.5)
    assert json.loads(out.read_text()) == wanted.metrics
    for flags, message in (
        (how[:1], "--by=WORKDIR and --rerank=K, both"),
        (("--weight=1",), "--by=WORKDIR and --rerank=K, both"),
        ((f"--by={workdirs[1]}", "--rerank=1", "--weight=nan"), "weight is nan"),
        ((f"--by={workdirs[0]}", "--rerank=1"), "no embeddings to choose pairs by"),
    ):
        status, said = mmt(*flags)
        assert (status, message in said) == (2, True)


def test_write_keeps_numbers_and_ranks(tmp_path):
    rng = np.random.default_rng(0)
    found = retrieval.Retrieval.of(rng.normal(size=(6, 4)), examples())
    path = tmp_path / "new" / "dev.v1.json"
    found.write(path)
    assert json.loads(path.read_text()) == found.metrics
    with np.load(tmp_path / "new" / "dev.v1.ranks.npz") as file:
        assert set(file.files) == {f.name for f in dataclasses.fields(found)} - {"ndcg"}
        for name in file.files:
            np.testing.assert_array_equal(file[name], getattr(found, name))
    assert len(list(path.parent.iterdir())) == 2


def test_write_overwrites_nothing(tmp_path):
    found = retrieval.Retrieval.of(np.zeros((6, 4)), examples())
    (tmp_path / "dev.ranks.npz").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"dev\.ranks\.npz exists"):
        found.write(tmp_path / "dev.json")
    assert (tmp_path / "dev.ranks.npz").read_bytes() == b"mine"
    assert not (tmp_path / "dev.json").exists()
    with pytest.raises(UsageError, match=r"must end in \.json"):
        found.write(tmp_path / "dev.npz")


def test_what_cannot_be_evaluated_is_told():
    model, params = small_models.build(MODEL)
    with pytest.raises(UsageError, match="width 4, but the model reads 6"):
        Examples.of(MODEL, [corpus(width=4)], small_models.TOKENIZER)
    silent = dataclasses.replace(
        MODEL, objective=dataclasses.replace(MODEL.objective, itm="none"), tag="bert"
    )
    with pytest.raises(UsageError, match="bert scores no pairs"):
        retrieval.evaluate(dataclasses.replace(model, config=silent), params, examples())
    params["pool_text"]["dense"]["bias"] *= np.nan
    with pytest.raises(UsageError, match="NaN"):
        retrieval.evaluate(model, params, examples())


@pytest.fixture
def run(tmp_path):
    """The config of a run on a region folder."""
    folder = tmp_path / "photos"
    formats.write(corpus(), folder, "train")
    formats.write(corpus(), folder, "dev")
    data = dataclasses.replace(MODEL.data, source=f"regions:{folder}")
    return dataclasses.replace(MODEL, data=data, eval=EvalConfig(limit=3))


def test_evaluator_reads_the_split_for_evaluation_with_the_vocabulary_it_is_given(run):
    model, params = small_models.build(run)
    expected = retrieval.evaluate(model, params, examples(limit=3)).flat()
    evaluation = retrieval.evaluator(run, small_models.TOKENIZER)
    assert evaluation(model, params) == expected


def test_a_model_that_scores_no_pairs_has_no_evaluator(run):
    objective = dataclasses.replace(run.objective, itm="none")
    silent = dataclasses.replace(run, objective=objective)
    assert retrieval.evaluator(silent, small_models.TOKENIZER) is None


def test_evaluator_tells_wrong_data_before_training(run, tmp_path):
    def check(**kwargs):
        retrieval.evaluator(
            dataclasses.replace(run, eval=EvalConfig(**kwargs)), small_models.TOKENIZER
        )

    with pytest.raises(UsageError, match="no split 'test'"):
        check(split="test")
    with pytest.raises(UsageError, match=r"config\.eval\.limit is -1"):
        check(limit=-1)
    with pytest.raises(UsageError, match="median_rank' cannot choose a checkpoint"):
        check(best="image_retrieval/median_rank")
    other = tmp_path / "other"
    formats.write(corpus(width=4), other, "dev")
    with pytest.raises(UsageError, match="width 4, but the model reads 6"):
        check(source=f"regions:{other}")
