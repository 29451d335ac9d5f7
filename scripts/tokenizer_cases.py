"""The folders of make_tokenizer_goldens.py.

A folder is a dictionary from file names to contents. A content is a name that starts with "@" (a file beside the goldens), a
patched copy of such a file ({"base": name, "set": {json pointer: value}}), a string, or a JSON value.
"""

import json

from tokenizer_vocabularies import token


def typed(content, **flags):
    """A token as older versions wrote it instead of its name."""
    return {"__type": "AddedToken", **token(content, **flags)}


def folder(vocabulary, tokenizer_config=None, model_type=None, **more):
    made = {}
    if vocabulary == "bpe files":
        made.update({"vocab.json": "@vocab.json", "merges.txt": "@merges.txt"})
    elif vocabulary == "vocab.txt":
        made["vocab.txt"] = "@vocab.txt"
    elif isinstance(vocabulary, str) and vocabulary.endswith(".model"):
        made["tokenizer.model"] = f"@{vocabulary}"
    else:
        made["tokenizer.json"] = f"@{vocabulary}" if isinstance(vocabulary, str) else vocabulary
    if tokenizer_config is not None:
        made["tokenizer_config.json"] = tokenizer_config
    if model_type is not None:
        made["config.json"] = {"model_type": model_type}
    made.update({f"{name}.json": value for name, value in more.items()})
    return made


def patched(base, **pointers):
    return {"base": base, "set": {"/" + k.replace("__", "/"): v for k, v in pointers.items()}}


def cases():
    """Name to folder."""
    made = {}
    made.update(of_classes())
    made.update(of_side_files())
    made.update(of_vocabulary_files())
    return made


def of_classes():
    """How each class reads a tokenizer.json, and which class is chosen."""
    made = {}
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    bytes_in = (
        "PreTrainedTokenizerFast",
        "TokenizersBackend",
        "GPT2Tokenizer",
        "GPT2TokenizerFast",
        "GPTNeoXTokenizerFast",
        "Qwen2Tokenizer",
        "Qwen3_5Tokenizer",
        "RobertaTokenizerFast",
        "CodeGenTokenizerFast",
        "BloomTokenizerFast",
        "LlamaTokenizerFast",
        "GemmaTokenizerFast",
        "BartTokenizer",
        "NoSuchTokenizer",
    )
    for name in bytes_in:
        made[f"byte level, {name}"] = folder("byte_level.json", {"tokenizer_class": name, **named}, "llama")
    for name in ("GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "RobertaTokenizer", "CodeGenTokenizer"):
        made[f"byte level, {name}, add_prefix_space"] = folder(
            "byte_level.json", {"tokenizer_class": name, "add_prefix_space": True, **named}, "llama"
        )
    made["add_prefix_space of a tokenizer.json"] = folder(
        "byte_level.json", {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True}, "llama"
    )
    made["tokenizer.json with a prefix, GPT2Tokenizer"] = folder(
        patched("byte_level.json", pre_tokenizer__add_prefix_space=True), {"tokenizer_class": "GPT2Tokenizer"}, "gpt2"
    )
    pieces = ("LlamaTokenizerFast", "LlamaTokenizer", "CodeLlamaTokenizer", "PreTrainedTokenizerFast", "GemmaTokenizer", "GPT2Tokenizer")
    for name in pieces:
        made[f"pieces, {name}"] = folder("llama.json", {"tokenizer_class": name, **named}, "llama")
    for option in (
        {"legacy": True},
        {"legacy": False},
        {"add_prefix_space": False},
        {"add_prefix_space": True, "legacy": True},
        {"add_bos_token": False},
        {"add_eos_token": True},
        {"legacy": None},
        {"add_prefix_space": None},
    ):
        made[f"pieces, LlamaTokenizer, {json.dumps(option)}"] = folder("llama.json", {"tokenizer_class": "LlamaTokenizer", **option}, "llama")
    made["gemma, GemmaTokenizer"] = folder("gemma.json", {"tokenizer_class": "GemmaTokenizer"}, "gemma2")
    made["gemma, no class"] = folder("gemma.json", None, "gemma")
    made["gemma, LlamaTokenizer"] = folder("gemma.json", {"tokenizer_class": "LlamaTokenizer"}, "gemma")
    for kind in (
        "llama",
        "mistral",
        "falcon",
        "bloom",
        "olmo2",
        "phi3",
        "granite",
        "smollm3",
        "stablelm",
        "gpt2",
        "gpt_neox",
        "gptj",
        "opt",
        "olmo",
        "phi",
        "starcoder2",
        "qwen2",
        "qwen3",
        "qwen2_moe",
        "qwen3_moe",
        "roberta",
        "modernbert",
        "gpt_neo",
        "olmoe",
        "mixtral",
    ):
        made[f"no class, {kind}"] = folder("byte_level.json", {"add_prefix_space": True}, kind)
    for kind, name in (
        ("mistral", "LlamaTokenizer"),
        ("qwen2", "LlamaTokenizerFast"),
        ("qwen3", "LlamaTokenizerFast"),
        ("phi3", "LlamaTokenizer"),
        ("gpt2", "PreTrainedTokenizerFast"),
        ("gpt2", "NoSuchTokenizer"),
        ("granite", "GPT2Tokenizer"),
        ("falcon", "GPT2Tokenizer"),
        ("gpt2", "LlamaTokenizer"),
    ):
        made[f"pieces, {kind} with {name}"] = folder("llama.json", {"tokenizer_class": name, "add_prefix_space": True}, kind)
    made["class in config.json"] = {**folder("llama.json", {}), "config.json": {"model_type": "llama", "tokenizer_class": "LlamaTokenizer"}}
    for options in (
        {},
        {"do_lower_case": False},
        {"do_lower_case": True, "strip_accents": False},
        {"strip_accents": True, "do_lower_case": False},
        {"tokenize_chinese_chars": False},
        {"clean_up_tokenization_spaces": True},
    ):
        made[f"BERT, {json.dumps(options)}"] = folder("wordpiece.json", {"tokenizer_class": "BertTokenizer", **options}, "bert")
    made["BERT, no class"] = folder("wordpiece.json", None, "bert")
    made["BERT as tokenizer.json"] = folder("wordpiece.json", {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}, "bert")
    made["DistilBERT"] = folder("wordpiece.json", {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False}, "distilbert")
    made["DistilBERT, no class"] = folder("wordpiece.json", {"strip_accents": False}, "distilbert")
    made["of a class with code of its own"] = folder(
        "llama.json", {"tokenizer_class": "LlamaTokenizer", "auto_map": {"AutoTokenizer": ["tok.Tok", None]}}, "gemma"
    )
    made["name of the checkpoint"] = {
        **folder("llama.json", {"tokenizer_class": "LlamaTokenizer"}),
        "config.json": {"model_type": "llama", "_name_or_path": "deepseek-ai/deepseek-coder-1.3b"},
    }
    made["whole words"] = folder(patched("byte_level.json", model__ignore_merges=True), {"tokenizer_class": "GPT2Tokenizer"}, "gpt2")
    made["tokens are split"] = folder("byte_level.json", {"tokenizer_class": "PreTrainedTokenizerFast", "split_special_tokens": True}, "llama")
    ends = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [421], "tokens": ["<s>"]}},
    }
    for name in ("GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "RobertaTokenizer", "PreTrainedTokenizerFast"):
        made[f"BOS of tokenizer.json, {name}"] = folder(
            patched("byte_level.json", post_processor=ends), {"tokenizer_class": name, "bos_token": "<s>", "add_bos_token": False}, "llama"
        )
    return made


def of_side_files():
    """Tokens that only files beside the vocabulary declare."""
    made = {}
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    for name in ("PreTrainedTokenizerFast", "GPT2Tokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer"):
        said = {"tokenizer_class": name, **named}
        after = {"426": token("<|x|>"), "427": token("<|im_end|>", lstrip=True, rstrip=True), "420": token("<|endoftext|>")}
        made[f"added_tokens_decoder, {name}"] = folder("byte_level.json", {**said, "added_tokens_decoder": after}, "llama")
        made[f"eos_token, {name}"] = folder("byte_level.json", {**said, "eos_token": "<|im_end|>"}, "llama")
        made[f"eos_token typed, {name}"] = folder("byte_level.json", {**said, "eos_token": typed("<|im_end|>", lstrip=True)}, "llama")
        made[f"additional_special_tokens, {name}"] = folder(
            "byte_level.json", {**said, "additional_special_tokens": ["<|x|>", "<|im_end|>"]}, "llama"
        )
        made[f"extra_special_tokens, {name}"] = folder(
            "byte_level.json", {**said, "extra_special_tokens": ["<|x|>"], "additional_special_tokens": ["<|im_end|>"]}, "llama"
        )
        made[f"special_tokens_map, {name}"] = folder(
            "byte_level.json",
            {"tokenizer_class": name},
            "llama",
            special_tokens_map={"eos_token": token("<|im_end|>", rstrip=True), "additional_special_tokens": ["<|x|>"]},
        )
        made[f"added_tokens, {name}"] = folder("byte_level.json", said, "llama", added_tokens={"<|x|>": 426, "<|im_end|>": 427, "<mask>": 425})
        made[f"special_tokens_map beside added_tokens_decoder, {name}"] = folder(
            "byte_level.json",
            {**said, "added_tokens_decoder": {"426": token("<|x|>")}},
            "llama",
            special_tokens_map={"eos_token": "<|im_end|>"},
            added_tokens={"the": 427},
        )
    made["extra_special_tokens by name"] = folder(
        "byte_level.json", {"tokenizer_class": "PreTrainedTokenizerFast", "extra_special_tokens": {"image_token": "<|x|>"}}, "llama"
    )
    made["a token of one's own"] = folder("byte_level.json", {"tokenizer_class": "PreTrainedTokenizerFast", "image_token": "<|x|>"}, "llama")
    made["not special"] = folder(
        "byte_level.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {"426": token("the", special=False, normalized=True)}},
        "llama",
    )
    made["mask takes the space before it"] = folder(
        "byte_level.json", {"tokenizer_class": "RobertaTokenizer", "mask_token": typed("<mask>", lstrip=True)}, "roberta"
    )
    four = [{**token(t), "id": i} for i, t in ((0, "<unk>"), (1, "<s>"), (2, "</s>"), (4, "<|x|>"))]
    made["tokenizer.json adds one more"] = folder(patched("llama.json", added_tokens=four), {"tokenizer_class": "LlamaTokenizer"}, "llama")
    made["added_tokens_decoder leaves one out"] = folder(
        patched("llama.json", added_tokens=four),
        {"tokenizer_class": "LlamaTokenizer", "added_tokens_decoder": {"1": token("<s>")}, "eos_token": "</s>"},
        "llama",
    )
    made["BERT, added tokens"] = folder(
        "wordpiece.json", {"tokenizer_class": "BertTokenizer", "additional_special_tokens": ["<|x|>"]}, "bert", added_tokens={"THE": 300}
    )
    made["another id than declared"] = folder(
        "byte_level.json", {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {"900": token("<|x|>")}}, "llama"
    )
    made["one text with several flags"] = folder(
        "byte_level.json",
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "pad_token": typed("<s>", rstrip=True), "additional_special_tokens": ["<s>"]},
        "gpt2",
    )
    made["normalised tokens"] = folder(
        "llama.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": typed("<pad>", normalized=True), "unk_token": typed("<mask>", special=False)},
        "llama",
        added_tokens={"<mask>": 361},
    )
    made["another token for unknown words"] = folder("wordpiece.json", {"tokenizer_class": "BertTokenizer", "unk_token": "the"}, "bert")
    made["an id that tokenizer.json takes"] = folder(
        "gemma.json",
        {"tokenizer_class": "GemmaTokenizer", "eos_token": "<|endoftext|>"},
        "gemma",
        special_tokens_map={"unk_token": token("<|endoftext|>", single_word=True)},
        added_tokens={"<|endoftext|>": 5},
    )
    made["null roles"] = folder(
        "byte_level.json", {"tokenizer_class": "GPT2Tokenizer", "bos_token": None, "unk_token": None, "eos_token": "</s>"}, "gpt2"
    )
    return made


def of_vocabulary_files():
    """Folders without tokenizer.json."""
    made = {}
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    for kind in ("gpt2", "gpt_neo", "gptj", "opt", "phi", "starcoder2", "gpt_neox", "olmo", "qwen2", "qwen3", "roberta"):
        made[f"vocab.json, {kind}"] = folder("bpe files", None, kind)
    for name in ("GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "GPTNeoXTokenizer", "CodeGenTokenizer", "RobertaTokenizer"):
        for options in ({}, {"add_bos_token": True}, {"add_prefix_space": True, "add_eos_token": True}):
            made[f"vocab.json, {name}, {json.dumps(options)}"] = folder("bpe files", {"tokenizer_class": name, **named, **options}, "llama")
    made["vocab.json, OPT"] = folder(
        "bpe files",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "errors": "replace",
            "unk_token": typed("</s>", normalized=True),
            "bos_token": typed("</s>", normalized=True),
            "eos_token": typed("</s>", normalized=True),
            "pad_token": typed("<pad>", normalized=True),
            "add_prefix_space": False,
            "add_bos_token": True,
        },
        "opt",
        special_tokens_map={
            "bos_token": token("</s>", normalized=True),
            "eos_token": token("</s>", normalized=True),
            "unk_token": token("</s>", normalized=True),
            "pad_token": token("<pad>", normalized=True),
        },
    )
    made["vocab.json, GPT-J"] = folder("bpe files", {"tokenizer_class": "GPT2Tokenizer"}, "gptj", added_tokens={"<|x|>": 426, "<|im_end|>": 427})
    made["vocab.json, phi with runs of spaces"] = folder(
        "bpe files",
        {
            "tokenizer_class": "CodeGenTokenizer",
            "add_prefix_space": False,
            "added_tokens_decoder": {
                "420": token("<|endoftext|>"),
                "426": token("  ", special=False, normalized=True),
                "427": token("\t", special=False),
            },
        },
        "phi",
    )
    for options in (
        {},
        {"do_lower_case": False},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"tokenizer_class": "BertTokenizer"},
        {"tokenizer_class": "DistilBertTokenizer"},
        {"unk_token": "[UNK]", "additional_special_tokens": ["<|x|>"]},
    ):
        made[f"vocab.txt, {json.dumps(options)}"] = folder("vocab.txt", options, "bert")
    made["vocab.txt, distilbert"] = folder("vocab.txt", None, "distilbert")
    for options in ({}, {"legacy": True}, {"add_prefix_space": False}, {"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True}):
        made[f"tokenizer.model, LlamaTokenizer, {json.dumps(options)}"] = folder(
            "llama.model", {"tokenizer_class": "LlamaTokenizer", **options}, "llama"
        )
    made["tokenizer.model, Llama 2"] = folder(
        "llama.model",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "tokenizer_class": "LlamaTokenizer",
            "legacy": False,
            "bos_token": typed("<s>", normalized=True),
            "eos_token": typed("</s>", normalized=True),
            "unk_token": typed("<unk>", normalized=True),
            "clean_up_tokenization_spaces": False,
        },
        "llama",
        special_tokens_map={"bos_token": token("<s>"), "eos_token": token("</s>"), "unk_token": token("<unk>")},
        added_tokens={"<pad>": 360},
    )
    made["tokenizer.model, CodeLlama"] = folder("llama.model", {"tokenizer_class": "CodeLlamaTokenizer", "add_bos_token": True}, "llama")
    for kind in ("llama", "mistral", "mixtral", "phi3", "granite"):
        made[f"tokenizer.model, {kind}"] = folder("llama.model", {"add_bos_token": True}, kind)
    made["tokenizer.model, mistral with LlamaTokenizer"] = folder(
        "llama.model",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "added_tokens_decoder": {"0": token("<unk>"), "1": token("<s>"), "2": token("</s>"), "3": token("[INST]")},
        },
        "mistral",
    )
    for options in (
        {},
        {"add_bos_token": True},
        {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True},
        {"additional_special_tokens": ["<start_of_turn>"]},
    ):
        made[f"tokenizer.model, gemma, {json.dumps(options)}"] = folder("gemma.model", options, "gemma")
    made["tokenizer.model, placeholder renamed"] = folder(
        "llama.model",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "added_tokens_decoder": {"0": token("<unk>"), "1": token("<s>"), "2": token("</s>"), "3": token("<|y|>"), "360": token("<|z|>")},
        },
        "mistral",
    )
    made["tokenizer.model, unigram, LlamaTokenizer"] = folder("unigram.model", {"tokenizer_class": "LlamaTokenizer"}, "llama")
    made["vocab.json, granite with GPT2Tokenizer"] = folder("bpe files", {"tokenizer_class": "GPT2Tokenizer"}, "granite")
    made["vocab.json, bloom"] = folder("bpe files", None, "bloom")
    made["vocab.json and tokenizer.model"] = {**folder("bpe files", None, "gpt2"), "tokenizer.model": "@llama.model"}
    made["tokenizer.model, unigram"] = folder("unigram.model", {"add_bos_token": True}, "mistral")
    return made
