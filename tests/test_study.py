"""A study from plan to page, with training and evaluation played by fakes."""

import csv
import html.parser
import json
import math
import pathlib
import xml.etree.ElementTree
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from experiments.studies import STUDIES
from mmt_jax.configs import variants
from mmt_jax.configs.config import EvalConfig, Study
from mmt_jax.errors import UsageError
from mmt_jax.scenes.probe import KINDS, questions
from mmt_jax.study import figures, findings, probe, stats, verdicts
from mmt_jax.study.plan import amend, configure, parse_overrides, plan
from mmt_jax.study.run import ablate

R1 = "image_retrieval/r@1"
# R@1 by tag; seed k scores k hundredths more, `EXTRA` on top.
SCORES = {
    "data_cc": 0.40,
    "architecture_coattention": 0.42,
    "architecture_single-modality": 0.10,
    "baseline_baseline-no-bert-transfer": 0.20,
    "data_sbu": 0.05,
}
EXTRA = {("data_cc", 1): 0.004, ("architecture_single-modality", 2): 0.006}
SMALL = Study("small", tuple(SCORES), seeds=3, overrides={"steps": 50, "batch_size": 16})


class Fakes:
    """Counts what is trained and tested; scores are known."""

    def __init__(self, stop_after=None, *, probed=False):
        self.trained, self.tested = [], []
        self.probed = probed
        self.stop_after = stop_after

    def score(self, config):
        tag, seed = config.tag, config.seed
        return SCORES.get(tag, 0.3) + seed / 100 + EXTRA.get((tag, seed), 0)

    def train(self, config, workdir):
        if len(self.trained) == self.stop_after:
            raise KeyboardInterrupt
        if config.init_from:
            start = pathlib.Path(config.init_from).parts[-2:]
            point = pathlib.Path(workdir).parts[-2].removeprefix(config.tag)
            assert start == (config.pretrained + point, f"seed{config.seed}")
            assert (config.pretrained, config.seed) in self.trained
        self.trained.append((config.tag, config.seed))
        folder = pathlib.Path(workdir)
        folder.mkdir(parents=True)  # training refuses a folder with files of others
        lines = [{"step": step, "itm": 1 / step} for step in (1, 2, 4)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        return {R1: self.score(config) - 0.01, "loss": 1.0}

    def evaluate(self, config, workdir, test):
        self.tested.append((config.tag, config.seed, test.source, test.split, test.limit))
        if self.probed:  # right in `score` of the answers
            asked = questions("target", "test", level=1)
            margins = self.score(config) * 200 - np.repeat(np.arange(len(asked) // 5), 5)
            probe.Probe(asked, margins).store(pathlib.Path(workdir))
        photos = np.repeat(np.arange(100), 5)
        ranks = np.where(np.arange(500) < 500 * self.score(config), 1, 12)
        metrics = {R1: self.score(config), "image_retrieval/median_rank": 3.0}
        return metrics, {"image_retrieval": ranks, "text_retrieval": photos, "photos": photos}


def carry_out(study, workdir, fakes=None, **kwargs):
    fakes = fakes or Fakes()
    found = ablate(study, workdir, train=fakes.train, evaluate=fakes.evaluate, **kwargs)
    return found, fakes


@pytest.fixture(autouse=True)
def quick_figures(request, monkeypatch):
    """Drawing takes most of the time; only the study that all look at has real figures."""
    if "finished" not in request.fixturenames:
        monkeypatch.setattr(figures, "_svg", lambda draw, **_: "<svg></svg>")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    found, fakes = carry_out(SMALL, workdir)
    return workdir, found, fakes


def claim(found, name):
    return next(entry for entry in found["claims"] if entry["id"] == name)


def test_every_tag_runs_with_every_seed_and_is_tested_once(finished):
    _, _, fakes = finished
    wanted = {(tag, seed) for tag in SCORES for seed in range(3)}
    assert set(fakes.trained) == wanted
    assert len(fakes.trained) == len(fakes.tested) == len(wanted)
    assert {entry[2:] for entry in fakes.tested} == {("scenes", "test", 0)}


def test_whole_seeds_come_first(finished):
    _, _, fakes = finished
    assert [seed for _, seed in fakes.trained] == [0] * 5 + [1] * 5 + [2] * 5


def test_table(finished):
    _, found, _ = finished
    assert [row["tag"] for row in found["table"]] == [
        "architecture_coattention",
        "data_cc",
        "baseline_baseline-no-bert-transfer",
        "architecture_single-modality",
        "data_sbu",
    ]
    coattention = found["table"][0]["metrics"][R1]
    # .42, .43, .44: mean .43, s = .01, t(2, 0.975) = 4.302653
    assert coattention["mean"] == pytest.approx(0.43)
    assert coattention["low"] == pytest.approx(0.43 - 4.302653 * 0.01 / 3**0.5)
    assert found["table"][0]["metrics"]["image_retrieval/median_rank"]["mean"] == 3


def test_verdicts(finished):
    _, found, _ = finished
    # data_cc - single modality: .300, .304, .294
    parts = claim(found, "C5")["comparisons"]
    assert parts[0]["interval"]["mean"] == pytest.approx(0.898 / 3)
    assert parts[0]["verdict"] == "supported"
    assert claim(found, "C5")["verdict"] == "undecided"
    assert claim(found, "C5")["missing"] == ["architecture_vilbert-1block"]
    assert claim(found, "C9")["verdict"] is None
    assert set(claim(found, "C9")["missing"]) == {"loss_itm_mlm", "loss_itm_mrm"}
    baseline = claim(found, "C11")["comparisons"]
    assert baseline[0]["verdict"] == "supported"
    assert "no spread" in baseline[1]["reason"]  # all seeds differ by exactly .22


def test_csv_has_a_line_a_run(finished):
    workdir, _, _ = finished
    with open(workdir / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    row = next(r for r in rows if r["tag"] == "data_sbu" and r["seed"] == "2")
    assert float(row[R1]) == pytest.approx(0.07)
    assert float(row["validation"]) == pytest.approx(0.06)
    assert row["steps"] == "50"
    assert row["train"] == "scenes/sbu train"
    assert row["test"] == "scenes test"


class Page(html.parser.HTMLParser):
    """Collects what a page would load, and its text."""

    def __init__(self, text):
        super().__init__()
        self.assets, self.words, self.ids, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data") and not value.startswith("#"):
                self.assets.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.words.append(data)


def test_page_stands_by_itself(finished):
    workdir, _, _ = finished
    text = (workdir / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.assets == []
    assert not {"script", "link", "img"} & set(page.tags)
    assert "@import" not in text
    assert page.tags.count("svg") == 3  # scores, comparisons, training


def test_figures_of_the_page_are_files_too(finished):
    workdir, _, _ = finished
    page = (workdir / "report.html").read_text(encoding="utf-8")
    files = sorted((workdir / "figures").iterdir())
    assert [file.name for file in files] == ["comparisons.svg", "scores.svg", "training.svg"]
    for file in files:
        drawn = file.read_text(encoding="utf-8")
        assert drawn in page
        assert xml.etree.ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"


def test_curves_have_bands_over_seeds(tmp_path):
    for seed, value in enumerate((0.2, 0.4)):
        lines = [{"step": 1, "itm": value}, {"step": 2, "loss": 1.0}]
        (tmp_path / f"{seed}").mkdir()
        (tmp_path / f"{seed}" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    runs = [SimpleNamespace(run=SimpleNamespace(folder=tmp_path / seed)) for seed in "01"]
    steps, (at,) = findings.curve(runs, "itm")
    assert steps == [1]
    half = 12.7062 * 0.1  # Student's t with one degree of freedom times the standard error
    assert (at.low, at.mean, at.high) == pytest.approx((0.3 - half, 0.3, 0.3 + half), rel=1e-4)


@pytest.mark.usefixtures("finished")  # draws in earnest
def test_variants_that_do_not_differ_can_be_drawn():
    same = verdicts.Outcome("a = b", low=-1, high=1, interval=stats.Interval(0, 0, 0, "none"))
    assert figures.comparisons([("C1", same)]).startswith("<svg")


def test_figures_of_a_report_before_do_not_stay(finished):
    workdir, _, _ = finished
    old = workdir / "figures" / "corpora.svg"
    old.write_text("<svg/>")
    carry_out(SMALL, workdir)
    assert not old.exists()


def test_page_says_what_was_found_and_how(finished):
    workdir, _, _ = finished
    words = " ".join(Page((workdir / "report.html").read_text(encoding="utf-8")).words)
    for tag in SCORES:
        assert tag in words
    assert "Multimodal attention beats deeper modality-specific attention." in words
    assert "were chosen by image_retrieval/r@1 on scenes val (100 photos)" in words
    assert "scenes test (all photos" in words
    assert "Holm" in words
    assert "t over 3 seeds" in words


def test_best_by_validation_is_marked(finished):
    workdir, found, _ = finished
    best = json.loads((workdir / "best.json").read_text())
    assert best == found["best"]
    assert (best["tag"], best["seed"]) == ("architecture_coattention", 2)
    assert best["value"] == pytest.approx(0.43)
    linked = (workdir / "best").resolve()
    assert linked == (workdir / "runs" / "architecture_coattention" / "seed2").resolve()


def test_a_finished_study_is_reported_without_running(finished):
    workdir, found, _ = finished
    before = (workdir / "report.html").read_text()
    (workdir / "report.html").unlink()
    again, fakes = carry_out(SMALL, workdir)
    assert fakes.trained == fakes.tested == []
    assert again == found
    assert (workdir / "report.html").read_text() == before


def test_an_interrupted_study_goes_on(tmp_path):
    stopped = Fakes(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        carry_out(SMALL, tmp_path, stopped, seeds=1)
    assert not (tmp_path / "report.html").exists()
    found, fakes = carry_out(SMALL, tmp_path, seeds=1)
    assert len(fakes.trained) == 3
    assert not set(fakes.trained) & set(stopped.trained)
    assert len(found["table"]) == 5


def test_more_seeds_may_be_asked_for(tmp_path):
    carry_out(SMALL, tmp_path, seeds=1)
    _, fakes = carry_out(SMALL, tmp_path, seeds=2)
    assert {seed for _, seed in fakes.trained} == {1}


def test_other_settings_do_not_mix(tmp_path):
    carry_out(SMALL, tmp_path, seeds=1)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"config\.steps=50 \(now 60\)"):
        carry_out(SMALL, tmp_path, seeds=1, overrides={"steps": 60})
    with pytest.raises(UsageError, match=r"test\.limit=0 \(now 7\)"):
        carry_out(SMALL, tmp_path, seeds=1, overrides={"test.limit": 7})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_study_goes_on_though_the_config_has_a_new_field(tmp_path):
    """Settings that were noted before there was `objective.itc`, whose default they meant."""
    with pytest.raises(KeyboardInterrupt):
        carry_out(SMALL, tmp_path, Fakes(stop_after=2), seeds=1)
    for path in tmp_path.rglob("*.settings.json"):
        settings = json.loads(path.read_text())
        del settings["config"]["objective"]["itc"]
        path.write_text(json.dumps(settings))
    _, fakes = carry_out(SMALL, tmp_path, seeds=1)
    assert len(fakes.trained) == 3


def test_one_seed_has_intervals_over_photos_and_no_verdicts(tmp_path):
    found, _ = carry_out(SMALL, tmp_path, seeds=1)
    metric = found["table"][1]["metrics"][R1]
    assert metric["method"] == "bootstrap over 100 photos"
    assert metric["low"] < 0.40 < metric["high"]
    # A photo is hit by all of its five captions or by none: the deviation is √(.4 · .6 / 100).
    assert metric["high"] - metric["low"] == pytest.approx(2 * 1.96 * 0.049, rel=0.15)
    spoken = [entry for entry in found["claims"] if entry["verdict"]]
    assert {entry["verdict"] for entry in spoken} == {"undecided"}
    assert "at least 1 more seed" in json.dumps(spoken)


def test_pretrained_rows_are_trained_once_and_first(tmp_path):
    study = Study(
        "tuned", ("data-ft_cc", "data_cc-with-bert", "baseline-ft_baseline", "data_cc"), seeds=2
    )
    found, fakes = carry_out(study, tmp_path)
    assert fakes.trained == [
        (tag, seed)
        for seed in range(2)
        for tag in (
            *("data_cc", "data-ft_cc", "bert", "data_cc-with-bert"),
            *("baseline_baseline", "baseline-ft_baseline"),
        )
    ]
    assert "bert" not in {entry[0] for entry in fakes.tested}  # it matches no pairs
    assert "bert" not in {row["tag"] for row in found["table"]}


def test_systems_have_the_same_data_and_budget():
    runs = plan(amend(STUDIES["systems"], seeds=1), "nowhere")
    families = {run.tag: run.config.model.family for run in runs}
    assert families == {
        "data_cc": "mmt",
        "lxmert_base": "lxmert",
        "bridgetower_base": "bridgetower",
        "pixel_vilbert_cc-full-image": "mmt",
        "tern_original": "tern",
        "baseline_baseline-no-bert-transfer": "two_tower",
    }
    assert {run.config.scale for run in runs} == {"pilot"}
    assert {run.config.data.source for run in runs} == {"scenes@1/cc"}
    budgets = {
        (run.config.steps, run.config.batch_size, run.config.optim.lr, run.config.eval.limit)
        for run in runs
    }
    assert budgets == {(700, 128, 2e-3, 50)}
    assert len({run.test for run in runs}) == 1


def test_a_row_may_be_a_config_file(tmp_path):
    row = "tern:kaylode"
    study = Study("rows", ("data_cc", row), seeds=1, scale="pilot")
    found, fakes = carry_out(study, tmp_path / "study")
    assert fakes.trained == [("data_cc", 0), ("tern_kaylode", 0)]
    assert {entry["tag"] for entry in found["table"]} == {"data_cc", "tern_kaylode"}
    amended = amend(study, overrides={"batch_size": 16, "scale": "tiny"})
    config = configure(amended, row, 1)
    assert (config.scale, config.seed, config.objective.candidates) == ("tiny", 1, 16)
    (tmp_path / "empty.py").write_text("")
    for wrong, message in (
        ("experiments/bert.py:base", "no config file 'experiments/bert.py'"),
        ("tern:huge", "'huge,scale=pilot' is no config of TERN"),
        (f"{tmp_path / 'empty.py'}:base", "does not define get_config"),
    ):
        with pytest.raises(UsageError, match=message):
            plan(Study("wrong", (wrong,), scale="pilot"), tmp_path)


def test_rows_are_chosen_by_the_same_metric(tmp_path):
    row = tiny.row(tmp_path, tag="mine", eval=EvalConfig(best="rsum"))
    study = Study("mixed", ("data_cc", row), seeds=1)
    with pytest.raises(UsageError, match="best is image_retrieval/r@1 in data_cc and rsum"):
        plan(study, tmp_path)
    assert plan(amend(study, overrides={"eval.best": "rsum"}), tmp_path)


def test_a_report_is_json_whatever_was_set(tmp_path):
    study = Study("plain", ("data_cc",), seeds=1, overrides={"optim.clip_norm": math.inf})
    carry_out(study, tmp_path)
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)


def test_aliases_are_the_same_run(tmp_path):
    study = Study("alias", ("loss_itm+mrm", "loss_itm_mrm"), seeds=1)
    assert [run.tag for run in plan(study, tmp_path)] == ["loss_itm_mrm"]


@pytest.mark.usefixtures("finished")  # draws in earnest
def test_a_tag_is_text_wherever_it_stands(tmp_path):
    tag = "<script>&$x^[red] 'n' \"m\""
    row = tiny.row(tmp_path, tag=tag)
    fakes = Fakes(probed=True)
    carry_out(Study("<b>", (row, "data_cc"), seeds=2), tmp_path / "study", fakes)
    page = Page((tmp_path / "study" / "report.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert page.words.count(tag) >= 5  # best, tables, figures
    assert any(word.startswith("Study: <b>") for word in page.words)


@pytest.mark.slow
def test_kinds_of_mistakes_over_seeds(tmp_path):
    found, _ = carry_out(SMALL, tmp_path, Fakes(probed=True), seeds=2)
    asked = questions("target", "test", level=1)
    count = len(asked) // 5
    for tag, kinds in found["mistakes"].items():
        assert list(kinds) == list(KINDS)
        scores = [SCORES[tag] + seed / 100 + EXTRA.get((tag, seed), 0) for seed in range(2)]
        right = [min(math.ceil(200 * score), count) / count for score in scores]
        for interval in kinds.values():
            assert interval["mean"] == pytest.approx(np.mean(right))
            assert interval["method"] == "t over 2 seeds"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What attention is for, by kind of mistake" in page
    assert "Most often confused" in page
    assert "What it finds" not in page  # no checkpoint to ask


def test_a_study_of_photos_has_no_kinds_of_mistakes(tmp_path):
    source = folder_of_photos(tmp_path / "photos", "train", "dev", "test")
    found, _ = carry_out(SMALL, tmp_path / "study", seeds=1, overrides={"data.source": source})
    assert found["mistakes"] == {}
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert "kind of mistake" not in page


def test_two_configs_of_one_tag_are_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import dataclasses\n"
        "from mmt_jax.configs import variants\n"
        "def get_config(arg):\n"
        "    rate, scale = arg.split(',')\n"
        "    config = variants.parse(f'data_cc,{scale}')\n"
        "    tag = config.tag if float(rate) else ''\n"
        "    optim = dataclasses.replace(config.optim, lr=float(rate))\n"
        "    return dataclasses.asdict(dataclasses.replace(config, tag=tag, optim=optim))\n"
    )
    for rows in ((f"{path}:1e-3", f"{path}:3e-3"), (f"{path}:0.5", "data_cc")):
        with pytest.raises(UsageError, match="two configs with the tag 'data_cc'"):
            plan(Study("rates", rows), tmp_path / "study")
    with pytest.raises(UsageError, match="a config without a tag"):
        plan(Study("rates", (f"{path}:0",)), tmp_path / "study")


def test_a_study_can_be_moved(tmp_path):
    study = Study("tuned", ("data-ft_cc",), seeds=1)
    carry_out(study, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    _, fakes = carry_out(study, tmp_path / "there")
    assert fakes.trained == []


def test_damaged_results_are_named(tmp_path):
    carry_out(SMALL, tmp_path, seeds=1)
    path = tmp_path / "runs" / "data_cc" / "seed0" / "result.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(UsageError, match=r"result\.json is damaged"):
        carry_out(SMALL, tmp_path, seeds=1)


def test_overrides_reach_the_config():
    study = amend(SMALL, overrides={"optim.lr": 0.5, "data.source": "regions:photos"})
    config = configure(study, "data_cc", 3)
    assert (config.optim.lr, config.data.source, config.seed) == (0.5, "regions:photos", 3)
    assert config.batch_size == 16
    assert config.optim.warmup_steps == 5  # a tenth, as in the recipe
    pilot = configure(amend(SMALL, overrides={"scale": "pilot"}), "data_cc", 0)
    assert len(pilot.model.layers) < len(config.model.layers)


def test_fine_tuning_keeps_its_share_of_the_steps():
    recipe = variants.get_config("data-ft_cc", scale="tiny").steps
    base = variants.get_config("data_cc", scale="tiny").steps
    study = amend(SMALL, overrides={"steps": 2 * base})
    assert configure(study, "data-ft_cc", 0).steps == 2 * recipe
    assert configure(study, "bert", 0).steps == 2 * base


def test_candidates_fit_the_batch():
    config = configure(SMALL, "loss_single-modality-contrastive32", 0)
    assert config.objective.candidates == config.batch_size == 16


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stepz": 3}, r"config\.stepz is not a field; did you mean config\.steps"),
        ({"eval.best": "r@1"}, r"config\.eval\.best='r@1' cannot choose a checkpoint"),
        ({"scale": "small"}, r"scale=small is not a scale"),
        ({"seed": 7}, r"say how many with --seeds"),
        (
            {"batch_size": 96, "objective.itm": "contrastive", "objective.candidates": 64},
            r"batch_size=96 leaves 'data_cc' 96 pairs .* groups of 64",
        ),
        ({"test.splt": "val"}, r"test\.splt is not a field; did you mean test\.split"),
        ({"test.split": "dev"}, r"scenes has no split 'dev'.*val"),
    ],
)
def test_wrong_overrides(tmp_path, overrides, message):
    with pytest.raises(UsageError, match=message):
        carry_out(SMALL, tmp_path, overrides=overrides)
    assert not list(tmp_path.iterdir())


def test_wrong_seeds_and_tags(tmp_path):
    with pytest.raises(UsageError, match="0 seeds"):
        carry_out(SMALL, tmp_path, seeds=0)
    with pytest.raises(UsageError, match="0 runs side by side are none"):
        carry_out(SMALL, tmp_path, jobs=0)
    with pytest.raises(UsageError, match="did you mean data_cc"):
        carry_out(Study("odd", ("data_ccc",)), tmp_path)
    with pytest.raises(UsageError, match="no variant that matches"):
        carry_out(Study("words", ("bert",)), tmp_path)


def test_pairs_of_the_command_line():
    pairs = ["config.steps=200", "optim.lr=2e-3", "data.source=regions:/a=b", "data.vocab=None"]
    assert parse_overrides(pairs) == {
        "steps": 200,
        "optim.lr": 2e-3,
        "data.source": "regions:/a=b",
        "data.vocab": None,
    }
    with pytest.raises(UsageError, match="FIELD=VALUE"):
        parse_overrides(["steps"])


def test_a_grid_has_a_row_for_each_combination(tmp_path):
    pairs = ["optim.lr=1e-3,2e-3", "dtype=float32,bfloat16", "steps=50"]
    grid = parse_overrides(pairs)
    assert grid == {"optim.lr": [1e-3, 2e-3], "dtype": ["float32", "bfloat16"], "steps": 50}
    study = Study("grid", ("data_cc", "data-ft_cc"), seeds=2)
    planned = [run.tag for run in plan(study, tmp_path)]
    found, fakes = carry_out(study, tmp_path, overrides=grid)
    tags = [
        f"{tag},optim.lr={lr},dtype={dtype}"
        for lr in ("0.001", "0.002")
        for dtype in ("float32", "bfloat16")
        for tag in planned[:2]
    ]
    assert [(run["tag"], run["seed"]) for run in found["runs"]] == [
        (tag, seed) for pair in zip(tags[::2], tags[1::2]) for seed in (0, 1) for tag in pair
    ]
    assert len(fakes.trained) == 16
    for run in found["runs"]:
        tag, lr, dtype = run["tag"].split(",")
        config = run["config"]
        assert (config["tag"], f"optim.lr={config['optim']['lr']}") == (tag, lr)
        assert f"dtype={config['dtype']}" == dtype
        folder = tmp_path / "runs" / run["tag"] / f"seed{run['seed']}"
        assert (folder / "result.json").exists()
    assert found["overrides"]["optim.lr"] == "0.001, 0.002"
    # The same row without a grid is another one.
    alone, _ = carry_out(study, tmp_path, overrides={"steps": 50})
    assert {run["tag"] for run in alone["runs"]} == set(planned)


def test_a_list_for_a_tuple_is_its_value_unless_it_holds_tuples(tmp_path):
    study = Study("lists", ("data_cc",), seeds=1)

    def tags(name, overrides):
        found, _ = carry_out(study, tmp_path / name, overrides=overrides)
        return {run["tag"]: run["config"] for run in found["runs"]}

    one = tags("one", {"data.buckets": [[12, 5], [16, 5]], "optim.freeze": ["text/.*"]})
    assert list(one) == ["data_cc"]
    assert one["data_cc"]["data"]["buckets"] == [[12, 5], [16, 5]]
    assert one["data_cc"]["optim"]["freeze"] == ["text/.*"]
    two = tags("two", {"data.buckets": [((12, 5),), ((16, 5),)]})
    assert [config["data"]["buckets"] for config in two.values()] == [[[12, 5]], [[16, 5]]]
    with pytest.raises(UsageError, match=r"config\.stepz is not a field"):
        tags("none", {"stepz": [1, 2]})


def test_commas_of_one_value_make_no_grid():
    pairs = ["data.source=scenes/cc,scenes/sbu", "data.buckets=((12,5),(16,5))"]
    assert parse_overrides(pairs) == {
        "data.source": "scenes/cc,scenes/sbu",
        "data.buckets": ((12, 5), (16, 5)),
    }
    assert parse_overrides(["optim.lr=1e-3,1e-3"]) == {"optim.lr": 1e-3}
    for pair in ("optim.lr=1e-3,", "dtype=float32,float8", "test.limit=5,6"):
        with pytest.raises(UsageError, match=pair.partition("=")[0]):
            parse_overrides([pair])


def folder_of_photos(folder, *splits):
    folder.mkdir()
    for split in splits:
        (folder / f"{split}.jsonl").touch()
        (folder / f"{split}.npz").touch()
    return f"regions:{folder}"


def test_a_folder_without_a_test_split(tmp_path):
    source = folder_of_photos(tmp_path / "photos", "train", "dev")
    overrides = {"data.source": source}
    with pytest.raises(UsageError, match=r"no split 'test'.*--set=test\.split"):
        carry_out(SMALL, tmp_path / "study", overrides=overrides)
    _, fakes = carry_out(
        SMALL, tmp_path / "study", overrides=overrides | {"test.split": "dev"}, seeds=1
    )
    assert {entry[2:4] for entry in fakes.tested} == {(source, "dev")}
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert "These are the same photos" in page


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("data", 6), ("noise", 13)])
def test_corpora_are_described_where_a_study_has_them(name, count, tmp_path, monkeypatch):
    from mmt_jax.study import corpora

    monkeypatch.setattr(corpora, "PHOTOS", 128)
    found, _ = carry_out(
        Study(name, STUDIES[name].tags, seeds=1, level=1, test=EvalConfig(split="test")), tmp_path
    )
    assert found["corpora"]["data_sbu"]["wrong"] == pytest.approx(0.4)
    assert len(found["corpora"]) == count
    test = claim(found, "C1")["comparisons"][0]["test"]
    assert test == f"permutation of Spearman's ρ over {count} corpora"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "share of wrong captions" in page


def test_named_studies():
    names = {"demo", "attention", "losses", "data", "depth", "heads", "baselines", "systems"}
    assert set(STUDIES) == names | {"bert", "corpora", "noise", "longer", "systems-regions", "full"}
    assert set(STUDIES["full"].tags) == set(variants.VARIANTS)
    for study in STUDIES.values():
        assert plan(amend(study, seeds=1), "nowhere")
        assert study.test.split == "test"
        assert not {"eval.split", "eval.source"} & set(study.overrides)


@pytest.mark.parametrize(
    ("study", "claims"),
    [
        ("attention", {"C5", "C6"}),
        ("losses", {"C9", "C10"}),
        ("data", {"C1", "C2", "C4"}),
        ("corpora", {"C1", "C2", "C4"}),
        ("bert", {"C3"}),
        ("depth", {"C7"}),
        ("heads", {"C8"}),
        ("baselines", {"C11"}),
        ("full", {f"C{n}" for n in range(1, 12)}),
    ],
)
def test_named_studies_have_the_tags_of_their_claims(study, claims):
    from mmt_jax.study.claims import CLAIMS

    for name in claims:
        for comparison in CLAIMS[name].comparisons:
            assert set(comparison.tags) <= set(STUDIES[study].tags)


def test_time_left_is_told(tmp_path, capsys):
    carry_out(SMALL, tmp_path, seeds=1)
    err = capsys.readouterr().err
    assert "run 1 of 5: data_cc seed 0" in err
    assert "run 5 of 5: data_sbu seed 0, about 0 min left" in err


def test_a_level_is_every_row_s_and_that_of_what_it_is_tested_on(tmp_path):
    study = Study("s", ("data_cc", "data_uniter-instance", "data-ft_cc"), seeds=1, level=4)
    lower = amend(study, overrides=parse_overrides(["level=2"]))
    for asked, level in ((study, 4), (lower, 2)):
        for run in plan(asked, tmp_path):
            sources = run.config.data.source.split(",")
            assert {source.partition("/")[0] for source in sources} == {f"scenes@{level}"}
            assert run.test.source == f"scenes@{level}"
    today = plan(amend(study, overrides={"level": 5}), tmp_path)[0]
    assert (today.config.data.source, today.test.source) == ("scenes/cc", "scenes")


def test_a_level_is_kept_by_sources_that_are_set_beside_it(tmp_path):
    study = Study("s", ("data_cc",), seeds=1, level=1)
    asked = {
        "data.source": "scenes/sbu,scenes@3/cc",
        "eval.source": "scenes",
        "test.source": "scenes",
    }
    (run,) = plan(amend(study, overrides=asked), tmp_path)
    assert run.config.data.source == "scenes@1/sbu,scenes@3/cc"
    assert (run.config.eval.source, run.test.source) == ("scenes@1", "scenes@1")
    (plain,) = plan(amend(study, overrides=asked | {"level": None}), tmp_path)
    assert plain.config.data.source == asked["data.source"]
    photos = amend(
        study, overrides={"data.source": folder_of_photos(tmp_path / "p", "dev", "test")}
    )
    assert plan(photos, tmp_path)[0].config.data.source == f"regions:{tmp_path / 'p'}"


@pytest.mark.parametrize(
    ("level", "message"), [("0", "no level '0'"), ("6", "no level '6'"), ("one", "give a number")]
)
def test_a_level_that_is_not_there(level, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        plan(amend(SMALL, overrides=parse_overrides([f"level={level}"])), tmp_path)
