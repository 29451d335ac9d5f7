//! Chooses the tokenizer class that AutoTokenizer would choose for a folder, and knows what each class decides by itself.
//!
//! Most classes of transformers 5 use only vocabulary and merges of `tokenizer.json`, and build normaliser, pre-tokeniser and decoder
//! themselves. `TokenizersBackend` uses the file as it is.

use serde_json::Value;

use super::side_files::SideFiles;

/// The supported classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `TokenizersBackend`, formerly `PreTrainedTokenizerFast`: `tokenizer.json` as it is.
    Backend,
    /// `LlamaTokenizer`.
    Llama,
    /// `CodeLlamaTokenizer`.
    CodeLlama,
    /// `GemmaTokenizer`.
    Gemma,
    /// `GPT2Tokenizer`.
    Gpt2,
    /// `CodeGenTokenizer`.
    CodeGen,
    /// `GPTNeoXTokenizer`.
    GptNeoX,
    /// `Qwen2Tokenizer`.
    Qwen2,
    /// `Qwen3_5Tokenizer`.
    Qwen35,
    /// `BertTokenizer` and those that only inherit from it.
    Bert,
    /// `RobertaTokenizer`, which is also BART's.
    Roberta,
}

/// The class of each model type. Other model types have no class of their own.
const REGISTERED: &[(&str, Class)] = &[
    ("bert", Class::Bert),
    ("distilbert", Class::Bert),
    ("gemma", Class::Gemma),
    ("gemma2", Class::Gemma),
    ("gemma3", Class::Gemma),
    ("gemma3_text", Class::Gemma),
    ("gpt2", Class::Gpt2),
    ("gpt_neo", Class::Gpt2),
    ("gpt_neox", Class::GptNeoX),
    ("gptj", Class::Gpt2),
    ("granite", Class::Backend),
    ("mistral", Class::Backend),
    ("mixtral", Class::Backend),
    ("modernbert", Class::Backend),
    ("olmo", Class::GptNeoX),
    ("olmo2", Class::Backend),
    ("olmoe", Class::GptNeoX),
    ("opt", Class::Gpt2),
    ("phi", Class::Gpt2),
    ("phi3", Class::Backend),
    ("qwen2", Class::Qwen2),
    ("qwen2_moe", Class::Qwen2),
    ("qwen3", Class::Qwen2),
    ("qwen3_moe", Class::Qwen2),
    ("roberta", Class::Roberta),
    ("stablelm", Class::Backend),
    ("starcoder2", Class::Gpt2),
];

/// Model types for which transformers ignores the class that a folder names, because it is often wrong.
const MISNAMED: &[&str] = &["modernbert", "phi3", "qwen2"];

/// The names of each class, without the ending "Fast".
const NAMES: &[(&str, Class)] = &[
    ("LlamaTokenizer", Class::Llama),
    ("CodeLlamaTokenizer", Class::CodeLlama),
    ("GemmaTokenizer", Class::Gemma),
    ("GPT2Tokenizer", Class::Gpt2),
    ("CodeGenTokenizer", Class::CodeGen),
    ("GPTNeoXTokenizer", Class::GptNeoX),
    ("Qwen2Tokenizer", Class::Qwen2),
    ("Qwen3_5Tokenizer", Class::Qwen35),
    ("BertTokenizer", Class::Bert),
    ("DistilBertTokenizer", Class::Bert),
    ("ConvBertTokenizer", Class::Bert),
    ("LxmertTokenizer", Class::Bert),
    ("MobileBertTokenizer", Class::Bert),
    ("SqueezeBertTokenizer", Class::Bert),
    ("RobertaTokenizer", Class::Roberta),
    ("BartTokenizer", Class::Roberta),
    ("LEDTokenizer", Class::Roberta),
    ("MvpTokenizer", Class::Roberta),
];

/// Classes with their own rules in transformers that are not supported here, without the ending "Tokenizer".
const FOREIGN: &[&str] = &[
    "Albert",
    "Barthez",
    "Bartpho",
    "BertGeneration",
    "BertJapanese",
    "Bertweet",
    "BigBird",
    "BioGpt",
    "Blenderbot",
    "BlenderbotSmall",
    "ByT5",
    "CLIP",
    "CTRL",
    "Camembert",
    "Canine",
    "Clvp",
    "Cohere",
    "CpmAnt",
    "Cpm",
    "Deberta",
    "DebertaV2",
    "Dia",
    "Esm",
    "Esmc",
    "FNet",
    "FSMT",
    "Flaubert",
    "Funnel",
    "GPTNeoXJapanese",
    "GPTSw3",
    "Herbert",
    "Lasr",
    "LayoutLMv2",
    "LayoutLMv3",
    "LayoutXLM",
    "Luke",
    "M2M100",
    "MBart",
    "MBart50",
    "MLuke",
    "MPNet",
    "Marian",
    "MarkupLM",
    "MyT5",
    "Nllb",
    "Nougat",
    "OpenAIGPT",
    "PLBart",
    "Parakeet",
    "Pegasus",
    "Perceiver",
    "Phobert",
    "ProphetNet",
    "Reformer",
    "RemBert",
    "RoCBert",
    "RoFormer",
    "SeamlessM4T",
    "Siglip",
    "Siglip2",
    "Splinter",
    "T5",
    "Tapas",
    "Tipsv2",
    "Udop",
    "VideoPrism",
    "Whisper",
    "XGLM",
    "XLM",
    "XLMRoberta",
    "XLNet",
];

/// The class whose rules a folder's tokenizer follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The class.
    pub class: Class,
    /// A class that transformers would use and that is not supported here.
    pub foreign: Option<String>,
}

impl Choice {
    fn of(class: Class) -> Self {
        Self { class, foreign: None }
    }

    /// The choice for the name of a class, with or without "Fast". For an unknown name, transformers uses
    /// `TokenizersBackend`.
    fn named(name: &str) -> Self {
        let name = name.strip_suffix("Fast").unwrap_or(name);
        if let Some(class) = Class::named(name) {
            return Self::of(class);
        }
        let foreign = name.strip_suffix("Tokenizer").is_some_and(|stem| FOREIGN.contains(&stem));
        Self { class: Class::Backend, foreign: foreign.then(|| name.to_owned()) }
    }

    /// The choice that AutoTokenizer makes. `byte_level`: whether `tokenizer.json` is byte-level.
    pub fn auto(files: &SideFiles, byte_level: bool) -> Self {
        let named = files.text("tokenizer_class");
        let in_model = files.model.get("tokenizer_class").and_then(Value::as_str).filter(|name| !name.is_empty());
        let kind = files.model.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let model_name = files.model.get("model_name").and_then(Value::as_str).unwrap_or_default();
        let registered = REGISTERED.iter().find(|(k, _)| *k == kind).map(|(_, class)| *class);
        let misnamed = MISNAMED.contains(&kind) || MISNAMED.contains(&model_name);
        let own_code =
            files.options.get("auto_map").is_some_and(|map| map.is_array() || map.get("AutoTokenizer").is_some());
        if let Some(name) = named.or(in_model).filter(|_| !own_code) {
            let base = name.strip_suffix("Fast").unwrap_or(name);
            // Llama 3's files name LlamaTokenizer, but are byte-level.
            if base == "LlamaTokenizer" && !misnamed && byte_level {
                return Self::of(Class::Backend);
            }
            if let Some(registered) = registered.filter(|class| class.name() != base) {
                return match registered {
                    Class::Backend => Self::of(Class::Backend),
                    own if misnamed => Self::of(own),
                    _ => Self::named(base),
                };
            }
        }
        match named.or(in_model) {
            Some(name) => Self::named(name),
            None => Self::of(registered.unwrap_or(Class::Backend)),
        }
    }
}

impl Class {
    /// The class with this name, without "Fast".
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(n, _)| *n == name).map(|(_, class)| *class)
    }

    /// Its name in transformers.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, class)| *class == self).map_or("TokenizersBackend", |(name, _)| *name)
    }

    /// Whether it spells spaces as SentencePiece does, and falls back to bytes.
    pub fn pieces(self) -> bool {
        matches!(self, Self::Llama | Self::CodeLlama | Self::Gemma)
    }

    /// Whether its vocabulary is a list of word pieces, without merges.
    pub fn word_pieces(self) -> bool {
        self == Self::Bert
    }

    /// Its default special tokens, if no file says otherwise.
    pub fn roles(self) -> Vec<(String, String)> {
        let end = "<|endoftext|>";
        let llama = [("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")];
        let list: Vec<(&str, &str)> = match self {
            Self::Backend => vec![],
            Self::Llama => llama.to_vec(),
            Self::CodeLlama => {
                let own = [
                    ("prefix_token", "▁<PRE>"),
                    ("middle_token", "▁<MID>"),
                    ("suffix_token", "▁<SUF>"),
                    ("eot_token", "▁<EOT>"),
                    ("fill_token", "<FILL_ME>"),
                ];
                [&llama[..], &own].concat()
            }
            Self::Gemma => vec![
                ("unk_token", "<unk>"),
                ("bos_token", "<bos>"),
                ("eos_token", "<eos>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
            Self::Gpt2 | Self::CodeGen => vec![("unk_token", end), ("bos_token", end), ("eos_token", end)],
            Self::GptNeoX => {
                vec![("unk_token", end), ("bos_token", end), ("eos_token", end), ("pad_token", "<|padding|>")]
            }
            Self::Qwen2 | Self::Qwen35 => vec![("unk_token", end), ("eos_token", end), ("pad_token", end)],
            Self::Bert => vec![
                ("unk_token", "[UNK]"),
                ("sep_token", "[SEP]"),
                ("pad_token", "[PAD]"),
                ("cls_token", "[CLS]"),
                ("mask_token", "[MASK]"),
            ],
            Self::Roberta => vec![
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("sep_token", "</s>"),
                ("cls_token", "<s>"),
                ("unk_token", "<unk>"),
                ("pad_token", "<pad>"),
                ("mask_token", "<mask>"),
            ],
        };
        list.into_iter().map(|(role, token)| (role.to_owned(), token.to_owned())).collect()
    }
}
