"""Old names of modules: they work, say once where the module is, and hide nothing that is there."""

import importlib
import subprocess
import sys

import pytest

from mmt_jax import renamed

# What README, the notebooks and the configs of 8f0b6a4 imported, line by line.
OLD = """
from mmt_jax import config, importers, scoring, variants
from mmt_jax.config import Config, EvalConfig, Study, UsageError, resolve, to_config_dict, with_spec
from mmt_jax.data import corpora, feed, packing, records, regions, scenes, schema, sources, text
from mmt_jax.data.corpora import builder
from mmt_jax.data.corpus import Corpus, Photos
from mmt_jax.data.features.convert import convert
from mmt_jax.data.scenes import CORPORA
from mmt_jax.data.tasks import vqa
from mmt_jax.data.text import KINDS, SPECIAL, Tokenizer, load, prepare, vocabulary
from mmt_jax.evals import ranking, retrieval
from mmt_jax.export import savedmodel
from mmt_jax.importers import engine
from mmt_jax.model_config import BridgeTowerConfig, ClipConfig, LxmertConfig, TernConfig
from mmt_jax.task_config import PHOTO, SENTENCE, TASKS, TaskConfig
from mmt_jax.variants import VARIANTS, get_config, parse
import mmt_jax.api; mmt_jax.api.load
import mmt_jax.evals.retrieval; mmt_jax.evals.retrieval.evaluate
"""


@pytest.mark.filterwarnings("ignore:.*has moved to:FutureWarning")
@pytest.mark.parametrize("line", OLD.strip().splitlines())
def test_what_was_documented_can_be_imported(line):
    if line.startswith("from mmt_jax.data import corpora"):
        pytest.importorskip("array_record")
    exec(line, {})


@pytest.mark.filterwarnings("ignore:.*has moved to:FutureWarning")
def test_it_is_the_same_thing_under_both_names():
    from mmt_jax import config
    from mmt_jax.configs import config as now

    assert config.Config is now.Config
    old = importlib.import_module("mmt_jax.evals.ranking")
    assert old.check_best is importlib.import_module("mmt_jax.infer.ranking").check_best


@pytest.mark.parametrize("name", renamed.RENAMED)
def test_what_has_moved_is_where_the_table_says(name):
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        importlib.import_module(f"mmt_jax.{name}").nonsense  # noqa: B018


def test_it_says_so_in_one_line_and_once():
    code = (
        "import mmt_jax.variants, mmt_jax.evals.ranking\n"
        "mmt_jax.variants.find('data_cc')\n"
        "from mmt_jax.variants import find, parse\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.endswith(
        "FutureWarning: mmt_jax.variants has moved to mmt_jax.configs.variants; its old name still "
        "works"
    )


@pytest.mark.parametrize("name", ["mmt_jax.nonsense", "mmt_jax.evals.nonsense.more"])
def test_what_never_was_is_not_found(name):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(name)
