//! The demo model against an independent forward pass: candle-transformers' quantised llama, with its own RoPE,
//! products and reader of the file.

use candle_core::{Device, Tensor, quantized::gguf_file};
use candle_transformers::models::quantized_llama::ModelWeights;
use residuum::domain::{Hook, Rows, Site};

use crate::model_support::{capture, smollm2, smollm2_path};

/// candle-transformers rounds activations to eight bits before each product, so only the direction of the logits
/// agrees.
const COSINE: f64 = 0.99;

#[test]
fn candle_transformers_agrees_on_the_next_token() {
    let path = smollm2_path();
    let mut file = std::fs::File::open(&path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut theirs = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let ours = smollm2();
    for text in ["The Eiffel Tower is in the city of", "def add(a, b):\n    return a +", "One, two, three,"] {
        let ids = ours.tokenizer().encode(text, None).unwrap().ids;
        let input = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let expected: Vec<f32> = theirs.forward(&input, 0).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let last = Rows::List(vec![u32::try_from(ids.len()).unwrap() - 1]);
        let got = capture(ours, &[Hook::global(Site::Logits)], &[(&ids, last)]).unwrap();
        let logits = got.item(Hook::global(Site::Logits), 0);
        let top = |v: &[f32]| v.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
        assert_eq!(top(logits), top(&expected), "{text:?}");
        let cosine = residuum::analysis::Metric::Cosine.of(logits, &expected).unwrap();
        assert!(cosine > COSINE, "{text:?}: cosine {cosine}");
    }
}
