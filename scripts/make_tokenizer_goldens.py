"""Writes tests/goldens/tokenizers: small folders of tokenizers, and the tokens that AutoTokenizer makes of strings.

    python scripts/make_tokenizer_goldens.py        (what requirements-goldens.txt lists)

`ids` are the tokens without special tokens; with them they are `prefix + ids + suffix`, which is checked here. `rebuilt` says that
tokenizer.json alone gives other tokens, which needs a warning. If AutoTokenizer raises an error, there is `error` instead.
The folders are in tokenizer_cases.py, vocabularies and strings in tokenizer_vocabularies.py.
"""

import json
import os
import pathlib
import shutil
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
import transformers
from tokenizers import Tokenizer

from tokenizer_cases import cases
from tokenizer_vocabularies import STRINGS, files

OUT = pathlib.Path(__file__).resolve().parents[1] / "tests" / "goldens" / "tokenizers"
transformers.logging.set_verbosity_error()


def content(value):
    """The bytes of a file of a case."""
    if isinstance(value, str) and value.startswith("@"):
        return (OUT / value[1:]).read_bytes()
    if isinstance(value, dict) and "base" in value:
        made = json.loads((OUT / value["base"]).read_text())
        for pointer, new in value["set"].items():
            *way, last = pointer.strip("/").split("/")
            at = made
            for step in way:
                at = at[step]
            at[last] = new
        value = made
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def differs(path, tokenizer, ids):
    """Whether the class splits text differently from tokenizer.json alone, apart from added tokens."""
    if not path.is_file():
        return False
    alone = Tokenizer.from_file(str(path))
    alone.add_tokens(list(tokenizer.added_tokens_decoder.values()))
    alone.encode_special_tokens = tokenizer.split_special_tokens
    return any(alone.encode(s, add_special_tokens=False).ids != i for s, i in zip(STRINGS, ids))


def reference(folder):
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = [tokenizer(s, add_special_tokens=False)["input_ids"] for s in STRINGS]
        whole = [tokenizer(s)["input_ids"] for s in STRINGS]
    except Exception as e:  # any exception is AutoTokenizer's answer
        return {"error": f"{type(e).__name__}: {e}".split("\n")[0][:160].replace(str(folder), "FOLDER")}
    at = next(i for i, s in enumerate(STRINGS) if s == "the cat sat")
    n = len(ids[at])
    start = next(i for i in range(len(whole[at]) - n + 1) if whole[at][i : i + n] == ids[at])
    prefix, suffix = whole[at][:start], whole[at][start + n :]
    assert all(w == prefix + i + suffix for w, i in zip(whole, ids))
    rebuilt = differs(pathlib.Path(folder) / "tokenizer.json", tokenizer, ids)
    # Those that are added as special: user-defined pieces of SentencePiece are special in lists only.
    added = tokenizer.added_tokens_decoder
    special = {s: i for s in tokenizer.all_special_tokens if added[i := tokenizer.convert_tokens_to_ids(s)].special}
    return {
        "class": type(tokenizer).__name__,
        "bos": tokenizer.bos_token,
        "special": special,
        "rebuilt": rebuilt,
        "prefix": prefix,
        "suffix": suffix,
        "ids": ids,
    }


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for name, data in files().items():
        (OUT / name).write_bytes(data)
    (OUT / "strings.json").write_text(json.dumps(STRINGS) + "\n")
    lines = []
    for name, made in cases().items():
        with tempfile.TemporaryDirectory() as folder:
            for file, value in made.items():
                (pathlib.Path(folder) / file).write_bytes(content(value))
            lines.append(json.dumps({"name": name, "files": made, **reference(folder)}, ensure_ascii=False, separators=(",", ":")))
    (OUT / "cases.jsonl").write_text("\n".join(lines) + "\n")
    print(
        len(lines),
        "cases,",
        sum(p.stat().st_size for p in OUT.iterdir()),
        "bytes;",
        sum('"error":' in line for line in lines),
        "of which AutoTokenizer refuses",
    )


if __name__ == "__main__":
    main()
