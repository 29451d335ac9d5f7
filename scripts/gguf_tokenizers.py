"""The tokenizers of the tiny GGUF files: byte-level BPE and SentencePiece, and their tokens for strings.

Both vocabularies are trained across word boundaries, so that a wrong rule for splitting text gives other tokens.
"""

import io
import json
from functools import cache

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.integrations.gguf import gguf_tokenizer_mapping as mapping

from gguf_cases import VOCAB
from make_goldens import generated_strings

SPECIAL = ["<s>", "</s>", "<|user|>"]
TEMPLATE = "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}"
BY_HAND = ["", " ", "  ", "   a", " a", "a ", "\n", "\n\n\n", " \n a", "a\tb", "🙂", "🙂 🚀", "日本 語", "\u0000", "é e\u0301",
           "Don't DON'T we'LL", "1234567 12 1", "x=1;y==22", "CamelCaseWords HTMLParser", "a  b   c    d", "<b>x</b>"]


@cache
def strings():
    chosen = generated_strings()
    plain = [s for s in chosen if not any(special in s for special in SPECIAL)]
    return BY_HAND + plain[:: len(plain) // 260]


@cache
def corpus():
    texts = generated_strings()[::3] + [f"{n} {n * 37} {n * 1009}" for n in range(300)]
    return texts + ["the cat\n\nand  the   dog's 12 345 don't  we'll\n"] * 200


@cache
def byte_level():
    """Vocabulary and merges that do not respect word boundaries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    size = VOCAB - len(SPECIAL)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].get)
    assert len(vocab) == size, len(vocab)
    return vocab + SPECIAL, [tuple(m) for m in model["merges"]]


@cache
def pieces(prefix):
    """A SentencePiece model, with or without a space put in front."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(t for t in corpus() if t.strip() and t.isascii() and "\0" not in t),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_by_whitespace=False,
        split_by_number=False,
        split_by_unicode_script=False,
        num_threads=1,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def write(writer, pre):
    if pre.startswith("spm"):
        write_pieces(writer, pieces(pre == "spm-llama"), gemma=pre == "spm-gemma")
        return
    vocab, merges = byte_level()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocab)
    writer.add_token_types([1] * (VOCAB - len(SPECIAL)) + [3] * len(SPECIAL))
    writer.add_token_merges([" ".join(m) for m in merges])
    writer.add_bos_token_id(VOCAB - 3)
    writer.add_eos_token_id(VOCAB - 2)
    writer.add_chat_template(TEMPLATE)
    if pre != "llama-bpe":  # which adds BOS if the file does not say
        writer.add_add_bos_token(pre in ("tekken", "gpt-4o"))


def write_pieces(writer, model, gemma):
    """As the converter does; Gemma's runs of spaces are tokens that the user defined."""
    tokens = [model.id_to_piece(i) for i in range(VOCAB)]
    scores = [model.get_score(i) for i in range(VOCAB)]
    kinds = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in range(VOCAB)]
    if gemma:
        for i, token in enumerate(tokens):
            if len(token) > 1 and set(token) == {"▁"}:
                tokens[i], scores[i], kinds[i] = " " * len(token), -1000.0, 4
        assert 4 in kinds
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if gemma:
        writer.add_add_space_prefix(False)
        writer.add_add_bos_token(True)


def byte_level_reference(pre):
    """The rule from transformers if it has one, else from the tokenizer.json of the model the name comes from."""
    vocab, merges = byte_level()
    whole = pre in ("llama-bpe", "dbrx", "tekken")
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(vocab)}, merges=merges, ignore_merges=whole))
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    split = mapping.GGUF_PRE_TOKENIZER_SPLITS.get("qwen2" if pre == "stablelm2" else pre)
    if split is not None:
        bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), bytes_only])
    elif pre in ("smollm", "starcoder", "refact"):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    else:
        assert pre in ("gpt-2", "olmo")
        tokenizer.pre_tokenizer = gpt2
    if pre in ("qwen2", "olmo"):  # Qwen2Tokenizer and GPTNeoXTokenizer normalise to NFC; transformers' GGUF reader does not
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    bos = [VOCAB - 3] if pre in ("llama-bpe", "tekken", "gpt-4o") else []
    return lambda text: bos + tokenizer.encode(text).ids


def read_by_transformers(path):
    """The tokens by transformers' own reading of the file; it sets BOS elsewhere."""
    architecture, description, _ = mapping.get_gguf_tokenizer(str(path))
    tokenizer, _ = mapping.convert_gguf_tokenizer(architecture, description)
    return lambda text: [1] + tokenizer.encode(text, add_special_tokens=False).ids


def reference(path, pre):
    """Strings and their tokens."""
    if not pre.startswith("spm"):
        encode = byte_level_reference(pre)
        return [[s, encode(s)] for s in strings()[::4]]
    theirs = read_by_transformers(path)
    if pre == "spm-gemma":
        return [[s, theirs(s)] for s in strings()]
    model = pieces(True)
    cases = [[s, [1] + model.encode(s)] for s in strings()]
    # transformers puts no space in front of a text that starts with one; SentencePiece does.
    differ = [s for s, ids in cases if theirs(s) != ids]
    assert all(s.startswith(" ") for s in differ), differ
    print(f"transformers differs from SentencePiece on {len(differ)} of {len(cases)} strings, all with a space in front")
    return cases
