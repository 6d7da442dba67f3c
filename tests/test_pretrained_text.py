"""Tokenizers of published weights against the ones that published them."""

import io
import itertools
import json

import numpy as np
import pytest

from mmt_jax.errors import UsageError
from mmt_jax.text import huggingface, vocabulary
from mmt_jax.text.sentencepiece import SentencePiece

pytest.importorskip("tokenizers")
from mmt_jax.text import pretrained

PIECES = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "ball", "##s", "##ing", "run"),
    *(",", ".", "creme", "'", "s", "it"),
)
MERGES = ("r e", "re d", "\u0120 re", "\u0120re d", "b a", "l l", "ba ll", "\u0120 ball")
CLIP_MERGES = ("r e", "re d</w>", "b a", "l l", "l l</w>", "ba ll", "ba ll</w>", "' s</w>")
CAPTIONS = (
    "a red ball",
    "Balls, RUNNING.  red",
    "Crème [MASK] it's",
    "red\tball \u4e2d",
    "a zebra",
)


@pytest.fixture
def wordpiece(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES))
    return tmp_path


@pytest.fixture
def byte_level(tmp_path):
    from tokenizers import pre_tokenizers

    pieces = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces += sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += [merge.replace(" ", "") for merge in MERGES] + ["<mask>"]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(("#version: 0.2", *MERGES)))
    return tmp_path


@pytest.fixture
def clip(tmp_path):
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = letters + [f"{letter}</w>" for letter in letters]
    pieces += [merge.replace(" ", "") for merge in CLIP_MERGES]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("\n".join(("#version: 0.2", *CLIP_MERGES)))
    return tmp_path


@pytest.mark.torch
def test_words_that_end_themselves_are_those_of_clip(clip):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer(str(clip / "vocab.json"), str(clip / "merges.txt"))
    captions = [*CAPTIONS, "A RED ball, it's 42 balls!?", "we'll  re\u0301d\nBALL's"]
    wanted = theirs(captions, add_special_tokens=False)["input_ids"]
    tokenizer = pretrained.read(clip)
    assert tokenizer.encode_all(captions) == wanted
    assert [tokenizer.piece(i) for i in tokenizer.encode("Red balls")] == ["red", "ball", "s"]
    special = {tokenizer.cls_id, tokenizer.sep_id}
    assert special == set(theirs.convert_tokens_to_ids(["<|startoftext|>", "<|endoftext|>"]))
    assert not special & set(tokenizer.encode("<|startoftext|> a ball <|endoftext|>"))


@pytest.mark.torch
def test_wordpiece_is_that_of_bert(wordpiece):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertTokenizerFast(str(wordpiece / "vocab.txt"))
    plain = [caption for caption in CAPTIONS if "[" not in caption]
    wanted = theirs(plain, add_special_tokens=False)["input_ids"]
    assert pretrained.read(wordpiece).encode_all(plain) == wanted


@pytest.mark.torch
def test_a_piece_may_be_a_line_separator(tmp_path):
    transformers = pytest.importorskip("transformers")
    content = "\n".join([*PIECES[:5], "\u2028", "\x85", "a", "dog"])
    (tmp_path / "vocab.txt").write_text(content + "\n", encoding="utf-8")
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    wanted = theirs("a dog", add_special_tokens=False)["input_ids"]
    assert wanted == [7, 8]
    assert pretrained.read(tmp_path).encode("a dog") == wanted
    assert vocabulary.load(tmp_path / "vocab.txt").encode("a dog") == wanted


def test_merges_of_another_vocabulary_are_told(byte_level):
    (byte_level / "merges.txt").write_text("#version: 0.2\nq q")
    with pytest.raises(UsageError, match=r"the vocabulary of .* cannot be read"):
        pretrained.read(byte_level)


@pytest.mark.torch
def test_byte_level_is_that_of_roberta(byte_level):
    transformers = pytest.importorskip("transformers")
    files = str(byte_level / "vocab.json"), str(byte_level / "merges.txt")
    theirs = transformers.RobertaTokenizerFast(*files)
    wanted = theirs(list(CAPTIONS), add_special_tokens=False)["input_ids"]
    assert pretrained.read(byte_level).encode_all(CAPTIONS) == wanted


def test_case_is_kept_where_the_folder_says_so(wordpiece):
    (wordpiece / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    unknown = PIECES.index("[UNK]")
    assert pretrained.read(wordpiece).encode("a Red") == [PIECES.index("a"), unknown]


def test_pieces_of_a_word_share_its_number(wordpiece):
    cls, sep, pad = (PIECES.index(token) for token in ("[CLS]", "[SEP]", "[PAD]"))
    laid = pretrained.read(wordpiece).texts(["running balls, a"], length=9, layout="cls_first")
    words = [PIECES.index(piece) for piece in ("[UNK]", "ball", "##s", ",", "a")]
    np.testing.assert_array_equal(laid.token_ids, [[cls, *words, sep, pad, pad]])
    np.testing.assert_array_equal(laid.word_ids, [[-1, 0, 1, 1, 2, 3, -1, -2, -2]])


def test_with_bytes_a_word_begins_with_its_blank(byte_level):
    laid = pretrained.read(byte_level).texts(["reds, ball"], length=8, layout="cls_first")
    np.testing.assert_array_equal(laid.word_ids, [[-1, 0, 0, 1, 2, -1, -2, -2]])


def test_special_tokens_are_where_the_vocabulary_has_them(wordpiece):
    tokenizer = pretrained.read(wordpiece)
    found = (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    assert found == (0, 2, 3, 4)
    assert tokenizer.vocab_size == len(PIECES)


def test_special_tokens_cannot_be_written_into_a_caption(wordpiece):
    tokenizer = pretrained.read(wordpiece)
    special = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
    assert not special & set(tokenizer.encode("a [MASK] ball [SEP] [CLS] [PAD]"))


@pytest.mark.parametrize("caption", ["", " \t"])
def test_an_empty_caption_is_named(wordpiece, caption):
    with pytest.raises(UsageError, match="is empty"):
        pretrained.read(wordpiece).encode_all(["a ball", caption])


def test_a_workdir_gives_the_tokenizer_back(wordpiece, tmp_path):
    tokenizer = pretrained.read(wordpiece)
    run = tmp_path / "run"
    vocabulary.store_tokenizer(tokenizer, run)
    assert [path.name for path in run.iterdir()] == ["tokenizer.json"]
    again = vocabulary.stored_tokenizer(run)
    assert again.encode_all(CAPTIONS) == tokenizer.encode_all(CAPTIONS)
    assert again.model == tokenizer.model
    assert vocabulary.stored(run)


def test_settings_of_length_that_the_file_holds_do_not_count(wordpiece):
    tokenizer = pretrained.read(wordpiece)
    settings = json.loads(tokenizer.model)
    settings["truncation"] = {
        "max_length": 2,
        "direction": "Right",
        "strategy": "LongestFirst",
        "stride": 0,
    }
    again = vocabulary.load(json.dumps(settings).encode())
    assert again.encode_all(CAPTIONS) == tokenizer.encode_all(CAPTIONS)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b'{"model": 3}', r"no tokenizer\.json"),
        (b"{", r"no tokenizer\.json"),
        (
            b'{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, '
            b'"unk_token": "a"}, "added_tokens": []}',
            "of the kind WordLevel",
        ),
        (
            b'{"version": "1.0", "model": {"type": "WordPiece", "vocab": {"a": 0}, '
            b'"unk_token": "a", "continuing_subword_prefix": "##", '
            b'"max_input_chars_per_word": 9}, "added_tokens": []}',
            r"has no \[CLS\]",
        ),
    ],
)
def test_a_vocabulary_that_does_not_serve_is_named(model, message):
    with pytest.raises(UsageError, match=message):
        vocabulary.load(model)


def test_a_folder_without_a_vocabulary(tmp_path):
    with pytest.raises(UsageError, match=r"has no vocabulary; put tokenizer\.json"):
        pretrained.read(tmp_path)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_trained_vocabularies_are_read_back(kind, tmp_path):
    captions = [f"A red dog runs over {n} green hills, it's Trées" for n in range(40)]
    trained = vocabulary.train(captions, 320, kind)
    assert trained.model == vocabulary.train(captions, 320, kind).model
    trained.save(tmp_path / "tokenizer.json")
    tokenizer = vocabulary.load(tmp_path / "tokenizer.json")
    assert tokenizer.vocab_size <= 320
    ids = tokenizer.encode("A RED dog")
    assert ids == tokenizer.encode("a red dog")
    assert len(ids) == 3  # words that occur in every caption are whole
    assert tokenizer._tokenizer.decode(ids).strip() == "a red dog"
    special = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id}
    assert len(special) == 4
    assert not special & set(tokenizer.encode("<mask> [MASK] <s> [CLS]"))


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_size_without_room_is_refused(kind):
    with pytest.raises(UsageError, match=f"a {kind} vocabulary of 10 pieces"):
        vocabulary.train(["a red dog"], 10, kind)
    with pytest.raises(UsageError, match="unknown kind of vocabulary 'word'"):
        vocabulary.train(["a red dog"], 10, "word")


def test_a_list_of_pieces_is_a_vocabulary(wordpiece):
    listed = vocabulary.load(wordpiece / "vocab.txt")
    assert listed.encode_all(CAPTIONS) == pretrained.read(wordpiece).encode_all(CAPTIONS)
    assert vocabulary.load(listed.model).encode_all(CAPTIONS) == listed.encode_all(CAPTIONS)


# ---- On the way back -----------------------------------------------------------------------------

LINES = (
    *("a red ball rolls, 1,000 metres on", "two dogs run past 3 balls", "the man's 2 black dogs"),
    *("`` go! '' says a girl in 2,5 dresses", "running dogs, rolling balls", "a creme brulee"),
)
ODD = (
    "the dogs´ ball, dog´",
    "Crème  brûlée at 1,000, 3, 25,",
    "½ Ångström ﬁne ``dog''",
    "\u65e5\u672c ball",
    "<mask>s [SEP] <unk> <s>",
)


def for_transformers(tokenizer, folder, family):
    """transformers' tokenizer of a folder that holds what `huggingface.files` writes."""
    transformers = pytest.importorskip("transformers")
    for name, content in huggingface.files(tokenizer).items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return transformers.AutoTokenizer.from_pretrained(folder)


def settled(tokenizer, rows):
    """Ids, with those of a run of digits in order: SentencePiece may cut 0|00 as well as 00|0."""
    digits = {i for i in range(tokenizer.vocab_size) if tokenizer.piece(i).isdecimal()}
    runs = [itertools.groupby(row, digits.__contains__) for row in rows]
    return [[i for digit, run in row for i in (sorted(run) if digit else run)] for row in runs]


@pytest.mark.torch
@pytest.mark.parametrize("family", ["lxmert", "roberta", "clip"])
@pytest.mark.parametrize("kind", vocabulary.KINDS)
def test_transformers_gives_the_ids_of_a_vocabulary_that_was_trained_here(kind, family, tmp_path):
    tokenizer = vocabulary.train(LINES, 400, kind)
    theirs = for_transformers(tokenizer, tmp_path, family)
    captions = [*LINES, *ODD[:3]]  # theirs reads special tokens in captions
    wanted = [[tokenizer.cls_id, *ids, tokenizer.sep_id] for ids in tokenizer.encode_all(captions)]
    found = theirs(captions)["input_ids"]
    assert settled(tokenizer, found) == settled(tokenizer, wanted)
    special = (theirs.cls_token_id, theirs.sep_token_id, theirs.pad_token_id, theirs.mask_token_id)
    assert special == (
        *(tokenizer.cls_id, tokenizer.sep_id),
        *(tokenizer.pad_id, tokenizer.mask_id),
    )
    again = vocabulary.load(tmp_path / "tokenizer.json")
    captions = [*LINES, *ODD]
    found, wanted = again.encode_all(captions), tokenizer.encode_all(captions)
    assert settled(tokenizer, found) == settled(tokenizer, wanted)
    np.testing.assert_array_equal(again.starts_word, tokenizer.starts_word)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("published", "family"), [("wordpiece", "lxmert"), ("byte_level", "roberta"), ("clip", "clip")]
)
def test_transformers_gives_the_ids_of_a_published_vocabulary(published, family, request, tmp_path):
    tokenizer = pretrained.read(request.getfixturevalue(published))
    captions = [caption for caption in CAPTIONS if "[" not in caption]
    theirs = for_transformers(tokenizer, tmp_path, family)
    wanted = [[tokenizer.cls_id, *ids, tokenizer.sep_id] for ids in tokenizer.encode_all(captions)]
    assert theirs(captions)["input_ids"] == wanted


def test_a_sentencepiece_model_of_merges_is_refused():
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=60, model_type="bpe"
    )
    with pytest.raises(UsageError, match="of the kind BPE"):
        huggingface.files(SentencePiece(model.getvalue()))


def test_a_sentencepiece_model_with_bytes_comes_out_the_same():
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, vocab_size=300, byte_fallback=True
    )
    tokenizer = SentencePiece(model.getvalue())
    files = huggingface.files(tokenizer)
    again = vocabulary.load(files["tokenizer.json"])
    assert again.encode_all([*LINES, *ODD]) == tokenizer.encode_all([*LINES, *ODD])
