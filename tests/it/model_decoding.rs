//! What decoding steps record, write and score, against one pass over the whole text.

use residuum::{
    domain::{Generation, Hook, Positions, Scoring, Site, TokenScore},
    model::{
        Model,
        generate::{Finished, Keep, News, Sequence},
    },
};

use crate::model_support::{all_rows, capture, every_hook, goldens, greedy, load_golden, smollm2};

/// Steps until all sequences are finished; `between` runs before each step. Returns them with their news.
fn run(
    model: &Model,
    mut sequences: Vec<Sequence>,
    mut between: impl FnMut(usize, &mut [Sequence]),
) -> Vec<(Finished, Vec<News>)> {
    let mut news = vec![Vec::new(); sequences.len()];
    let mut n_steps = 0;
    while sequences.iter().any(|s| !s.is_finished()) {
        between(n_steps, &mut sequences);
        n_steps += 1;
        model.step(&mut sequences.iter_mut().collect::<Vec<_>>(), &|| false).unwrap();
        sequences.iter_mut().zip(&mut news).for_each(|(s, news)| news.extend(s.take_news()));
    }
    sequences.into_iter().map(|s| s.finish().unwrap()).zip(news).collect()
}

/// Every hook that steps can record.
fn recordable(model: &Model) -> Vec<Hook> {
    every_hook(model).into_iter().filter(|hook| !hook.site().is_attention_map()).collect()
}

/// Compares every captured row with that of one pass over the text, bit for bit.
fn check_rows(model: &Model, finished: &Finished, positions: &Positions, name: &str) {
    let kept = finished.kept.as_ref().unwrap();
    let hooks = kept.hooks().to_vec();
    let rows = positions.resolve(finished.token_ids.len()).unwrap();
    let whole = capture(model, &hooks, &[(&finished.token_ids, rows.clone())]).unwrap();
    for (i, hook) in hooks.iter().enumerate() {
        let got = kept.rows(i, &rows).unwrap_or_else(|| panic!("{name}: {hook} was not captured"));
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
        assert_eq!(got.len(), whole.item(*hook, 0).len(), "{name} {hook}");
        assert!(got.iter().zip(whole.item(*hook, 0)).all(same), "{name}: {hook} at {positions}");
    }
}

#[test]
fn rows_recorded_while_decoding_are_those_of_one_pass() {
    let names = [
        "llama/gqa_tied",
        "mistral/window",
        "gemma3_text/two_ropes",
        "gpt2/plain",
        "gpt_neox/parallel",
        "bloom/six_heads",
        "mixtral/window",
        "olmo2/post_norm",
    ];
    let prompts: [&[u32]; 4] = [&[7, 3, 3, 250], &[9], &[5; 30], &[200, 1, 17]];
    let positions =
        [Positions::All, Positions::Last, Positions::Mean, Positions::Range { start: Some(-3), end: Some(-1) }];
    let mut n_checked = 0;
    for name in names.iter().filter(|name| goldens().join(name).exists()) {
        let model = load_golden(&goldens().join(name));
        let hooks = recordable(&model);
        assert!(model.records_while_decoding(&hooks, 60), "{name}");
        // each captures other hooks: the last only logits and one more
        let of = |i: usize| match i {
            3 => hooks.iter().copied().filter(|h| [Site::Logits, Site::ResidMid].contains(&h.site())).collect(),
            1 => hooks.iter().copied().step_by(3).collect(),
            _ => hooks.clone(),
        };
        let sequences = prompts.iter().zip(&positions).enumerate().map(|(i, (prompt, positions))| {
            let keep = Keep::new(of(i).into(), positions, prompt.len() + 1);
            model.sequence(prompt.to_vec(), greedy(8 + i), i as u64).with_keep(keep)
        });
        // one that captures nothing runs beside them, and caches are dropped in between
        let mut sequences: Vec<Sequence> = sequences.collect();
        sequences.push(model.sequence(vec![4, 4], greedy(20), 9));
        let finished = run(&model, sequences, |step, sequences| {
            if step == 5 {
                sequences[0].release();
                sequences[2].release();
            }
        });
        for ((finished, _), positions) in finished.iter().zip(&positions) {
            check_rows(&model, finished, positions, name);
            n_checked += 1;
        }
        assert!(finished[4].0.kept.is_none());
    }
    assert!(n_checked >= 20, "{n_checked} sequences were compared");
}

#[test]
fn rows_of_a_long_prompt_are_recorded_in_several_steps() {
    let model = smollm2();
    let prompt: Vec<u32> = (0..1100u32).map(|i| 1000 + i * 7 % 900).collect();
    let hooks: Vec<Hook> =
        vec![Hook::block(Site::ResidPost, 3), Hook::block(Site::Z, 17), Hook::global(Site::FinalNorm)];
    let keep = Keep::new(hooks.into(), &Positions::All, prompt.len() + 1);
    let (finished, _) = run(model, vec![model.sequence(prompt, greedy(3), 0).with_keep(keep)], |_, _| {}).remove(0);
    check_rows(model, &finished, &Positions::All, "smollm2");
}

#[test]
fn steps_do_not_record_what_depends_on_the_length_of_the_text() {
    let model = load_golden(&goldens().join("llama/gqa_tied"));
    assert!(!model.records_while_decoding(&[Hook::block(Site::Pattern, 0)], 20));
    let dynamic = load_golden(&goldens().join("llama/rope_dynamic"));
    let resid = [Hook::block(Site::ResidPost, 0)];
    assert!(!dynamic.records_while_decoding(&resid, dynamic.info().n_ctx));
}

/// The log-softmax of logits in float64, computed plainly.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let exp: Vec<f64> = logits.iter().map(|l| f64::from(*l).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| (e / sum).ln()).collect()
}

fn check_score(score: &TokenScore, logits: &[f32], top: usize) {
    let reference = log_softmax(logits);
    let close = |id: u32, logprob: f32| (f64::from(logprob) - reference[id as usize]).abs() < 1e-5;
    assert!(close(score.token_id, score.logprob.unwrap()), "{score:?}");
    assert_eq!(score.top.len(), top);
    assert!(score.top.iter().all(|(id, logprob)| close(*id, *logprob)), "{score:?}");
    let least = score.top.last().map_or(f64::INFINITY, |(id, _)| reference[*id as usize]);
    let listed = |id: usize| score.top.iter().any(|(other, _)| *other as usize == id);
    assert!(reference.iter().enumerate().all(|(id, p)| *p <= least || listed(id)), "the most probable are listed");
}

#[test]
fn scores_are_the_log_softmax_of_the_logits_of_one_pass() {
    let model = load_golden(&goldens().join("llama/gqa_tied"));
    let prompt = vec![7u32, 3, 3, 250, 9];
    let scoring = Scoring { prompt: true, top: 4 };
    let sampled = Generation { temperature: 1.7, ..greedy(6) };
    let sequence = model.sequence(prompt.clone(), sampled, 3).with_scoring(scoring);
    let (finished, news) = run(&model, vec![sequence], |_, _| {}).remove(0);
    let logits = capture(&model, &[Hook::global(Site::Logits)], &[(&finished.token_ids, all_rows(11))]).unwrap();
    let logits: Vec<&[f32]> = logits.item(Hook::global(Site::Logits), 0).chunks(model.info().d_vocab).collect();
    let News::Scored(prompt_scores) = &news[0] else { panic!("{news:?}") };
    assert_eq!(prompt_scores[0], TokenScore { token_id: 7, logprob: None, top: Vec::new() });
    assert_eq!(prompt_scores.iter().map(|s| s.token_id).collect::<Vec<_>>(), prompt);
    prompt_scores[1..].iter().zip(&logits).for_each(|(score, logits)| check_score(score, logits, 4));
    let mut n_written = 0;
    for (at, one) in news[1..].iter().enumerate() {
        let News::Written { position, score, .. } = one else { continue };
        assert_eq!(*position, 5 + at);
        assert_eq!(score.token_id, finished.token_ids[*position]);
        assert_eq!(score.logprob, Some(finished.completion.logprobs[at]), "before temperature");
        check_score(score, logits[*position - 1], 4);
        n_written += 1;
    }
    assert_eq!(n_written, 6);
    // a prompt that is only scored
    let only = model.sequence(prompt, greedy(0), 0).with_scoring(scoring);
    let (finished, news) = run(&model, vec![only], |_, _| {}).remove(0);
    assert_eq!((finished.token_ids.len(), &news[0]), (5, &News::Scored(prompt_scores.clone())));
}

/// The texts of the events of one sequence.
fn texts(news: &[News]) -> Vec<&str> {
    news.iter()
        .filter_map(|one| match one {
            News::Written { text, .. } | News::Ended(_, text) => Some(text.as_str()),
            News::Scored(_) => None,
        })
        .collect()
}

#[test]
fn the_texts_of_the_events_are_the_text_of_all_tokens() {
    let model = smollm2();
    let prompts =
        ["The Eiffel Tower is in", "日本の首都は", "def f(x):\n", "😀😀", "<|im_start|>user\nHi<|im_end|>\n", " "];
    let hot = |i: usize| Generation { temperature: 3.0 * (i % 2) as f64, seed: i as u64, ..greedy(90) };
    let sequences = prompts.iter().chain(&prompts).enumerate().map(|(i, prompt)| {
        let ids = model.tokenizer().encode(prompt, None).unwrap().ids;
        model.sequence(ids, hot(i / prompts.len()), i as u64)
    });
    let mut n_empty = 0;
    for (finished, news) in run(model, sequences.collect(), |_, _| {}) {
        let whole = model.tokenizer().continuation(&finished.token_ids, finished.completion.first);
        assert_eq!(texts(&news).concat(), whole);
        assert_eq!(finished.completion.text, whole);
        n_empty += texts(&news).iter().filter(|text| text.is_empty()).count();
        let starts: Vec<usize> = news
            .iter()
            .filter_map(|one| if let News::Written { text_start, .. } = one { Some(*text_start) } else { None })
            .collect();
        assert!(starts.is_sorted() && starts[0] == 0);
    }
    assert!(n_empty > 20, "hot samples have tokens that are only part of a character");
}

#[test]
fn a_cancelled_sequence_keeps_what_was_written() {
    let model = smollm2();
    let ids = model.tokenizer().encode("The Eiffel Tower is in", None).unwrap().ids;
    let hooks = [Hook::block(Site::ResidPost, 29)];
    let sequence = |stop: &str| {
        let generation = Generation { stop: vec![stop.to_owned()], ..greedy(50) };
        model.sequence(ids.clone(), generation, 0).with_keep(Keep::new(hooks.into(), &Positions::Last, ids.len() + 1))
    };
    let mut whole = sequence("nothing like this");
    assert!(!whole.cancel(model.tokenizer()), "nothing was written yet");
    for _ in 0..4 {
        model.step(&mut [&mut whole], &|| false).unwrap();
    }
    assert!(whole.cancel(model.tokenizer()));
    assert!(!whole.is_finished(), "its last token is still to be captured");
    model.step(&mut [&mut whole], &|| false).unwrap();
    let finished = whole.finish().unwrap();
    assert_eq!(finished.token_ids.len(), ids.len() + 4);
    assert_eq!(finished.completion.finish_reason, residuum::domain::FinishReason::Cancelled);
    check_rows(model, &finished, &Positions::Last, "cancelled");
    let text = model.tokenizer().continuation(&finished.token_ids, ids.len());
    assert_eq!(finished.completion.text, text);
}
