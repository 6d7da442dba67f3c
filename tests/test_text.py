"""Text preparation, tokens and their layout."""

import dataclasses
import io
import pathlib
import string
import unicodedata

import numpy as np
import pytest
import sentencepiece

from mmt_jax.errors import UsageError
from mmt_jax.text import base, vocabulary
from mmt_jax.text.sentencepiece import SentencePiece

XLNET = pathlib.Path(__file__).parents[2] / "shared" / "data" / "spiece.model"

CAPTIONS = [
    "A small red circle left of a blue square .",
    "The blue square is above 2 green triangles, near 3,5 circles",
    "a dog (running) on grass; it's 10, 20, 30, and 1,000, here",
    "two people, a man and a woman, look at the sky",
    "over 4, under 5, beside 6,",
] * 3


@pytest.fixture(scope="module")
def model() -> bytes:
    return vocabulary.train(CAPTIONS, 150).model


@pytest.fixture(scope="module")
def tokenizer(model) -> base.Tokenizer:
    return SentencePiece(model)


@pytest.mark.parametrize(
    ("caption", "prepared"),
    [
        ("  A\tdog \n runs  ", "a dog runs"),
        ("``Hi'' she said", '"hi" she said'),
        ("it's a 'dog'", "it's a 'dog'"),
        ("Crème Brûlée", "creme brulee"),
        ("\u00c5ngstr\u00f6m \ufb01ne \u00bd", "angstrom fine 1\u20442"),
        ("\u0130stanbul", "istanbul"),
        ("\u3000wide\u00a0space\u3000", "wide space"),
    ],
)
def test_prepare(caption, prepared):
    assert base.prepare(caption) == prepared


def test_prepare_is_idempotent_on_plain_captions():
    for caption in CAPTIONS:
        once = base.prepare(caption)
        assert base.prepare(once) == once


def _ids(tokenizer, *pieces):
    sp = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    ids = [sp.piece_to_id(piece) for piece in pieces]
    assert sp.unk_id() not in ids
    return ids


@pytest.mark.slow
def test_layout_by_hand(tokenizer):
    a, comma, circle = _ids(tokenizer, "▁a", ",", "▁circle")
    laid = tokenizer.layout([[a, comma, circle], [circle]], length=7)
    m, sep, cls = base.MASK, base.SEP, base.CLS
    np.testing.assert_array_equal(
        laid.token_ids, [[m, m, sep, a, comma, circle, cls], [m, m, m, m, sep, circle, cls]]
    )
    np.testing.assert_array_equal(laid.segment_ids, [[0] * 6 + [2]] * 2)
    np.testing.assert_array_equal(
        laid.word_ids, [[-2, -2, -1, 0, 1, 2, -1], [-2, -2, -2, -2, -1, 0, -1]]
    )
    np.testing.assert_array_equal(laid.mask, [[0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1]])
    assert laid.token_ids.dtype == laid.segment_ids.dtype == laid.word_ids.dtype == np.int32
    assert laid.mask.dtype == bool


def test_the_other_layout_by_hand(tokenizer):
    a, comma, circle = _ids(tokenizer, "▁a", ",", "▁circle")
    laid = tokenizer.layout([[a, comma, circle], [circle]], length=6, layout="cls_first")
    p, sep, cls = base.PAD, base.SEP, base.CLS
    np.testing.assert_array_equal(
        laid.token_ids, [[cls, a, comma, circle, sep, p], [cls, circle, sep, p, p, p]]
    )
    np.testing.assert_array_equal(laid.segment_ids, np.zeros((2, 6)))
    np.testing.assert_array_equal(laid.word_ids, [[-1, 0, 1, 2, -1, -2], [-1, 0, -1, -2, -2, -2]])
    np.testing.assert_array_equal(laid.mask, laid.word_ids != -2)
    cut = tokenizer.layout([[a, comma, circle]], length=4, layout="cls_first")
    np.testing.assert_array_equal(cut.token_ids, [[cls, a, comma, sep]])


def test_layout_cuts_to_length_minus_two(tokenizer):
    ids = tokenizer.encode(CAPTIONS[2])
    laid = tokenizer.layout([ids], length=9)
    assert len(ids) > 7
    np.testing.assert_array_equal(laid.token_ids[0], [base.SEP, *ids[:7], base.CLS])
    assert laid.mask.all()


def test_pieces_inside_a_word_share_its_number(tokenizer):
    ids = _ids(tokenizer, "▁a", "r", "e", "d", "(", "g", ",", "▁a")
    assert tokenizer.layout([ids], length=10).word_ids[0, 1:-1].tolist() == [0, 0, 0, 0, 1, 1, 2, 3]
    # What begins in the middle of a word is word 0 all the same.
    assert tokenizer.layout([ids[1:]], length=9).word_ids[0, 1:-1].tolist() == [0, 0, 0, 1, 1, 2, 3]


def test_length_without_room_for_a_word(tokenizer):
    with pytest.raises(UsageError, match="text length of 2"):
        tokenizer.layout([[7]], length=2)


@pytest.mark.parametrize("caption", ["", " \t\n", "\u0301\u0300"])
def test_empty_caption(tokenizer, caption):
    with pytest.raises(UsageError, match="is empty"):
        tokenizer.encode(caption)


def test_empty_caption_among_others_is_named(tokenizer):
    with pytest.raises(UsageError, match=r"'\\t '"):
        tokenizer.encode_all(["a dog", "\t ", "a cat"])


def test_special_pieces_cannot_be_written_into_a_caption(tokenizer):
    ids = tokenizer.encode("a <mask> dog <cls> <sep> <pad>")
    assert not {base.CLS, base.SEP, base.PAD, base.MASK} & set(ids)


def test_training_is_reproducible_and_atomic(tmp_path, model):
    trained, path = vocabulary.train(CAPTIONS, 150), tmp_path / "v.model"
    trained.save(path)
    assert path.read_bytes() == model
    assert [p.name for p in tmp_path.iterdir()] == ["v.model"]
    assert vocabulary.load(path).encode(CAPTIONS[0]) == trained.encode(CAPTIONS[0])


def test_training_sees_prepared_captions():
    shouted = [caption.upper() for caption in CAPTIONS]
    assert vocabulary.train(shouted, 150).model == vocabulary.train(CAPTIONS, 150).model


@pytest.mark.parametrize(("captions", "size"), [([], 100), ([" "], 100), (CAPTIONS, 10)])
def test_vocabulary_that_cannot_be_trained(captions, size):
    with pytest.raises(UsageError, match="vocabulary"):
        vocabulary.train(captions, size)


def test_frequent_words_are_one_piece():
    colours, shapes = ("red", "blue", "green", "orange"), ("star", "ring", "heart", "cross")
    things = [f"a {colour} {shape}" for colour in colours for shape in shapes]
    captions = [f"{a} and {b} on the wall" for a in things for b in things if a != b]
    tokenizer = vocabulary.train(captions, 500)
    for word in set(" ".join(captions).split()):
        assert len(tokenizer.encode(word)) == 1, word


def _trained_elsewhere(**options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CAPTIONS),
        model_writer=out,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return SentencePiece(out.getvalue())


def test_any_sentencepiece_model_serves():
    """What SentencePiece's own command trains has no token to hide words with: it follows."""
    plain = _trained_elsewhere()
    pieces = sentencepiece.SentencePieceProcessor(model_proto=plain.model).vocab_size()
    special = (plain.cls_id, plain.sep_id, plain.pad_id, plain.mask_id)
    assert special == (pieces, pieces + 1, pieces + 2, pieces + 3)
    assert plain.vocab_size == len(plain.starts_word) == pieces + 4
    laid = plain.texts(["a dog"], length=8)
    ids = plain.encode("a dog")
    assert laid.token_ids[0].tolist() == [pieces + 3] * (6 - len(ids)) + [
        pieces + 1,
        *ids,
        pieces,
    ]

    albert = _trained_elsewhere(
        pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"]
    )
    assert (albert.cls_id, albert.sep_id, albert.pad_id, albert.mask_id) == (2, 3, 0, 4)


def test_damaged_and_missing_models(tmp_path, model):
    broken = tmp_path / "broken.model"
    broken.write_bytes(model[: len(model) // 2])
    with pytest.raises(UsageError, match=r"broken\.model is not a SentencePiece model"):
        vocabulary.load(broken)
    broken.write_bytes(b"")
    with pytest.raises(UsageError, match=r"broken\.model is not a SentencePiece model"):
        vocabulary.load(broken)
    with pytest.raises(UsageError, match=r"absent\.model cannot be read"):
        vocabulary.load(tmp_path / "absent.model")


def _reference(sp, caption, length):
    """The release's rules once more, piece by piece on strings."""
    quoted = " ".join(caption.strip().split()).replace("``", '"').replace("''", '"')
    plain = "".join(
        c for c in unicodedata.normalize("NFKD", quoted) if not unicodedata.combining(c)
    )
    pieces = []
    for piece in sp.encode(plain.lower(), out_type=str):
        if len(piece) >= 2 and piece.endswith(",") and piece[-2].isdigit():
            inner = sp.encode(piece[:-1].replace("▁", ""), out_type=str)
            if piece[0] != "▁" and inner[0][0] == "▁":
                if inner[0] == "▁":
                    inner.pop(0)
                else:
                    inner[0] = inner[0][1:]
            pieces.extend(inner)
            pieces.append(",")
        else:
            pieces.append(piece)
    ids = [sp.piece_to_id(piece) for piece in pieces][: length - 2]
    words, word = [], -1
    for index in ids:
        word += word < 0 or sp.id_to_piece(index)[0] in "▁" + string.punctuation
        words.append(word)
    pad = length - 2 - len(ids)
    return (
        [6] * pad + [4, *ids, 3],
        [0] * (length - 1) + [2],
        [-2] * pad + [-1, *words, -1],
        [False] * pad + [True] * (len(ids) + 2),
    )


HARD = [
    *CAPTIONS[:5],
    "In 1999, 2,000, and 30,5, people",
    "about 10,000,000, dollars,5,",
    "x5, 7, 8,,",
    "Ünïcödé ½, ²,³, «quotes» — dash…",
    "日本語 text 5, 日本5,",
    "``quoted'' text''s",
    "<mask> <unk> <sep>",
    "a" * 80 + " 1,",
]


def _assert_like_reference(tokenizer):
    sp = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    for length in (25, 6):
        laid = tokenizer.texts(HARD, length=length)
        for row, caption in enumerate(HARD):
            expected = _reference(sp, caption, length)
            assert laid.features is None
            fields = [field for field in dataclasses.fields(laid) if field.name != "features"]
            for field, value in zip(fields, expected, strict=True):
                actual = getattr(laid, field.name)[row]
                np.testing.assert_array_equal(actual, value, f"{field.name} of {caption!r}")


def test_like_an_independent_implementation(tokenizer):
    _assert_like_reference(tokenizer)


def test_numbers_part_from_their_commas():
    """A vocabulary that has learned `1,` as a piece must not yield it."""
    captions = [f"{n}, {n}1, {n}2," for n in range(10)] * 20
    tokenizer = vocabulary.train(captions, 200)
    sp = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    plain = [sp.id_to_piece(i) for c in captions for i in sp.encode(base.prepare(c))]
    assert any(len(p) > 1 and p[-1] == "," and p[-2].isdigit() for p in plain)
    pieces = [sp.id_to_piece(i) for c in captions for i in tokenizer.encode(c)]
    assert not any(len(p) > 1 and p[-1] == "," and p[-2].isdigit() for p in pieces)
    _assert_like_reference(tokenizer)


@pytest.mark.skipif(not XLNET.exists(), reason="XLNet's vocabulary is not here")
def test_xlnet_vocabulary():
    tokenizer = vocabulary.load(XLNET)
    assert tokenizer.vocab_size == 32000
    _assert_like_reference(tokenizer)
    laid = tokenizer.texts(["A duck swims, in 1,999, on it ."], length=17)
    words = ("▁a", "▁duck", "▁swim", "s", ",", "▁in", "▁1", ",", "999", ",", "▁on", "▁it", "▁", ".")
    expected = _ids(tokenizer, "<mask>", "<sep>", *words, "<cls>")
    assert laid.token_ids[0].tolist() == expected
    numbers = [0, 1, 2, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11]
    assert laid.word_ids[0].tolist() == [-2, -1, *numbers, -1]


def test_a_text_within_a_word_has_no_blank_in_front():
    lines = ["a dog's hat.", "a cat, a dog.", "its hat, a cat's."] * 5
    tokenizer = vocabulary.train(lines, 40)
    for line in ("a dog.", "a dog's hat", "a dog, a cat"):
        whole, start = tokenizer.encode(line), tokenizer.encode("a dog")
        rest = tokenizer.within(tokenizer.encode(line.removeprefix("a dog")))
        pieces = ["".join(map(tokenizer.piece, ids)) for ids in (whole, start + rest)]
        assert pieces[0] == pieces[1]
        assert not tokenizer.starts_word[rest[0]] or tokenizer.piece(rest[0]) in ".,'"
