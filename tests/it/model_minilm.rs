//! The demo encoder, all-MiniLM-L6-v2, against transformers.

use residuum::{
    domain::{Hook, Rows, Site},
    model::TextTokenizer,
};
use safetensors::SafeTensors;

use crate::model_support::{capture, goldens, ids, load_golden, minilm_path, read_tensors, relative_error};

/// Largest difference allowed at a layer, in units of its root mean square.
const TOLERANCE: f64 = 1e-4;

fn sentences() -> Vec<String> {
    let bytes = std::fs::read(goldens().join("minilm.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    serde_json::from_str(&header.metadata().as_ref().unwrap()["sentences"]).unwrap()
}

#[test]
fn sentence_embeddings_agree_with_transformers() {
    let model = load_golden(&minilm_path());
    let (info, golden) = (model.info(), read_tensors(&goldens().join("minilm.safetensors")));
    let hooks: Vec<Hook> = (0..info.n_layers).map(|l| Hook::block(Site::ResidPost, l)).collect();
    let inputs: Vec<Vec<u32>> = sentences().iter().map(|s| model.tokenizer().encode(s, None).unwrap().ids).collect();
    assert!(inputs.len() >= 7 && inputs.iter().any(|i| i.len() > 128));
    let batch: Vec<(&[u32], Rows)> =
        inputs.iter().map(|ids| (ids.as_slice(), Rows::Mean((0..ids.len() as u32).collect()))).collect();
    let got = capture(&model, &hooks, &batch).unwrap();
    let mut worst = 0f64;
    for (i, tokens) in inputs.iter().enumerate() {
        assert_eq!(*tokens, ids(&golden[&format!("{i}/ids")]), "sentence {i}");
        let means = golden[&format!("{i}/means")].chunks(info.d_model);
        for (hook, reference) in hooks.iter().zip(means) {
            worst = worst.max(relative_error(&format!("sentence {i}, {hook}"), got.item(*hook, i), reference));
        }
    }
    println!("worst relative error {worst:.2e}");
    assert!(worst <= TOLERANCE, "{worst:e}");
}

#[test]
fn its_tokens_are_those_of_transformers_with_and_without_a_fast_tokenizer() {
    let folder = minilm_path();
    let fast = TextTokenizer::from_folder(&folder, 30_522).unwrap();
    let bare = tempfile::tempdir().unwrap();
    for file in ["vocab.txt", "tokenizer_config.json"] {
        std::fs::copy(folder.join(file), bare.path().join(file)).unwrap();
    }
    let from_pieces = TextTokenizer::from_folder(bare.path(), 30_522).unwrap();
    let golden = std::fs::read(goldens().join("minilm_tokens.json")).unwrap();
    let cases: Vec<(String, Vec<u32>, Vec<u32>)> = serde_json::from_slice(&golden).unwrap();
    assert!(cases.len() >= 90);
    for (text, own_rule, bare) in &cases {
        for tokenizer in [&fast, &from_pieces] {
            let encoded = tokenizer.encode(text, None).unwrap();
            // We never double BOS; transformers puts a second one before the text's own.
            let expected = if own_rule[1] == own_rule[0] { &own_rule[1..] } else { own_rule };
            assert_eq!(encoded.ids, expected, "{text:?}");
            let without = tokenizer.encode(text, Some(false)).map(|e| e.ids).unwrap_or_default();
            assert_eq!(without, *bare, "{text:?}");
        }
    }
}

#[test]
fn the_model_is_described_as_an_encoder() {
    let model = load_golden(&minilm_path());
    let info = model.info();
    assert_eq!((info.n_layers, info.d_model, info.n_heads, info.d_head), (6, 384, 12, 32));
    assert_eq!((info.d_mlp, info.d_vocab, info.n_ctx, info.bidirectional), (1536, 30_522, 512, true));
    assert_eq!((info.architecture.as_str(), info.weights_dtype.as_str()), ("bert", "float32"));
    for absent in [Site::Logits, Site::FinalNorm, Site::LnFinalScale, Site::MlpPreLinear, Site::Ln1PostScale] {
        assert!(info.layers_with(absent).is_none(), "{}", absent.name());
    }
    assert_eq!(model.tokenizer().bos_token(), Some((101, "[CLS]")));
    assert!(model.tokenizer().adds_bos() && !model.tokenizer().has_chat_template());
}
