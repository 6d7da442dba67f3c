"""The commands, as a shell meets them: output, exit status, and one clear message."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import mmt_jax
from mmt_jax import scenes
from mmt_jax.cli import main as cli
from mmt_jax.configs import overrides
from mmt_jax.train import loop

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = "--config=experiments/mmt.py:architecture_vilbert-1block,scale=tiny"
SMALL = (
    "--config.data.size=48",
    "--config.batch_size=8",
    "--config.steps=3",
    "--config.eval.limit=8",
    "--config.data.vocab_size=200",
    "--config.log_every=1",
    "--config.model.layers=('merged',)",
    # The compiled step does not depend on the number of steps: each test finds it in the cache.
    "--config.optim.schedule=constant",
)


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def mmt(capsys):
    """Runs a command; returns exit status, stdout and stderr."""

    def run(*argv):
        status = cli.main([str(arg) for arg in argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of three steps, trained in a process of its own that then says what it has loaded."""
    folder = tmp_path_factory.mktemp("train") / "run"
    code = (
        "import sys; from mmt_jax.cli.main import main;"
        f"status = main({['train', CONFIG, f'--workdir={folder}', *SMALL]!r});"
        "loaded = {'tensorflow', 'transformers', 'scipy'} & set(sys.modules);"
        "assert not loaded, loaded; sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def fails(result, *parts):
    """A use that is wrong: status 2, and one line on stderr that has these parts."""
    status, out, err = result
    assert status == 2
    assert not out
    assert err.startswith("mmt: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    return True


# ---- Help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",), ("help",)])
def test_help_names_every_command(mmt, argv):
    status, out, _ = mmt(*argv)
    assert status == 0
    for name in cli.COMMANDS:
        assert f"\n  {name} " in out


@pytest.mark.parametrize("name", cli.commands())
def test_help_of_a_command_has_an_example_and_every_flag(mmt, name):
    status, out, _ = mmt(*name.split(), "--help")
    assert status == 0
    assert f"usage: mmt {name} " in out
    assert f"\n  mmt {name}" in out
    for flag in cli.commands()[name].FLAGS:
        assert f"--{flag.name}" in out
    assert max(map(len, out.splitlines())) <= 100


def test_help_is_not_kept_waiting():
    code = (
        "import sys; from mmt_jax.cli import main; main.commands();"
        "assert not {'jax', 'absl', 'ml_collections', 'tensorflow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_long_command_says_what_it_is_at_before_it_imports_what_is_slow():
    code = """
import sys
from mmt_jax import progress
from mmt_jax.cli import main

def stage(line):
    assert "jax" not in sys.modules
    said.append(line)
    raise KeyboardInterrupt  # nothing more is to be done

progress.stage = stage
for name, module in main.commands().items():
    given = {"config": "data_cc", "study": "demo", "size": "9"}
    flags = [flag.name for flag in module.FLAGS if flag.required]
    said = []
    if name not in ("list", "describe", "completion"):
        argv = [*name.split(), *(f"--{flag}={given.get(flag, 'x')}" for flag in flags)]
        assert main.main(argv) == 130 and len(said) == 1, (argv, said)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_was_compiled_is_kept_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    cli._keep_compiled()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    cli._keep_compiled()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "mmt_jax" / "compiled")


def test_console_script_is_the_same_program():
    done = subprocess.run(
        [sys.executable, "-m", "mmt_jax.cli", "list"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "architecture_coattention" in done.stdout


# ---- list, describe ------------------------------------------------------------------------------


def test_list_prints_the_same_rows_as_its_json(mmt):
    table, others, studies = mmt("list")[1].split("\n\n")
    _, text, _ = mmt("list", "--json")
    models = json.loads(text)
    header, _, *lines = table.splitlines()
    assert [line.split()[0] for line in lines] == [model["tag"] for model in models]
    for column in ("corpus", "itm", "mrm", "mlm", "heads", "head dim", "layers", "attention"):
        assert column in header
        assert column.replace(" ", "_") in models[0]
    assert "contrastive 1024" in table
    names = [line.split()[0] for line in others.splitlines()[2:]]
    assert {"lxmert:base", "tern:kaylode", "tasks:glue/RTE,model=NAME"} < set(names)
    for name in names:  # each is what --config takes
        assert overrides.load(f"{name.replace('NAME', 'bert')},scale=tiny").scale == "tiny"
    assert "attention        8       5      pilot" in studies


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("mmt tr", ["train"]),
        ("mmt data p", ["prepare", "pack"]),
        ("mmt train --w", ["--workdir="]),
        ("mmt data pack --p", ["--pixels"]),
    ],
)
def test_a_shell_completes_commands_and_flags(mmt, line, found):
    status, script, _ = mmt("completion", "bash")
    assert status == 0
    assert mmt("completion", "zsh")[1].endswith(script)  # zsh reads bash's
    word = line.rpartition(" ")[2]
    ask = f'{script}COMP_LINE="{line}"; _mmt mmt {word}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (found, "")
    assert fails(mmt("completion", "fish"), "bash or zsh")


def test_list_survives_a_reader_that_leaves():
    shell = f"{sys.executable} -m mmt_jax.cli list | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("scale", ["tiny", "pilot"])
def test_describe_counts_what_its_tree_holds(mmt, scale):
    status, text, _ = mmt("describe", f"data_cc,scale={scale}", "--json")
    about = json.loads(text)
    assert status == 0
    assert about["parameters"] == sum(np.prod(shape) for shape in about["tree"].values())
    assert about["tree"]["text/tokens/embedding"] == [about["config"]["data"]["vocab_size"], 96]


def test_describe_at_full_scale_takes_the_releases_sizes(mmt):
    _, text, _ = mmt("describe", "architecture_heads1-768", "--json")
    about = json.loads(text)
    assert about["tree"]["text/tokens/embedding"] == [32000, 768]
    assert about["tree"]["image/features/kernel"] == [2048, 768]
    _, text, _ = mmt("describe", "pixel_vilbert_cc-full-image", "--json")
    about = json.loads(text)
    assert about["tree"]["image/features/kernel"] == [3 * 16 * 16, 768]
    assert about["config"]["model"]["num_classes"] == 0


def test_describe_prints_fields_as_flags_set_them(mmt):
    _, out, _ = mmt("describe", "data_cc,scale=tiny")
    assert "config.model.width = 96" in out
    layers = [line.split("/")[2] for line in out.splitlines() if line.startswith("streams/layers/")]
    assert layers == sorted(layers, key=int)


# ---- Wrong use -----------------------------------------------------------------------------------


def test_wrong_command(mmt):
    assert fails(mmt("trian"), "did you mean `mmt train`?")
    assert fails(mmt("qqq"), "there are list, describe")


def test_wrong_flags(mmt, tmp_path):
    assert fails(mmt("list", "--jsn"), "--jsn is not a flag of `mmt list`", "--json")
    assert fails(mmt("list", "twice"), "'twice'")
    assert fails(mmt("describe"), "TAG is missing")
    assert fails(mmt("train", CONFIG), "--workdir=DIR is missing", "mmt train --help")
    assert fails(mmt("train", CONFIG, "--workdir"), "--workdir")
    assert fails(mmt("train", CONFIG, "--workdir="), "--workdir=DIR is missing")  # of a shell's ""
    assert fails(mmt("score", "--model=x", "--record=y"), "--caption=TEXT is missing")
    wanted = ("--data=scenes", "--split=test", f"--out={tmp_path / 'x.npz'}")
    assert fails(mmt("record", *wanted, "--index=two"), "--index=two is no whole number;")
    assert fails(mmt("eval", "--workdir=x", "--weight=all"), "--weight=all is no number;")
    assert fails(mmt("list", "--nojson=3"), "--nojson=3")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("--config.model.widht=3", ("config.model.widht", "config.model.width?")),
        ("--config.steps=abc", ("config.steps", "abc")),
        ("--config.mesh=3", ("config.mesh[0]",)),
    ],
)
def test_wrong_config_field(mmt, tmp_path, override, parts):
    folder = tmp_path / "run"
    assert fails(mmt("train", CONFIG, f"--workdir={folder}", override), *parts)
    assert not folder.exists()


def test_the_version_and_help_are_told(mmt):
    assert mmt("--version") == (0, f"mmt_jax {mmt_jax.__version__}\n", "")
    assert mmt("help", "data", "vocab") == mmt("data", "vocab", "--help")
    assert mmt("help") == mmt("--help")
    module = [sys.executable, "-m", "mmt_jax", "--version"]
    assert subprocess.check_output(module, text=True, cwd=ROOT) == mmt("--version")[1]


def test_wrong_config_file(mmt, tmp_path, monkeypatch):
    workdir = f"--workdir={tmp_path / 'run'}"
    assert fails(mmt("train", "--config=experiments/mmt.py:data_c", workdir), "data_cc")
    assert fails(mmt("train", "--config=data_c,scale=tiny", workdir), "data_cc")
    assert fails(mmt("train", "--config=LICENSE:data_cc", workdir), "LICENSE", "Python")
    mine = tmp_path / "mine.py"
    mine.write_text("def (")
    assert fails(mmt("train", f"--config={mine}:a", workdir), "mine.py, line 1", "get_config")
    mine.write_text("config = 3")
    assert fails(mmt("train", f"--config={mine}:a", workdir), "does not define get_config")
    monkeypatch.chdir(tmp_path)
    assert fails(mmt("train", CONFIG, workdir), "no config file 'experiments/mmt.py'")
    assert fails(mmt("train", *CONFIG.split("=", 1), workdir), "experiments/mmt.py")
    assert fails(mmt("ablate", "--study=demo", "--studies=mine", workdir), "no file 'mine'")
    for argv, name in (  # without a checkout, whose files they are in
        (("ablate", "--study=demo", "--studies=experiments/studies.py"), "studies.py"),
        (("train", "--config=experiments/mmt.py"), "mmt.py"),
    ):
        ours = str(overrides.EXPERIMENTS / name)
        assert fails(mmt(*argv, workdir), f"the one that comes with mmt_jax is {ours}")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lxmrt:base", "lxmert:base"),
        ("lxmert", "lxmert:base"),
        ("experiments/tern.py:kaylode", "tern:kaylode"),
        ("vqa,model=lxmert", "tasks:vqa,model=NAME"),
        ("lxmert:bse", "write base or pretraining"),
        ("zzz", "`mmt list`"),
    ],
)
def test_a_config_that_there_is_not(mmt, tmp_path, monkeypatch, name, meant):
    monkeypatch.chdir(tmp_path)
    assert fails(mmt("train", f"--config={name}", "--workdir=run"), meant)


def test_configs_are_found_from_any_folder(mmt, tmp_path, monkeypatch):
    there = mmt("describe", f"{ROOT}/experiments/clip.py:base,scale=tiny")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.py").write_text("raise ValueError")  # of somebody else
    assert mmt("describe", "clip:base,scale=tiny") == there
    assert fails(mmt("ablate", "--study=atention", "--workdir=x"), "did you mean attention?")


def test_wrong_study(mmt, tmp_path):
    workdir = f"--workdir={tmp_path / 'study'}"
    assert fails(mmt("ablate", "--study=atention", workdir), "attention")
    mine = tmp_path / "mine.py"
    for content, message in (
        ("# Studies – mine\nfor", "mine.py, line 2"),
        ("A = {}", "does not define STUDIES"),
        ("STUDIES = 3", "a dict of"),
        ("STUDIES = {'demo': 3}", "a dict of"),
    ):
        mine.write_text(content, encoding="utf-8")
        assert fails(mmt("ablate", "--study=demo", f"--studies={mine}", workdir), message)
    assert fails(mmt("ablate", "--study=demo", workdir, "--set=steps"), "FIELD=VALUE")
    assert fails(mmt("ablate", "--study=demo", workdir, "--set=stesp=3"), "config.steps")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("command", ["eval", "export", "score"])
def test_folder_that_is_no_workdir(mmt, tmp_path, command):
    (tmp_path / "notes.txt").write_text("mine")
    wanted = {
        "eval": (f"--workdir={tmp_path}", "--data=scenes", "--split=test"),
        "export": (f"--workdir={tmp_path}", f"--out={tmp_path / 'out'}"),
        "score": (f"--model={tmp_path}", "--record=x.npz", "--caption=a star"),
    }
    assert fails(mmt(command, *wanted[command]), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_train_leaves_a_folder_of_others_alone(mmt, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert fails(mmt("train", CONFIG, f"--workdir={tmp_path}"), str(tmp_path), "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# ---- record, train, eval, score ------------------------------------------------------------------


def test_record_is_one_photo_and_its_captions(mmt, tmp_path):
    out = tmp_path / "new" / "photo.npz"
    asked = ("record", "--data=scenes", "--split=val", "--index=2", f"--out={out}")
    status, captions, _ = mmt(*asked)
    assert status == 0
    assert captions.strip()
    with np.load(out) as record:
        assert set(record) == {
            "image/bboxes",
            "image/detection_features",
            "image/padding_mask",
            "photo/picture",
            "photo/names",
        }
        assert record["image/bboxes"][-1].tolist() == [0, 0, 1, 1, 1]
        picture = scenes.picture("target", "val", 2)
        np.testing.assert_array_equal(record["photo/picture"], picture)
        assert len(record["photo/names"]) == len(record["image/bboxes"])
        assert record["photo/names"][-1] == "the whole photo"
    before = out.read_bytes()
    assert fails(mmt(*asked), str(out), "not overwritten")
    assert out.read_bytes() == before
    assert fails(mmt(*asked[:3], "--index=-1", f"--out={out}2"), "--index=-1")


def test_record_without_the_global_region(mmt, tmp_path):
    records = []
    for name, flags in (("all", ()), ("regions", ("--no_global",))):
        out = tmp_path / f"{name}.npz"
        asked = ("record", "--data=scenes", "--split=val", f"--out={out}", *flags)
        assert mmt(*asked)[0] == 0
        with np.load(out) as record:
            records.append(dict(record))
    pictures = [record.pop("photo/picture") for record in records]
    np.testing.assert_array_equal(*pictures)
    for key, value in records[1].items():
        np.testing.assert_array_equal(value, records[0][key][:-1])


@pytest.mark.parametrize("command", ["record", "data vocab"])
def test_a_full_disk_leaves_nothing(mmt, tmp_path, command):
    """The limit on the size of a file stands in for the end of the disk."""
    captions = tmp_path / "captions.jsonl"
    captions.write_text('{"image_id": 1, "captions": ["a red circle and a star"]}')
    wanted = {
        "record": ("--data=scenes", "--split=val"),
        "data vocab": (f"--captions={captions}", "--size=30"),
    }
    out = tmp_path / "out"
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        done = mmt(*command.split(), *wanted[command], f"--out={out}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert fails(done, f"{out} cannot be written")
    assert list(tmp_path.iterdir()) == [captions]


def test_record_of_pixels(mmt, tmp_path):
    out = tmp_path / "photo.npz"
    assert mmt("record", "--data=scenes", "--split=val", "--pixels", f"--out={out}")[0] == 0
    with np.load(out) as record:
        assert list(record) == ["image/pixels"]
        assert record["image/pixels"].dtype == np.float32
        assert 0.5 < record["image/pixels"].max() <= 1


@pytest.mark.slow
def test_train_goes_on_and_says_so_in_its_metrics(mmt, workdir):
    status, out, _ = mmt("train", CONFIG, f"--workdir={workdir}", *SMALL, "--config.steps=4")
    assert status == 0
    assert "image_retrieval/r@1" in out
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 4


@pytest.mark.slow
def test_train_refuses_another_config(mmt, workdir):
    before = (workdir / "config.json").read_bytes()
    asked = ("train", CONFIG, f"--workdir={workdir}", *SMALL, "--config.batch_size=16")
    assert fails(mmt(*asked), "config.batch_size", "--workdir")
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.slow
def test_eval_prints_what_it_writes(mmt, workdir, tmp_path):
    out = tmp_path / "scores.json"
    asked = ("eval", f"--workdir={workdir}", "--data=scenes", "--split=test", "--limit=6")
    status, table, _ = mmt(*asked, f"--out={out}")
    assert status == 0
    values = json.loads(out.read_text())
    for side in ("image_retrieval", "text_retrieval"):
        assert {"r@1", "r@5", "r@10", "median_rank"} <= set(values[side])
        assert side in table
        assert 0 <= values[side]["r@1"] <= values[side]["r@5"] <= values[side]["r@10"] <= 1
    assert values["text_retrieval"]["r@10"] == 1 or values["text_retrieval"]["median_rank"] >= 1
    assert fails(mmt(*asked, f"--out={out}"), str(out), "not overwritten")
    assert fails(mmt(*asked, "--top=3", f"--out={tmp_path}/found.json"), "--top=3", "jsonl")
    assert fails(mmt(*asked, "--top=0", f"--out={tmp_path}/found.jsonl"), "--top=0", "K ≥ 1")
    found = tmp_path / "found.jsonl"
    assert mmt(*asked, "--top=3", f"--out={found}")[:2] == (0, table)
    lines = [json.loads(line) for line in found.read_text().splitlines()]
    photos = [line for line in lines if "image_id" in line]
    assert (len(photos), len(lines) - len(photos)) == (6, sum(len(p["right"]) for p in photos))
    assert {len(line["found"]) for line in lines} == {3}


@pytest.mark.slow
def test_eval_keeps_to_the_vocabulary_of_the_workdir(mmt, workdir, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(workdir, moved)
    values = json.loads((moved / "config.json").read_text())
    values["data"]["vocab"] = str(tmp_path / "gone.model")
    (moved / "config.json").write_text(json.dumps(values))
    asked = ("--data=scenes", "--split=test", "--limit=6")
    _, expected, _ = mmt("eval", f"--workdir={workdir}", *asked)
    status, out, _ = mmt("eval", f"--workdir={moved}", *asked)
    assert (status, out) == (0, expected)
    (moved / "spiece.model").unlink()
    assert fails(mmt("eval", f"--workdir={moved}", *asked), "spiece.model")
    assert not (moved / "spiece.model").exists()


@pytest.mark.slow
def test_eval_names_a_wrong_source_split_and_limit(mmt, workdir):
    asked = ("eval", f"--workdir={workdir}")
    assert fails(mmt(*asked, "--data=scnes", "--split=test"), "scnes")
    assert fails(mmt(*asked, "--data=scenes", "--split=tset"), "tset")
    assert fails(mmt(*asked, "--data=scenes", "--split=test", "--limit=-3"), "--limit=-3")


@pytest.mark.slow
def test_score_prints_a_probability_for_each_caption(mmt, workdir, tmp_path):
    record = tmp_path / "photo.npz"
    mmt("record", "--data=scenes", "--split=val", f"--out={record}")
    asked = ("score", f"--model={workdir}", f"--record={record}")
    status, out, _ = mmt(*asked, "--caption=a red circle", "--caption=two stars")
    assert status == 0
    first, second = out.splitlines()
    assert first.endswith(" a red circle")
    assert second.endswith(" two stars")
    assert 0 <= float(first.split()[0]) <= 1
    _, text, _ = mmt(*asked, "--caption=a red circle", "--json")
    (row,) = json.loads(text)
    assert f"{row['probability']:.3f} {row['caption']}" == first


@pytest.mark.slow
def test_score_names_what_is_wrong_with_its_input(mmt, workdir, tmp_path):
    record = tmp_path / "photo.npz"
    mmt("record", "--data=scenes", "--split=val", f"--out={record}")
    model = f"--model={workdir}"
    assert fails(mmt("score", model, f"--record={record}", "--caption= "), "empty")
    assert fails(mmt("score", model, f"--record={record}x", "--caption=a star"), "photo.npzx")
    long = f"--caption={'a star ' * 40}"
    assert fails(mmt("score", model, f"--record={record}", long), "--truncate")
    assert mmt("score", model, f"--record={record}", long, "--truncate")[0] == 0
    record.write_bytes(record.read_bytes()[:200])
    assert fails(mmt("score", model, f"--record={record}", "--caption=a star"), "photo.npz")


# ---- Ends ----------------------------------------------------------------------------------------


def test_failure_is_told_without_a_traceback(mmt, tmp_path, monkeypatch):
    def train(*_, **__):
        raise loop.TrainingFailed("the loss is not finite from step 7 on; lower config.optim.lr")

    monkeypatch.setattr(loop, "train", train)
    status, out, err = mmt("train", CONFIG, f"--workdir={tmp_path / 'run'}", *SMALL)
    assert (status, out) == (1, "")
    assert err == "mmt: the loss is not finite from step 7 on; lower config.optim.lr\n"


def test_error_that_nobody_foresaw_keeps_its_traceback(mmt, tmp_path, monkeypatch):
    def train(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(ZeroDivisionError):
        mmt("train", CONFIG, f"--workdir={tmp_path / 'run'}", *SMALL)


@pytest.mark.slow
def test_sigterm_ends_training_with_a_checkpoint(tmp_path):
    folder = tmp_path / "run"
    argv = [sys.executable, "-m", "mmt_jax.cli", "train", CONFIG, f"--workdir={folder}", *SMALL]
    argv.append("--config.steps=100000")
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        begun = any(line.startswith("step ") for line in iter(process.stderr.readline, ""))
        process.terminate()
        err = process.stderr.read()
    assert begun
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err
    assert "stopped by SIGTERM" in err
    assert any((folder / "checkpoints").iterdir())


# ---- export --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.tf
def test_exported_model_evaluates_and_scores_as_its_workdir(mmt, workdir, tmp_path):
    pytest.importorskip("tensorflow")
    saved, record = tmp_path / "saved", tmp_path / "photo.npz"
    assert mmt("export", f"--workdir={workdir}", f"--out={saved}")[0] == 0
    assert fails(mmt("export", f"--workdir={workdir}", f"--out={saved}"), "not overwritten")

    asked = ("--data=scenes", "--split=val", "--limit=5")
    tables = [mmt("eval", f"--workdir={model}", *asked)[1] for model in (workdir, saved)]
    assert tables[0] == tables[1]

    mmt("record", "--data=scenes", "--split=val", f"--out={record}")
    wanted = (f"--record={record}", "--caption=a red circle", "--json")
    ours, theirs = (
        json.loads(mmt("score", f"--model={model}", *wanted)[1]) for model in (workdir, saved)
    )
    assert ours[0]["probability"] == pytest.approx(theirs[0]["probability"], abs=1e-5)
