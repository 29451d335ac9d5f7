//! Continuing inputs: against transformers, and against one pass over the whole text.

use residuum::{
    domain::{FinishReason, Generation, Hook, Site, TextCompletion},
    model::{ForwardError, Model, generate::Sequence},
};
use serde_json::Value;

use crate::model_support::{all_rows, capture, goldens, greedy, load_golden, smollm2};

/// Continues several inputs together until all are finished.
fn run(model: &Model, inputs: &[(&[u32], Generation)]) -> Vec<(Vec<u32>, TextCompletion)> {
    let sequence = |(i, (ids, generation)): (usize, &(&[u32], Generation))| {
        model.sequence(ids.to_vec(), generation.clone(), i as u64)
    };
    let mut sequences: Vec<Sequence> = inputs.iter().enumerate().map(sequence).collect();
    while sequences.iter().any(|s| !s.is_finished()) {
        model.step(&mut sequences.iter_mut().collect::<Vec<_>>(), &|| false).unwrap();
    }
    sequences.into_iter().map(finished).collect()
}

fn finished(sequence: Sequence) -> (Vec<u32>, TextCompletion) {
    let finished = sequence.finish().unwrap();
    (finished.token_ids, finished.completion)
}

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(goldens().join("greedy.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

#[test]
fn the_most_probable_tokens_are_those_of_transformers() {
    let golden = golden();
    let checkpoints = golden["tiny"].as_object().unwrap();
    assert!(checkpoints.len() > 20);
    for (name, wholes) in checkpoints {
        let model = load_golden(&goldens().join(name));
        let wholes: Vec<Vec<u32>> = wholes.as_array().unwrap().iter().map(ids).collect();
        let prompts: Vec<(&[u32], Generation)> =
            wholes.iter().zip([1, 5, 13]).map(|(whole, n)| (&whole[..n], greedy(12))).collect();
        for ((got, completion), whole) in run(&model, &prompts).into_iter().zip(&wholes) {
            assert_eq!(got, *whole, "{name}");
            let length = completion.finish_reason == FinishReason::Length;
            assert_eq!(length, whole.len() == completion.first + 12, "{name}");
        }
    }
}

#[test]
fn the_demo_model_continues_as_in_transformers() {
    for case in golden()["smollm2"].as_array().unwrap() {
        let (prompt, whole) = (ids(&case["ids"]), ids(&case["whole"]));
        let (got, completion) = run(smollm2(), &[(&prompt, greedy(24))]).remove(0);
        assert_eq!(got, whole, "{}", case["text"]);
        assert_eq!(completion.text, case["text"].as_str().unwrap());
        assert_eq!(completion.first, prompt.len());
    }
}

/// Logits of every position in one pass.
fn logits(model: &Model, ids: &[u32]) -> Vec<Vec<f32>> {
    let hook = Hook::global(Site::Logits);
    let got = capture(model, &[hook], &[(ids, all_rows(ids.len()))]).unwrap();
    got.item(hook, 0).chunks(model.info().d_vocab).map(<[f32]>::to_vec).collect()
}

#[test]
fn every_choice_is_that_of_one_pass_over_the_whole_text() {
    // Attention windows, softcaps, learned positions, ALiBi and rotary tables all depend on the position of a step.
    let names = ["llama/gqa_tied", "mistral/window", "gemma3_text/two_ropes", "gpt2/plain", "gpt_neox/parallel"];
    for name in names {
        let model = load_golden(&goldens().join(name));
        let (whole, completion) = run(&model, &[(&[7, 3, 3, 250], greedy(40))]).remove(0);
        for (before, next) in logits(&model, &whole).iter().zip(&whole[1..]).skip(completion.first - 1) {
            let best = before.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(before[*next as usize].to_bits(), best.to_bits(), "{name}");
        }
    }
}

#[test]
fn rotary_tables_that_depend_on_the_length_follow_it() {
    for name in ["phi3/fused", "llama/rope_longrope", "llama/rope_dynamic"] {
        let model = load_golden(&goldens().join(name));
        let (whole, _) = run(&model, &[(&[7, 3, 3, 250], greedy(16))]).remove(0);
        for n in 4..whole.len() {
            let last = logits(&model, &whole[..n]).pop().unwrap();
            let best = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(last[whole[n] as usize].to_bits(), best.to_bits(), "{name}, {n} tokens");
        }
    }
}

#[test]
fn samples_are_the_same_alone_and_in_a_batch() {
    let model = load_golden(&goldens().join("qwen3/qk_norm"));
    let sampled = |seed| Generation { temperature: 1.5, top_k: Some(50), top_p: Some(0.95), seed, ..greedy(20) };
    let prompts: [&[u32]; 4] = [&[1], &[9, 8, 7], &[5; 30], &[200]];
    let batch: Vec<(&[u32], Generation)> = prompts.iter().map(|p| (*p, sampled(4))).collect();
    let together = run(&model, &batch);
    for (i, (prompt, generation)) in batch.iter().enumerate() {
        let mut alone = model.sequence(prompt.to_vec(), generation.clone(), i as u64);
        while !alone.is_finished() {
            model.step(&mut [&mut alone], &|| false).unwrap();
        }
        assert_eq!(finished(alone), together[i]);
    }
    let other = run(&model, &[(prompts[0], sampled(5))]);
    assert_ne!(other[0].0, together[0].0, "another seed");
    // The same prompt twice in a run: each samples separately.
    let twice = run(&model, &[(prompts[0], sampled(4)), (prompts[0], sampled(4))]);
    assert_eq!(twice[0], together[0]);
    assert_ne!(twice[0].0, twice[1].0);
}

#[test]
fn a_stop_string_ends_the_text_before_it_and_its_tokens_are_kept() {
    let model = smollm2();
    let case = &golden()["smollm2"][0];
    let (prompt, whole) = (ids(&case["ids"]), ids(&case["whole"]));
    let stopped = Generation { stop: vec!["nowhere".into(), "Tower".into(), "The Eiffel".into()], ..greedy(24) };
    let (got, completion) = run(model, &[(&prompt, stopped)]).remove(0);
    assert_eq!((completion.finish_reason, completion.text.as_str()), (FinishReason::Stop, " Paris.\n\n"));
    assert_eq!(got, whole[..got.len()]);
    assert!(got.len() < whole.len());
    assert!(model.tokenizer().continuation(&got, prompt.len()).ends_with("The Eiffel"));
}

#[test]
fn a_long_prompt_in_several_steps_gives_the_same_continuation() {
    let model = smollm2();
    let prompt: Vec<u32> = (0..1100u32).map(|i| 1000 + i * 7 % 900).collect();
    let (whole, completion) = run(model, &[(&prompt, greedy(3)), (&prompt[..5], greedy(3))]).remove(0);
    assert_eq!((whole.len(), completion.first), (1103, 1100));
    for (before, next) in logits_of_the_last(model, &whole[..1102], 3).iter().zip(&whole[1100..]) {
        let best = before.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(before[*next as usize].to_bits(), best.to_bits());
    }
}

fn logits_of_the_last(model: &Model, ids: &[u32], n: usize) -> Vec<Vec<f32>> {
    let hook = Hook::global(Site::Logits);
    let rows = residuum::domain::Rows::List((ids.len() - n..ids.len()).map(|r| r as u32).collect());
    let got = capture(model, &[hook], &[(ids, rows)]).unwrap();
    got.item(hook, 0).chunks(model.info().d_vocab).map(<[f32]>::to_vec).collect()
}

#[test]
fn an_interrupted_step_can_be_repeated() {
    let model = load_golden(&goldens().join("llama/gqa_tied"));
    let mut sequence = model.sequence(vec![7, 3, 3, 250], greedy(6), 0);
    let mut asked = 0;
    while !sequence.is_finished() {
        // The first try of every step fails after a layer that has already added to the KV cache.
        asked += 1;
        let layers = std::sync::atomic::AtomicUsize::new(0);
        let cancel = || asked % 2 == 1 && layers.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 2;
        match model.step(&mut [&mut sequence], &cancel) {
            Ok(()) => assert_eq!(asked % 2, 0),
            Err(e) => assert!(matches!(e, ForwardError::Cancelled) && asked % 2 == 1),
        }
    }
    assert_eq!(finished(sequence), run(&model, &[(&[7, 3, 3, 250], greedy(6))]).remove(0));
}

#[test]
fn a_model_without_a_head_cannot_continue() {
    assert!(load_golden(&goldens().join("llama/base_model")).check_generates().is_err());
    assert!(load_golden(&goldens().join("llama/gqa_tied")).check_generates().is_ok());
}
