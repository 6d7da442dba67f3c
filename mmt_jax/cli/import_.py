"""Makes a workdir of published weights, for eval, export, score and --config.init_from.

  mmt import --from=unc-nlp/lxmert-base-uncased --model=lxmert --out=work/lxmert

The folder holds config.json, the weights (model.safetensors or pytorch_model.bin, whole or in parts
with an index, or the one .pth or .ckpt of an original release) and the vocabulary (tokenizer.json,
vocab.txt, or vocab.json with merges.txt); preprocessor_config.json, where it is there, says how
photos are prepared. A hub id is downloaded first. What kind of model it is
and its sizes are read from config.json, never guessed; a key that is unknown, unused or misshapen,
and a parameter without a key, are all told at once and nothing is written. Pickled weights run no
code.

Weights that were fine-tuned on a task answer its questions by `mmt eval --task`: LXMERT's BEST.pth,
BridgeTower's .ckpt of VQAv2, NLVR2 and SNLI-VE, and the classes of Hugging Face that answer. --task
says which task it was where the weights do not. What their answers are called is read from id2label
in config.json, or from --labels, a JSON list by number such as LXMERT's trainval_label2ans.json.

Needs pip install 'mmt_jax[hf]', and torch for pickled weights.
"""

from __future__ import annotations

import types

from mmt_jax.cli import flags

DOING = "reading {from}"
FLAGS = (
    flags.Flag("from", "FOLDER|HUB_ID", "where the published weights are", required=True),
    flags.Flag("model", "NAME", "which model they are of; config.json says it by default", ""),
    flags.Flag("out", "DIR", "the new workdir; nothing is overwritten", required=True),
    flags.Flag("task", "NAME", "it was fine-tuned on, such as vqa or glue/RTE"),
    flags.Flag("labels", "FILE", "a JSON list of its answers by number"),
)


def run(args: types.SimpleNamespace) -> None:
    """Reads, checks and writes."""
    import jax

    from mmt_jax import hub as importers
    from mmt_jax.train import checkpoint, workdir

    workdir.check_free(args.out)
    source = getattr(args, "from")
    found = importers.load(source, args.model or "", task=args.task or "", labels=args.labels)
    checkpoint.write(args.out, found.config, found.params, found.tokenizer, found.others)
    count = sum(leaf.size for leaf in jax.tree.leaves(found.params))
    print(f"{args.out} holds {found.config.model.family} with {count:,} parameters")
