"""Makes a tokenizer folder for transformers from the demo model's GGUF file, without PyTorch."""

import json
import struct
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# Types of values in a GGUF file, as struct knows them; 8 is a string and 9 an array.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
CONTROL_TOKEN = 3


def metadata(path):
    """The key-value pairs at the beginning of a GGUF file."""
    with open(path, "rb") as file:

        def number(kind):
            return struct.unpack(f"<{kind}", file.read(struct.calcsize(f"<{kind}")))[0]

        def value(kind):
            if kind == STRING:
                return file.read(number("Q")).decode()
            if kind == ARRAY:
                inner, n = number("I"), number("Q")
                return [value(inner) for _ in range(n)]
            return number(NUMBERS[kind])

        assert file.read(4) == b"GGUF" and number("I") >= 2
        _, n_pairs = number("Q"), number("Q")
        return {value(STRING): value(number("I")) for _ in range(n_pairs)}


def write_tokenizer(gguf, folder):
    """Writes `tokenizer.json` and `tokenizer_config.json`: byte-level BPE that splits digits one by one, as SmolLM2's."""
    pairs = metadata(gguf)
    assert (pairs["tokenizer.ggml.model"], pairs["tokenizer.ggml.pre"]) == ("gpt2", "smollm"), "not SmolLM2's tokenizer"
    tokens = pairs["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in pairs["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, pairs["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token, kind in kinds if kind == CONTROL_TOKEN])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {role: tokens[pairs[f"tokenizer.ggml.{key}_token_id"]] for role, key in [("bos_token", "bos"), ("eos_token", "eos")]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
