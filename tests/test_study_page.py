"""A study's page as people see it: in Chromium, at a desk and on a phone; and its tables."""

import csv
import dataclasses
import html
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from test_study import SMALL, Fakes, Page, carry_out

from mmt_jax.configs.config import EvalConfig
from mmt_jax.study import examples, report, stats
from mmt_jax.study.findings import Row
from mmt_jax.study.results import Test

pytestmark = pytest.mark.slow  # figures are drawn in earnest

CHROMIUM = shutil.which("chromium") or ""
WIDE, PHONE = 1280, 390  # pixels

# How wide each page would be, and which texts of figures leave their figure, where they are cut.
MEASURE = """
<script>
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(({contentDocument: page}) => {
    page.querySelectorAll("details").forEach(hidden => hidden.open = true);
    const cut = [...page.querySelectorAll("svg text")].filter(text => {
      const {left, right} = text.getBoundingClientRect();
      const figure = text.closest("svg").getBoundingClientRect();
      return left < figure.left - 2 || right > figure.right + 2;
    });
    return {width: page.documentElement.scrollWidth, seen: page.documentElement.clientWidth,
            cut: cut.map(text => text.textContent)};
  });
  document.body.textContent = JSON.stringify(found);
});
</script>
"""


class Sized(Fakes):
    """Counts parameters too."""

    def evaluate(self, config, workdir, test):
        metrics, ranks = super().evaluate(config, workdir, test)
        return {**metrics, "parameters": 1_234_567}, ranks


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of photos on disk whose best run has examples, of all that a page can show."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(7):
        picture = np.full((90, 60 + 30 * (number % 2), 3), 40 * number, np.uint8)
        plt.imsave(folder / f"{number}.png", picture)
        if number:  # the first has no caption
            (folder / f"{number}.txt").write_text(f"photo number {number} of a long day by the sea")
    source = f"photos:{folder}"
    workdir = tmp_path_factory.mktemp("study")
    test = EvalConfig(source=source, split="train", limit=0)
    asked = dataclasses.replace(SMALL, test=test)
    _, fakes = carry_out(asked, workdir, Sized(probed=True), seeds=2)
    best = workdir / "best"
    names = tuple(f"{number}.png" for number in range(1, 7))
    told = [
        examples.Example(which, f"a caption, {which}", "6.png", 6, names, (0.5,) * 6)
        for which in examples.WHICH
    ]
    (best / examples.FILE).write_text(json.dumps([dataclasses.asdict(e) for e in told]))
    found, _ = carry_out(asked, workdir, fakes, seeds=2)
    return workdir, found


def chromium(*flags):
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            *map(str, flags),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (Debian's package: chromium)")
def test_nothing_is_cut_off_at_a_desk_or_on_a_phone(study, tmp_path):
    page = (study[0] / "report.html").read_text(encoding="utf-8")
    frames = "".join(
        f'<iframe style="width: {width}px; height: 900px; border: 0" srcdoc="{html.escape(page)}">'
        f"</iframe>"
        for width in (WIDE, PHONE)
    )
    both = tmp_path / "both.html"
    both.write_text(f'<!doctype html><meta charset="utf-8"><body>{frames}{MEASURE}')
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    dom = chromium(profile, "--dump-dom", both.as_uri())
    desk, phone = json.loads(html.unescape(dom[dom.index("[") : dom.rindex("]") + 1]))
    assert desk == {"width": desk["seen"], "seen": desk["seen"], "cut": []}
    assert phone == {"width": phone["seen"], "seen": phone["seen"], "cut": []}
    assert PHONE - 20 <= phone["seen"] <= PHONE < WIDE - 20 <= desk["seen"]

    shot = tmp_path / "page.png"
    size = f"--window-size={WIDE},2000"
    chromium(profile, size, f"--screenshot={shot}", (study[0] / "report.html").as_uri())
    pixels = plt.imread(shot)[..., :3]
    assert pixels.shape[1] == WIDE
    drawn = np.any(np.asarray(pixels) < 0.99, axis=2)
    assert drawn.mean() > 0.01
    margin = drawn[:, :8].any() or drawn[:, -8:].any()
    assert not margin  # nothing runs into the window's edges


def test_what_no_run_speaks_to_is_folded_away(study):
    workdir, found = study
    page = (workdir / "report.html").read_text(encoding="utf-8")
    _, folded = page.split("<details>")
    folded, shown = folded.split("</details>")[0], page.replace(folded, "")
    silent = [claim["statement"] for claim in found["claims"] if claim["verdict"] is None]
    assert f"{len(silent)} claims that these runs do not speak to" in folded
    assert 0 < len(silent) < len(found["claims"])
    for claim in found["claims"]:
        text = html.escape(claim["statement"])
        assert (text in folded, text in shown) == (
            (True, False) if claim["statement"] in silent else (False, True)
        )


def test_photos_are_shown_where_a_study_is_of_photos(study):
    page = Page((study[0] / "report.html").read_text(encoding="utf-8"))
    pictures = [asset for asset in page.assets if asset.startswith("data:image/png")]
    assert len(pictures) == len(page.assets) == 6 * len(examples.WHICH)
    assert "a caption, hardest query" in page.words
    assert examples.drawing("photos:nowhere", "train") is None


def test_pictures_are_of_the_photos_that_were_scored_whatever_came_to_the_folder(tmp_path):
    for number in range(3):
        plt.imsave(tmp_path / f"{number}.png", np.full((8, 8, 3), 100 * number, np.uint8))
    for number in (1, 2):  # the first has no caption
        (tmp_path / f"{number}.txt").write_text("a caption")
    folder = f"photos:{tmp_path}"
    numbered = examples.drawing(folder, "train")  # as older reports keep them
    assert [int(numbered(number).mean()) for number in range(2)] == [100, 200]
    (tmp_path / "0.txt").write_text("another caption")  # all others move on by one
    named = examples.drawing(folder, "train")
    assert [int(named(f"{number}.png").mean()) for number in range(3)] == [0, 100, 200]
    (tmp_path / "1.txt").unlink()
    with pytest.raises(KeyError):
        examples.drawing(folder, "train")("1.png")


def test_photos_found_are_kept_by_their_names(tmp_path, monkeypatch):
    for number in range(3):
        plt.imsave(tmp_path / f"{number}.png", np.zeros((8, 8, 3), np.uint8))
        (tmp_path / f"{number}.txt").write_text(f"photo {number}")
    data = SimpleNamespace(
        captions=("photo 0", "photo 1", "photo 2"),
        caption_to_image=np.arange(3),
        photo_names=("0.png", "1.png", "2.png"),
        texts=lambda queries: queries,
        masks=np.ones((3, 1), bool),
        images=lambda numbers: numbers,
    )
    predictor = SimpleNamespace(
        score=lambda queries, photos, pairs: np.tile([0.1, 0.3, 0.2], (len(queries), 1))
    )
    model = SimpleNamespace(config=None, tokenizer=None, predictor=predictor)
    monkeypatch.setattr("mmt_jax.infer.api.load", lambda folder: model)
    monkeypatch.setattr(Test, "examples", lambda *_: data)
    monkeypatch.setattr(examples, "has_checkpoint", lambda folder: True)
    run = SimpleNamespace(folder=tmp_path, test=Test(f"photos:{tmp_path}", "train", 0, 1))
    ranks = SimpleNamespace(run=run, ranks=lambda _: (np.array([3, 1, 2]), None))
    examples.complete(ranks)
    easiest, *_, hardest = examples.read(tmp_path)
    assert (easiest.photo, easiest.found) == ("1.png", ("1.png", "2.png", "0.png"))
    assert (hardest.photo, hardest.rank, hardest.scores) == ("0.png", 3, (0.3, 0.2, 0.1))


def test_kinds_of_loss_have_panels_of_their_own(study):
    words = Page((study[0] / "report.html").read_text(encoding="utf-8")).words
    kinds = [word for word in words if word.startswith("ITM loss, ")]
    assert sorted(kinds) == ["ITM loss, classification", "ITM loss, contrastive"]


def test_the_table_of_scores_is_beside_the_page(study):
    workdir, found = study
    with open(workdir / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["tag"] for row in rows] == [row["tag"] for row in found["table"]]
    assert {row["parameters"] for row in rows} == {"1234567"}
    best = found["table"][0]["metrics"]["image_retrieval/r@1"]
    assert float(rows[0]["image_retrieval/r@1 low"]) == best["low"]
    assert "1,234,567" in (workdir / "report.html").read_text(encoding="utf-8")


def test_latex_is_escaped():
    interval = stats.Interval(0.5, 0.4, 0.6, "t over 2 seeds")
    alone = stats.Interval(3.0, float("nan"), float("nan"), "none")
    metrics = {"image_retrieval/r@1": interval, "image_retrieval/median_rank": alone}
    row = Row("mine_50%&{a}", 2, metrics, 1.0, parameters=2_500_000)
    head, cells = re.findall(r".* \\\\", report.scores_latex([row]))
    assert head == r"variant & parameters & image r@1 & image median\_rank \\"
    assert cells == r"mine\_50\%\&\{a\} & 2.50M & 0.500 $\pm$ 0.100 & 3.0 \\"
