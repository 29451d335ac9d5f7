"""Writes the reference activations that tests/it/model_*.rs compares Residuum with.

    python -m venv .venv && .venv/bin/pip install -r scripts/requirements-goldens.txt
    .venv/bin/python scripts/make_goldens.py tiny [FAMILY ...]     tiny seeded random checkpoints
    .venv/bin/python scripts/make_goldens.py smollm2 MODEL.gguf    the demo model
    .venv/bin/python scripts/make_goldens.py tokens MODEL.gguf     its tokens for generated strings
    .venv/bin/python scripts/make_goldens.py greedy MODEL.gguf     greedy continuations of the tiny checkpoints and the demo model
    .venv/bin/python scripts/make_goldens.py warpers               probabilities after temperature, top-k and top-p
    .venv/bin/python scripts/make_goldens.py minilm FOLDER         the demo encoder, and its tokens
    .venv/bin/python scripts/make_goldens.py chats MODEL.gguf      positions of its tokens and messages, and open chats

Everything is seeded; a second run writes the same files.
"""

import json
import random
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, AddedToken
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.models.llama.modeling_llama import LlamaRMSNorm

import golden_taps as taps
from golden_cases import CASES

GOLDENS = Path(__file__).resolve().parent.parent / "tests" / "goldens"
VOCAB = 272
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDPIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]
WORDPIECES += ["the", "run", "##ing", "##ning", "tower", "##s", ",", ".", "!", "'", "北", "京"]


def tiny_tokenizer(folder):
    """Bytes, a few merges and three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {c: i for i, c in enumerate(alphabet)}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "a")]
    for a, b in merges:
        vocab[a + b] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<s>", "</s>", "<|user|>")])
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "special": True},
        "chat_template": "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def wordpiece_tokenizer(folder):
    """Like BERT's, with letters and a few pieces. Like BERT's own files, it does not name the roles of the tokens."""
    vocab = WORDPIECES
    tokenizer = Tokenizer(models.WordPiece(vocab={t: i for i, t in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in vocab[:5]])
    ends = [(t, vocab.index(t)) for t in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 64}))


def vocab_tokenizer(folder):
    """The same as a plain list of pieces, as in the first BERT files."""
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in WORDPIECES))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))


TOKENIZERS = {"bytes": tiny_tokenizer, "wordpiece": wordpiece_tokenizer, "vocab": vocab_tokenizer}


def randomise(model, seed):
    """Weights whose errors would show: projections keep the size of their input, norm gains and biases are far from 1 and 0."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.dim() == 1:
            gain = name.endswith("weight")
            offset = 0 if "Gemma" in type(model).__name__ else 1  # Gemma stores its gains minus one
            p.data = (offset + 0.3 * noise) if gain else 0.2 * noise
        elif "embed" in name or "wte" in name or "wpe" in name or "word_emb" in name:
            p.data = noise
        else:
            fan_in = p.shape[0] if type(model).__name__.startswith("GPT2") else p.shape[-1]
            size = 3.0 if name.endswith("mlp.gate.weight") else 1.2  # routers that clearly prefer some experts
            p.data = size * noise / fan_in**0.5


def respell(path, case):
    """Rewrites config.json the way transformers 4 spelled it."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    if "rope_key" in case:
        rope[case["rope_key"]] = rope.pop("rope_type")
    path.write_text(json.dumps(config, indent=2))


def rename_weights(path, rename):
    """Rewrites the names of a safetensors file."""
    tensors = {rename(name): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


def tiny(family, name, case):
    folder = GOLDENS / family / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    config = case["config"]()
    auto = case.get("auto", AutoModelForCausalLM)
    model = auto.from_config(config)
    randomise(model, sum(map(ord, family + name)))
    case.get("prepare", lambda model: None)(model)
    model.to(case.get("dtype", torch.float32))
    model.save_pretrained(folder, max_shard_size=case.get("shard", "1GB"), **case.get("save", {}))
    (folder / "generation_config.json").unlink(missing_ok=True)
    TOKENIZERS[case.get("tokenizer", "bytes")](folder)
    attention = case.get("attention", "tapped")
    model = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()
    if case.get("old_spelling"):
        respell(folder / "config.json", case)
    if "rewrite" in case:
        path = folder / "config.json"
        path.write_text(json.dumps(case["rewrite"](json.loads(path.read_text())), indent=2))
    if "rename" in case:
        rename_weights(folder / "model.safetensors", case["rename"])
    case["tap"](model)
    generator = random.Random(7)
    tensors = {}
    for i, n in enumerate(case.get("lengths", (1, 4, 11))):
        ids = [generator.randrange(VOCAB) for _ in range(n)]
        if "inside" in case:
            ids[n // 2] = case["inside"]
        tensors[f"{i}/ids"] = torch.tensor(ids)
        for hook, value in taps.run(model, ids).items():
            if case.get("full") or any(k in hook for k in ("resid_post", "rot_", "logits")):
                tensors[f"{i}/{hook}"] = value
    save_file(tensors, folder / "reference.safetensors")
    print(family, name, len(tensors), "tensors")


def open_gguf(path):
    path = Path(path).resolve()
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    return model, gguf_tokenizer(path)


def gguf_tokenizer(path):
    """transformers' tokenizer of the file, with the digit rule of SmolLM2's own tokenizer.json.

    `tokenizer.ggml.pre` is "smollm": every digit is split off, then GPT-2's rule applies. transformers' reader of GGUF
    files does not know the name and does not split digits, which changes the tokens of spaces before digits.
    """
    path = Path(path).resolve()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


CHAT = [
    {"role": "user", "content": "What is a residual stream?"},
    {"role": "assistant", "content": "The sum of what every layer wrote."},
    {"role": "user", "content": "And its norm?"},
]
PROMPTS = [
    "The Eiffel Tower is in the city of",
    "a",
    "def fib(n):\n    if n < 2:\n        return n\n    return fib(n - 1) + fib(n - 2)\n",
    "Der schnelle braune Fuchs springt über den faulen Hund. 東京は日本の首都です。 Привет, мир!",
    "🙂🚀 emoji family 👨‍👩‍👧‍👦 and 2 + 2 = 4; pi is 3.14159",
    "In the beginning there was a token, and the token had a position. " * 30,
]


def in_float64(model):
    """The reference in float64, norms too: at the first position this model takes one dimension from 700 back to 50,
    and transformers in float32 is off by up to 9e-5 of the row's root mean square there."""

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    LlamaRMSNorm.forward = forward
    return model.double()


def smollm2(path):
    model, tokenizer = open_gguf(path)
    model = in_float64(model)
    chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    tensors, chosen = {}, {}
    for l, layer in enumerate(model.model.layers):
        layer.register_forward_hook(
            lambda _, __, out, l=l: chosen.__setitem__(l, out[0] if isinstance(out, tuple) else out)
        )
    prompts = PROMPTS + [chat]
    for i, text in enumerate(prompts):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        positions = sorted({0, len(ids) // 2, len(ids) - 1})
        stream = torch.stack([chosen[l].reshape(len(ids), -1)[positions] for l in range(len(chosen))])
        top = logits.topk(5)
        tensors |= {
            f"{i}/ids": torch.tensor(ids),
            f"{i}/positions": torch.tensor(positions),
            f"{i}/resid_post": stream.float(),  # [layer, position, d_model]
            f"{i}/top_ids": top.indices,
            f"{i}/top_logits": top.values.float(),
        }
        print(repr(text[:40]), len(ids), "tokens ->", repr(tokenizer.decode(top.indices[0])))
    metadata = {"prompts": json.dumps(prompts), "chat": json.dumps(CHAT)}
    save_file({k: v.contiguous() for k, v in tensors.items()}, GOLDENS / "smollm2.safetensors", metadata)


def generated_strings():
    """A few thousand strings for all rules of the pre-tokeniser."""
    r = random.Random(20240607)
    words = "the of and token residual stream Layer NORM don't it's we'll I'm they've x1 v2 café naïve über 東京 привет".split()
    words += "def return self.x == != -> foo_bar camelCase __init__ 12 345 6789 3.14 1,000 0x1F ½ ² ٣ Ⅷ 🙂 🚀 👨‍👩‍👧 e\u0301 ﷺ".split()
    words += ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start", "\u200b", "\ufeff", "\u00a0", "\x00", "\x7f"]
    gaps = ["", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", ", ", ". ", "' ", "    "]
    strings = ["".join(r.choice(words) + r.choice(gaps) for _ in range(r.randint(1, 8))) for _ in range(2000)]
    strings += [r.choice(gaps) + s for s in strings[:300]]
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x500), (0x590, 0x700), (0x900, 0xA00), (0x3040, 0x3100),
              (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1F6FF), (0x2000, 0x2100), (0x20, 0x7F)]
    for _ in range(1200):
        a, b = r.choice(ranges)
        strings.append("".join(chr(r.randrange(a, b)) for _ in range(r.randint(1, 12))))
    return strings


def tokens(path):
    tokenizer = gguf_tokenizer(path)
    strings = generated_strings()
    cases = [[s, tokenizer(s, add_special_tokens=True)["input_ids"]] for s in strings]
    chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    golden = {"strings": cases, "chat": {"messages": CHAT, "rendered": chat}}
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (GOLDENS / "smollm2_tokens.json").write_text(text)
    print(len(cases), "strings,", len(text), "characters")


def continue_greedily(model, ids, n, use_cache=True):
    with torch.no_grad():
        # Without an explicit mask, generate() treats tokens that equal the padding token as padding.
        mask = torch.ones(1, len(ids), dtype=torch.long)
        out = model.generate(torch.tensor([ids]), attention_mask=mask, max_new_tokens=n, do_sample=False, pad_token_id=0, use_cache=use_cache)
    return out[0].tolist()


def greedy(path):
    golden = {"tiny": {}, "smollm2": []}
    generator = random.Random(11)
    for family, cases in CASES.items():
        for name, case in cases.items():
            # No LM head, or a spelling that transformers 5 no longer reads.
            if case.get("auto", AutoModelForCausalLM) is not AutoModelForCausalLM or "rewrite" in case:
                continue
            attention = case.get("attention", "eager")
            folder = GOLDENS / family / name
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()
            prompts = [[generator.randrange(VOCAB) for _ in range(n)] for n in (1, 5, 13)]
            # transformers keeps keys that were rotated for a shorter text.
            cached = not any(kind in name for kind in ("dynamic", "longrope"))
            golden["tiny"][f"{family}/{name}"] = [continue_greedily(model, ids, 12, cached) for ids in prompts]
    model, tokenizer = open_gguf(path)
    chat = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    for text in [*PROMPTS[:3], chat]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = continue_greedily(model, ids, 24)
        completion = tokenizer.decode(whole[len(ids) :], skip_special_tokens=True)
        golden["smollm2"].append({"ids": ids, "whole": whole, "text": completion})
        print(repr(text[-30:]), "->", repr(completion))
    (GOLDENS / "greedy.json").write_text(json.dumps(golden, separators=(",", ":")))


def warpers():
    """Probabilities after transformers' own logits processors, in the order in which generate() applies them."""
    generator = torch.Generator().manual_seed(5)
    cases = []
    for temperature, top_k, top_p in [(1.0, None, None), (0.7, 5, None), (1.5, None, 0.8), (0.3, 10, 0.6), (2.0, 3, 0.05)]:
        logits = 2 * torch.randn(1, 24, generator=generator)
        logits[0, 3] = logits[0, 7]  # a tie
        scores = TemperatureLogitsWarper(temperature)(None, logits) if temperature != 1.0 else logits
        scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
        scores = TopPLogitsWarper(top_p)(None, scores) if top_p else scores
        cases.append(
            {
                "temperature": temperature, "top_k": top_k, "top_p": top_p, "logits": logits[0].tolist(),
                "probabilities": scores[0].double().softmax(-1).tolist(),
            }
        )
    (GOLDENS / "warpers.json").write_text(json.dumps(cases, separators=(",", ":")))


SENTENCES = [
    "The Eiffel Tower is in the city of Paris.",
    "Paris is where you find the Eiffel Tower.",
    "A residual stream is the sum of what every layer wrote.",
    "a",
    "",
    "Tokenisation of UNCOMMON, hyphen-ated and accented words: naïve café, Übergröße, 東京, 🙂.",
    "In the beginning there was a token, and the token had a position. " * 20,  # beyond what the tokenizer's file allows
]


def minilm(folder):
    """Mean over the tokens of every block's output, in float64: the last is the sentence embedding before it is scaled to
    length one."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    tensors = {}
    for i, text in enumerate(SENTENCES):
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[1:]
        tensors[f"{i}/ids"] = torch.tensor(ids)
        tensors[f"{i}/means"] = torch.stack([s[0].mean(0) for s in states]).float()  # [layer, d_model]
        print(repr(text[:40]), len(ids), "tokens")
    save_file(tensors, GOLDENS / "minilm.safetensors", {"sentences": json.dumps(SENTENCES)})
    strings = generated_strings()[::35] + ["[CLS] a [MASK] b [SEP]", "[mask]", "x" * 101, " ", "\t\n"]
    cases = [[s, tokenizer(s)["input_ids"], tokenizer(s, add_special_tokens=False)["input_ids"]] for s in strings]
    (GOLDENS / "minilm_tokens.json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")))
    print(len(cases), "strings")


SPACED = "Paris is the city of "
CHATS = [
    CHAT,
    CHAT[:2],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Où est l'Eiffel? 東京 🙂"}],
    [{"role": "user", "content": "user"}, {"role": "assistant", "content": "user"}, {"role": "user", "content": "a"}],
    [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2\n\nBecause\n\n1 + 1 = 2"}],
]
OPEN_CHATS = CHATS + [
    [{"role": "user", "content": SPACED}, {"role": "assistant", "content": SPACED}],
    [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "\n "}],
    [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": ""}],
]
CONTENT = "message['content']"


def message_tokens(tokenizer, messages, k):
    """Positions of the content of message k: transformers' mask of what a template says was generated."""
    template = tokenizer.chat_template
    before, _, behind = template.partition(CONTENT)
    assert CONTENT not in behind
    head, tail = before.rindex("{{"), behind.index("}}") + 2
    said = "{{ " + CONTENT + " }}"
    marked = "{% if loop.index0 == " + str(k) + " %}{% generation %}" + said + "{% endgeneration %}{% else %}" + said + "{% endif %}"
    pieces = ["{{ " + before[head + 2 :].strip(" +") + " }}", marked, "{{ " + behind[: tail - 2].strip(" +") + " }}"]
    template = before[:head] + "".join(pieces) + behind[tail:]
    out = tokenizer.apply_chat_template(
        messages, chat_template=template, return_assistant_tokens_mask=True, return_dict=True
    )
    assert out["input_ids"] == tokenizer.apply_chat_template(messages)["input_ids"]
    chosen = [i for i, m in enumerate(out["assistant_masks"]) if m]
    assert chosen == list(range(chosen[0], chosen[-1] + 1))
    return [chosen[0], chosen[-1] + 1]


def chats(path):
    tokenizer = gguf_tokenizer(path)
    strings = [s for s in generated_strings() if any(ord(c) > 127 for c in s)][::40] + PROMPTS[:5]
    golden = {
        "offsets": [[s, tokenizer(s, return_offsets_mapping=True)["offset_mapping"]] for s in strings],
        "special": sorted(tokenizer.all_special_ids),
        "chats": [[m, [message_tokens(tokenizer, m, k) for k in range(len(m))]] for m in CHATS],
        "open": [
            [m, tokenizer.apply_chat_template(m, tokenize=False, continue_final_message=True)] for m in OPEN_CHATS
        ],
    }
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (GOLDENS / "smollm2_chats.json").write_text(text)
    print({k: len(v) for k, v in golden.items()}, len(text), "characters")


def main():
    match sys.argv[1:]:
        case ["tiny", *families]:
            for family, cases in CASES.items():
                if not families or family in families:
                    for name, case in cases.items():
                        tiny(family, name, case)
        case ["smollm2", path]:
            smollm2(path)
        case ["minilm", path]:
            minilm(path)
        case ["tokens", path]:
            tokens(path)
        case ["greedy", path]:
            greedy(path)
        case ["warpers"]:
            warpers()
        case ["chats", path]:
            chats(path)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
