"""Ranks photos for captions and captions for photos, exhaustively; or asks a model questions.

  mmt eval --workdir=work/cc --data=scenes@1 --split=test --limit=100 --out=work/cc_test.json
  mmt eval --workdir=work/cc --data=scenes@1 --split=test --probe
  mmt eval --workdir=work/vqa --task=vqa --data=regions:coco --split=val --out=answers.json \\
    --questions=v2_OpenEnded_mscoco_val2014_questions.json \\
    --annotations=v2_mscoco_val2014_annotations.json

Image retrieval finds the photo of a caption, text retrieval any caption of a photo. r@k is the
share of queries whose match is among the first k; a tie counts against the model. A workdir's best
checkpoint is taken. --limit keeps the first N photos and their captions: joint models score every
caption with every photo, so time grows with the square.

--fold ranks within folds of N photos: --limit=5000 --fold=1000 is the "1k" of COCO's test photos.
--ndcg adds ndcg@25 of image retrieval, as TERN reports it: a photo is as relevant as its captions
have words in common with the query (ROUGE-L). With --rerank, models that have embeddings beside
their joint score use it only for the K best photos of each caption and the K best captions of each
photo; what is not among them ranks last. With --by=WORKDIR the embeddings are those of another
model, such as two towers, for any joint model; --weight=W adds W times their product to its score:

  mmt eval --workdir=work/cc --by=work/towers --rerank=32 --data=scenes@1 --split=test

--querybank=SPLIT, such as train, subtracts from each photo's scores a soft maximum of its scores
with the captions of that split of --data, so that photos which fit every caption are found by fewer
(querybank normalisation). Some thousands of captions will do, which of a folder are
--querybank='train[:20%]'. With --rerank it is the dot-product scores that are normalised.

With --top=K, FILE.jsonl gets a line for each caption and each photo: the K best answers with their
scores, and the right ones.

With --probe, generated scenes alone: the share of true captions that score above one that is wrong
in a single way, by kind: another colour, another shape, the opposite relation, the colours of two
objects exchanged (binding), the objects exchanged (subjects). Chance is .5, a tie counts as wrong,
300 photos are asked about unless --limit says how many, and FILE.json gets what is printed.

With --task, one of vqa, gqa, nlvr2, snli_ve, cifar and glue/NAME, the published questions are
answered by a workdir of experiments/tasks.py, or by imported weights whose list of answers is
--labels. It prints the task's official metric, where the file tells what is right, and FILE gets
the answers as the task's server takes them. GLUE and CIFAR need no --data; CIFAR's questions are
FOLDER:SPLIT.

In retrieval, FILE.json gets image_retrieval and text_retrieval, each with r@1, r@5, r@10 and
median_rank, mean_rank, map (mean average precision) and share@k (of a query's right answers among
the first k), and rsum, the six recalls added up; FILE.ranks.npz beside it has the rank of every
query. A SavedModel needs TensorFlow: pip install 'mmt_jax[tf]'.
"""

from __future__ import annotations

import types
import typing

from mmt_jax.cli import flags
from mmt_jax.errors import UsageError

if typing.TYPE_CHECKING:
    import numpy as np

    from mmt_jax.data.pipeline import Examples
    from mmt_jax.infer.querybank import Bank
    from mmt_jax.infer.retrieval import Retrieval, Score
    from mmt_jax.infer.scorer import Scorer

DOING = "reading {workdir}"
FLAGS = (
    flags.Flag("workdir", "DIR|SAVEDMODEL", "of `mmt train`, or of `mmt export`", required=True),
    flags.Flag("data", "SOURCE", "such as scenes, scenes/cc or regions:FOLDER"),
    flags.Flag("split", "SPLIT", "such as test"),
    flags.Flag("task", "NAME", "answer its questions, in place of retrieval"),
    flags.Flag("questions", "FILE", "of the task, as published"),
    flags.Flag("annotations", "FILE", "VQAv2's answers to them"),
    flags.Flag("labels", "FILE", "a JSON list of answers by number; the workdir's by default"),
    flags.Flag("limit", "N", "photos, or questions; all by default", default=0),
    flags.Flag("fold", "N", "rank within folds of N photos; all by default", default=0),
    flags.Flag("ndcg", "", "grade photos by their captions too", default=False),
    flags.Flag("rerank", "K", "score only the K best by embeddings, each way", default=0),
    flags.Flag("by", "WORKDIR", "with --rerank: whose embeddings choose; its own by default"),
    flags.Flag("weight", "W", "of their product, added to the score", default=0.0),
    flags.Flag("querybank", "SPLIT", "captions that photos' products are normalised by"),
    flags.Flag("top", "K", "write each query with its K best answers to FILE.jsonl", default=0),
    flags.Flag("probe", "", "ask by kind of mistake, in place of retrieval", default=False),
    flags.Flag("out", "FILE.json", "where the numbers go; nothing is overwritten"),
    flags.Flag("vocab", "FILE", "of a vocabulary, where the SavedModel carries none"),
)
OF_TASKS = ("questions", "annotations", "labels")
OF_RANKING = ("fold", "ndcg", "rerank", "by", "weight", "querybank", "top", "vocab")
METRICS = ("r@1", "r@5", "r@10", "median_rank", "mean_rank", "map")


def run(args: types.SimpleNamespace) -> None:
    """Evaluates, prints and writes."""
    if args.limit < 0:
        raise UsageError(f"--limit={args.limit} is no number of photos; 0 takes all")
    if args.probe:
        _probe(args)
    elif args.task:
        _answer(args)
    else:
        _rank(args)


def _answer(args: types.SimpleNamespace) -> None:
    """Answers a task's questions, prints the metric and writes the answers."""
    from mmt_jax.configs.tasks import TASKS
    from mmt_jax.data import sources
    from mmt_jax.files import check_new
    from mmt_jax.infer import api, tasks
    from mmt_jax.tasks import labels, records, registry
    from mmt_jax.train import published

    task = registry.scored(args.task)
    for name in OF_RANKING:
        if getattr(args, name):
            raise UsageError(f"--{name} is for retrieval; leave out --task or it")
    if args.out:
        check_new(args.out)
    names = labels.read(args.labels) if args.labels else None
    workdir = published.workdir(args.workdir)
    scorer = api.of_workdir(workdir)
    predictor = scorer.own
    names = names or labels.stored(workdir)
    model = tasks.answering(predictor.model, args.task, names)
    entries = registry.read(args.task, args.questions, args.annotations)
    entries = entries[: args.limit or None]
    corpora = []
    if TASKS[args.task].photos:
        _needs(args)
        corpora = sources.load(args.data, args.split, pixels=model.config.model.pixels, bare=True)
    laid_out = records.Records(
        model.config, entries, names, scorer.tokenizer, corpora, processor=scorer.processor
    )
    found = tasks.answered(
        model,
        predictor.params,
        laid_out,
        names,
        batch_size=max(1, model.config.eval.pairs // 16),
    )
    if args.out:
        registry.write(args.task, args.out, found)
    print(f"{len(found)} answers to {args.task}")
    if all(entry.worth is not None for entry in entries):
        values = task.metrics(entries, found)
        print(flags.table(["metric", "value"], [[n, f"{v:.4g}"] for n, v in values.items()]))


def _needs(args: types.SimpleNamespace) -> None:
    for name in ("data", "split"):
        if getattr(args, name) is None:
            raise UsageError(f"--{name} is missing: say where the photos are; see --help")


def _probe(args: types.SimpleNamespace) -> None:
    """Asks by kind of mistake, prints and writes accuracies."""
    import json

    from mmt_jax.files import check_new, whole
    from mmt_jax.infer import api
    from mmt_jax.scenes.probe import KINDS, PHOTOS
    from mmt_jax.study import probe

    _needs(args)
    for name in ("task", *OF_TASKS, *OF_RANKING):
        if getattr(args, name):
            raise UsageError(f"--{name} says nothing of --probe; leave one of them out")
    out = check_new(args.out) if args.out else None
    scorer = api.load(args.workdir)
    if scorer.predictor is None:
        raise UsageError("--probe is for workdirs and not for a SavedModel; give the workdir")
    found = probe.ask(scorer, args.data, args.split, photos=args.limit or PHOTOS)
    values = {kind: found.accuracy(kind) for kind in KINDS}
    count = len(found.margins) // len(values)
    if out:
        numbers = {k: {"accuracy": v.mean, "low": v.low, "high": v.high} for k, v in values.items()}
        with whole(out) as part:
            part.write_text(json.dumps({"questions": count, **numbers}, indent=2) + "\n")
    print(f"{count} questions of each kind")
    rows = [[k, f"{v.mean:.3f}", f"{v.low:.3f} to {v.high:.3f}"] for k, v in values.items()]
    print(flags.table(["wrong in", "accuracy", "95 % interval"], rows))


def _rank(args: types.SimpleNamespace) -> None:
    """Ranks, prints the metrics and writes them."""
    from mmt_jax.files import check_new, whole
    from mmt_jax.infer import retrieval

    _needs(args)
    for name in OF_TASKS:
        if getattr(args, name):
            raise UsageError(f"--{name} is for a task; name it with --task")
    lines = str(args.out).endswith(".jsonl")
    if args.top or lines:
        if args.top < 1 or not lines:
            raise UsageError(f"--top={args.top} writes K ≥ 1 answers a query to --out=FILE.jsonl")
        with whole(check_new(args.out)) as part, open(part, "w", encoding="utf-8") as file:
            found = _retrieval(args, file)
    else:
        if args.out:
            retrieval.output_paths(args.out)
        found = _retrieval(args)
        if args.out:
            found.write(args.out)
    print(f"{found.metrics['num_images']} photos, {found.metrics['num_captions']} captions")
    names = [*METRICS, retrieval.NDCG] if args.ndcg else METRICS
    ways = {way: found.metrics[way] for way in ("image_retrieval", "text_retrieval")}
    rows = [
        [way, *(f"{values[name]:.4g}" if name in values else "" for name in names)]
        for way, values in ways.items()
    ]
    print(flags.table(["", *names], rows))


def _retrieval(args: types.SimpleNamespace, file: typing.TextIO | None = None) -> Retrieval:
    import json

    from mmt_jax.infer import api, retrieval

    scorer = api.load(args.workdir, vocab=args.vocab)
    predictor = scorer.predictor
    examples = _examples(args, scorer)

    def write(scores: np.ndarray, first: int) -> None:
        assert file is not None
        for answer in retrieval.answers(scores, examples, first, args.top):
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")

    seen = write if file else None
    if predictor is None:
        for name in ("rerank", "by", "weight", "querybank"):
            if getattr(args, name):
                raise UsageError(f"--{name} is for workdirs and not for a SavedModel; leave it out")
        score = retrieval.scores_of(scorer, examples)
        return retrieval.ranked(score, examples, fold=args.fold, ndcg=args.ndcg, seen=seen)
    return retrieval.evaluate(
        predictor.model,
        predictor.params,
        examples,
        fold=args.fold,
        rerank=args.rerank,
        by=_by(args),
        weight=args.weight,
        bank=None if args.by else _bank(args, scorer),
        ndcg=args.ndcg,
        seen=seen,
        pairs=scorer.config.eval.pairs,
        progress=True,
    )


def _examples(args: types.SimpleNamespace, scorer: Scorer) -> Examples:
    """The photos asked about, as a model reads them."""
    from mmt_jax.data import sources

    corpora = sources.load(args.data, args.split, pixels=scorer.config.model.pixels)
    return scorer.examples(sources.first(corpora, args.limit))


def _by(args: types.SimpleNamespace) -> Score | None:
    """What --by chooses pairs by."""
    from mmt_jax.infer import api, retrieval

    if args.by is None:
        return None
    scorer = api.load(args.by)
    if scorer.predictor is None:
        raise UsageError("--by is for workdirs and not for a SavedModel; give the workdir")
    predictor = scorer.predictor
    examples, bank = _examples(args, scorer), _bank(args, scorer)
    return retrieval.similarity(predictor.model, predictor.params, examples, bank)


def _bank(args: types.SimpleNamespace, scorer: Scorer) -> Bank | None:
    """What --querybank normalises by; None = it was not given."""
    from mmt_jax.infer import querybank

    return querybank.of(scorer, args.data, args.querybank, asked=args.split)
