//! The demo model against transformers, which reads the same GGUF file.

use std::collections::HashMap;

use residuum::{
    domain::{Code, Hook, Rows, Site},
    model::ChatEnd,
};
use serde_json::Value;

use crate::model_support::{capture, goldens, ids, read_tensors, relative_error, smollm2};

/// Largest difference allowed at a layer, in units of that layer's root mean square.
const TOLERANCE: f64 = 1e-4;

/// The same for a position after the first, in units of its own root mean square. At the first position the model
/// reduces one dimension from 700 to 50, and float32 keeps some 1e-4 of the others.
const ROW_TOLERANCE: f64 = 3e-5;

fn metadata() -> HashMap<String, Value> {
    let bytes = std::fs::read(goldens().join("smollm2.safetensors")).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let texts = header.metadata().as_ref().unwrap();
    texts.iter().map(|(k, v)| (k.clone(), serde_json::from_str(v).unwrap())).collect()
}

fn token_goldens() -> Value {
    serde_json::from_slice(&std::fs::read(goldens().join("smollm2_tokens.json")).unwrap()).unwrap()
}

#[test]
fn every_layer_and_the_top_tokens_agree_with_transformers() {
    let model = smollm2();
    let (info, golden) = (model.info(), read_tensors(&goldens().join("smollm2.safetensors")));
    let n_prompts = metadata()["prompts"].as_array().unwrap().len();
    assert!(n_prompts >= 6);
    let (mut worst, mut worst_row) = (0f64, 0f64);
    for prompt in 0..n_prompts {
        let of = |name: &str| golden[&format!("{prompt}/{name}")].as_slice();
        let (tokens, positions) = (ids(of("ids")), ids(of("positions")));
        let mut hooks: Vec<Hook> = (0..info.n_layers).map(|l| Hook::block(Site::ResidPost, l)).collect();
        hooks.push(Hook::global(Site::Logits));
        let got = capture(model, &hooks, &[(&tokens, Rows::List(positions.clone()))]).unwrap();
        let per_layer = positions.len() * info.d_model;
        for (l, hook) in hooks[..info.n_layers].iter().enumerate() {
            let reference = &of("resid_post")[l * per_layer..(l + 1) * per_layer];
            let values = got.item(*hook, 0);
            let name = format!("prompt {prompt}, layer {l}");
            worst = worst.max(relative_error(&name, values, reference));
            for (row, _) in positions.iter().enumerate().filter(|(_, position)| **position > 0) {
                let at = row * info.d_model..(row + 1) * info.d_model;
                worst_row = worst_row.max(relative_error(&name, &values[at.clone()], &reference[at]));
            }
        }
        let logits = &got.item(Hook::global(Site::Logits), 0)[(positions.len() - 1) * info.d_vocab..];
        let mut order: Vec<u32> = (0..u32::try_from(info.d_vocab).unwrap()).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        assert_eq!(order[..5], ids(of("top_ids")), "prompt {prompt}");
        for (id, expected) in order.iter().zip(of("top_logits")) {
            assert!((f64::from(logits[*id as usize]) - expected).abs() < 1e-3, "prompt {prompt}, token {id}");
        }
    }
    println!("worst relative error {worst:.2e}, of a position behind the first {worst_row:.2e}");
    assert!(worst <= TOLERANCE && worst_row <= ROW_TOLERANCE, "{worst:e}, {worst_row:e}");
}

#[test]
fn logits_written_in_pieces_have_the_same_bits_as_in_one() {
    let model = smollm2();
    let (hook, width) = (Hook::global(Site::Logits), model.info().d_vocab);
    let tokens: Vec<u32> = (0..180).map(|i| 300 + i * 37).collect();
    let rows = |range: std::ops::Range<u32>| Rows::List(range.collect());
    // 180 rows over this vocabulary are more values than are handed over at once, 60 are fewer; with an input before
    // and one after.
    let few: [(&[u32], Rows); 3] = [(&tokens[..2], rows(0..2)), (&tokens, rows(100..160)), (&tokens[..3], rows(2..3))];
    let whole = capture(model, &[hook], &few.clone()).unwrap();
    let [first, _, last] = few;
    let pieces = capture(model, &[hook], &[first, (&tokens, rows(0..180)), last]).unwrap();
    assert!(pieces.item(hook, 1)[100 * width..160 * width] == *whole.item(hook, 1));
    assert!(pieces.item(hook, 0) == whole.item(hook, 0) && pieces.item(hook, 2) == whole.item(hook, 2));
}

#[test]
fn the_top_token_after_the_eiffel_tower_is_paris() {
    let model = smollm2();
    let input = model.tokenizer().encode("The Eiffel Tower is in the city of", None).unwrap();
    let last = u32::try_from(input.ids.len() - 1).unwrap();
    let logits = Hook::global(Site::Logits);
    let got = capture(model, &[logits], &[(&input.ids, Rows::List(vec![last]))]).unwrap();
    let values = got.item(logits, 0);
    let top = (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap();
    assert_eq!(model.tokenizer().token_strings(&[u32::try_from(top).unwrap()]), [" Paris"]);
}

#[test]
fn thousands_of_strings_have_the_tokens_of_transformers() {
    let tokenizer = smollm2().tokenizer();
    let golden = token_goldens();
    let strings = golden["strings"].as_array().unwrap();
    assert!(strings.len() >= 3000);
    for case in strings {
        let text = case[0].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case[1].clone()).unwrap();
        match tokenizer.encode(text, None) {
            Ok(encoded) => {
                assert_eq!(encoded.ids, expected, "{text:?}");
                assert_eq!(encoded.tokens.len(), expected.len());
                if encoded.tokens.iter().all(|t| !t.contains(char::REPLACEMENT_CHARACTER)) {
                    assert_eq!(encoded.tokens.concat(), text, "tokens spell the text");
                }
            }
            Err(problem) => assert!(expected.is_empty() && problem.code == Code::EmptyInput, "{text:?}: {problem}"),
        }
    }
}

#[test]
fn a_chat_is_rendered_as_transformers_renders_it() {
    let tokenizer = smollm2().tokenizer();
    let golden = token_goldens();
    let messages = golden["chat"]["messages"].as_array().unwrap();
    let rendered = tokenizer.render_chat(messages, ChatEnd::Prompt, &serde_json::Map::new(), None).unwrap();
    assert_eq!(rendered, golden["chat"]["rendered"].as_str().unwrap());
    let encoded = tokenizer.encode_chat(&rendered, None).unwrap();
    let chat_prompt = metadata()["prompts"].as_array().unwrap().len() - 1;
    let expected = &read_tensors(&goldens().join("smollm2.safetensors"))[&format!("{chat_prompt}/ids")];
    assert_eq!(encoded.ids, ids(expected));
    assert!(encoded.special[0] && encoded.tokens[0] == "<|im_start|>");
}

#[test]
fn the_model_is_described_by_its_file() {
    let info = smollm2().info();
    assert_eq!((info.n_layers, info.d_model, info.n_heads, info.n_kv_heads, info.d_head), (30, 576, 9, 3, 64));
    assert_eq!((info.d_mlp, info.d_vocab, info.n_ctx), (1536, 49_152, 8192));
    assert_eq!((info.architecture.as_str(), info.weights_dtype.as_str()), ("llama", "Q4_1+Q8_0+float32"));
    assert_eq!(info.n_params, 134_515_008);
    let tokenizer = smollm2().tokenizer();
    assert_eq!(tokenizer.bos_token(), Some((1, "<|im_start|>")));
    assert!(!tokenizer.adds_bos() && tokenizer.has_chat_template());
    assert_eq!(tokenizer.vocab_size(), 49_152);
}

#[test]
fn tokens_have_offsets_and_their_text() {
    let tokenizer = smollm2().tokenizer();
    let encoded = tokenizer.encode("é the 🙂", Some(true)).unwrap();
    assert_eq!(encoded.tokens[0], "<|im_start|>");
    assert!(encoded.bos.present && encoded.bos.added);
    assert_eq!(encoded.tokens[1..3], ["é", " the"]);
    let offsets = encoded.offsets.unwrap();
    assert_eq!(offsets[..3], [None, Some((0, 1)), Some((1, 5))]);
    assert_eq!(offsets.last().unwrap().unwrap().1, 7, "characters, not bytes");
}
