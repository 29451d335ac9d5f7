"""The small vocabularies of make_tokenizer_goldens.py, and the strings that are tokenised with them."""

import io
import json
import os
import pathlib
import tempfile

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

STRINGS = [
    "",
    " ",
    "  ",
    "   a",
    "a",
    " a",
    "a ",
    "the cat sat",
    " the cat",
    "  the cat",
    "the  cat   sat",
    "the cat\n\nsat\n",
    "\n",
    "\tthe\tcat",
    "don't DON'T we'll",
    "12 345 6789",
    "caf\u00e9 CAF\u00c9 na\u00efve",
    "cafe\u0301 \u212b",
    "Stra\u00dfe \u0130 \ufb01",
    "\u5317\u4eac the\u4eac",
    "\U0001f642\U0001f680 ok",
    "x\u0000y\u200bz\u00ad\ufffd",
    "\u00a0the\u3000cat\u2003",
    "HTMLParser x=1;y==22",
    "a" * 120,
    "<s>the cat</s>",
    "the <s> cat </s> sat",
    " <s> the",
    "<|x|>the <|x|> cat",
    "the <|im_end|> cat<|im_end|>the",
    "[MASK] the [CLS]cat [SEP]",
    "THE [mask] CAT",
    "<|endoftext|>the <|endoftext|> a",
    "\u2581the\u2581cat",
    "##ing running",
    "<0x41>",
    "<unk> <pad> <mask>the <mask> a",
    "<start_of_turn>the <bos> <eos>",
    "the,cat.the!",
    "\ufeffthe",
]
CORPUS = (
    [s for s in STRINGS if "<" not in s and "[" not in s and "\0" not in s] * 3
    + ["the cat sat on the mat", "running the cat's 12 345 don't we'll", "x = 1; y == 22\n\tHTML Parser", "hello world the the  the   the"] * 20
    + ["caf\u00e9 na\u00efve \u5317\u4eac"] * 9
)
NAMED = ["<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<mask>"]


def byte_level():
    """A tokenizer.json as GPT-2's: a byte-level vocabulary trained across word boundaries, with the named tokens last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get) + NAMED
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocab)}, merges=[tuple(m) for m in model["merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    return json.loads(tokenizer.to_str())


def sentence_pieces(kind, **options):
    """A SentencePiece model of a few hundred pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(t for t in CORPUS if t.strip() and t.isascii()),
        model_writer=model,
        model_type=kind,
        vocab_size=360,
        byte_fallback=True,
        character_coverage=0.99,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **{"normalization_rule_name": "identity", **options},
    )
    return model.getvalue()


def unigram():
    """A unigram model with a short table of replacements: a ligature, and a character with two spellings."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the model remembers the table's path
        pathlib.Path("rules.tsv").write_text("FB01\t66 69\n212B\tC5\n3000\t20\n")
        model = sentence_pieces("unigram", normalization_rule_name="user_defined", normalization_rule_tsv="rules.tsv")
        os.chdir(before)
    return model


def llama_json(model):
    """A tokenizer.json as those converted by transformers 4: spaces by the normaliser."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    ways = [(i, len(p) - k, p[:k], p[k:]) for p, i in vocab.items() for k in range(1, len(p)) if p[:k] in vocab and p[k:] in vocab]
    merges = [(a, b) for _, _, a, b in sorted(ways)]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    return json.loads(tokenizer.to_str())


def word_pieces(lowercase):
    """A tokenizer.json as BERT's. The pieces are listed, not trained: the trainer's order differs from run to run."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    both = sorted({c for text in CORPUS for c in text + text.lower() if not c.isspace()})
    words = ["the", "cat", "sat", "don", "we", "run", "caf\u00e9", "cafe", "naive", "na\u00efve", "HT", "html", "12", "ok", "\u2581the"]
    ends = ["##ning", "##ing", "##at", "##ll", "##ML", "##parser", "##aaaa", "##34", "##e\u0301", "##\u2581cat"]
    pieces = special + both + ["##" + c for c in both] + words + ends
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return json.loads(tokenizer.to_str())


def files():
    """The shared files, name to bytes."""
    bpe, bert = byte_level(), word_pieces(True)
    llama = sentence_pieces("bpe", user_defined_symbols=["<|x|>"], control_symbols=["<|im_end|>"])
    gemma = sentence_pieces(
        "bpe",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        add_dummy_prefix=False,
        user_defined_symbols=["<mask>", "<start_of_turn>", "\u2581\u2581", "\u2581\u2581\u2581"],
    )
    pack = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    words = sorted(bert["model"]["vocab"], key=bert["model"]["vocab"].get)
    merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["model"]["merges"]]
    return {
        "byte_level.json": pack(bpe),
        "vocab.json": pack(bpe["model"]["vocab"]),
        "merges.txt": ("#version: 0.2\n" + "\n".join(merges) + "\n").encode(),
        "llama.json": pack(llama_json(llama)),
        "llama.model": llama,
        "gemma.json": pack(llama_json_of_gemma(gemma)),
        "gemma.model": gemma,
        "unigram.model": unigram(),
        "wordpiece.json": pack(bert),
        "vocab.txt": ("\n".join(words) + "\n").encode(),
    }


def llama_json_of_gemma(model):
    """A tokenizer.json as Gemma's."""
    made = llama_json(model)
    named = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>"]
    made["added_tokens"] = [{**token(t), "id": i} for i, t in enumerate(named)]
    made["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    made["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    made["decoder"]["decoders"].pop()
    made["post_processor"]["single"][0]["SpecialToken"]["id"] = "<bos>"
    made["post_processor"]["pair"] = made["post_processor"]["single"] + [{"Sequence": {"id": "B", "type_id": 1}}]
    made["post_processor"]["special_tokens"] = {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}
    return made


def token(content, **flags):
    """A token as tokenizer_config.json writes it."""
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **flags}
