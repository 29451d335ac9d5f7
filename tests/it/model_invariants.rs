//! What must hold bit for bit, and the equations between the hooks of one pass.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use residuum::{
    domain::{Applied, Dtype, Edit, Edits, Hook, Op, PackLayout, Rows, Site, Tokens},
    model::{Batch, CaptureSink, ForwardError, Input, InputEdits, Model, Refusal},
};

use crate::model_support::{Collected, all_rows, capture, collect, every_hook, goldens, load_golden, read_tensors};

fn tiny(name: &str) -> Model {
    load_golden(&goldens().join(name))
}

/// Inputs of different lengths with repeated and distinct tokens.
pub fn inputs() -> Vec<Vec<u32>> {
    [3usize, 1, 17, 8, 30]
        .iter()
        .enumerate()
        .map(|(i, n)| (0..*n).map(|p| ((p * p * 7 + i * 31 + 5) % 272) as u32).collect())
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn every_row(inputs: &[Vec<u32>]) -> Vec<(&[u32], Rows)> {
    inputs.iter().map(|ids| (ids.as_slice(), all_rows(ids.len()))).collect()
}

fn assert_same(hooks: &[Hook], a: (&Collected, usize), b: (&Collected, usize), what: &str) {
    for hook in hooks {
        assert_eq!(bits(a.0.item(*hook, a.1)), bits(b.0.item(*hook, b.1)), "{what}: {hook}");
    }
}

/// Every tiny checkpoint, as `family/variant`.
pub fn checkpoints() -> Vec<String> {
    let folders = |path: &Path| -> Vec<PathBuf> {
        let found = std::fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_dir());
        found.filter(|f| f.file_name().unwrap() != "gguf").collect()
    };
    let name = |path: PathBuf| path.strip_prefix(goldens()).unwrap().to_str().unwrap().to_owned();
    let mut all: Vec<String> = folders(&goldens()).iter().flat_map(|f| folders(f)).map(name).collect();
    all.sort();
    assert!(all.len() > 60);
    all
}

/// Post-norm checkpoints, with the names and the epsilon of the two norms of a block.
const POST_NORM: &[(&str, [&str; 2], f64)] = &[
    ("bert/masked_lm", BERT_NORMS, 1e-12),
    ("distilbert/masked_lm", ["transformer.layer.{l}.sa_layer_norm", "transformer.layer.{l}.output_layer_norm"], 1e-12),
    ("opt/post_norm", ["decoder.layers.{l}.self_attn_layer_norm", "decoder.layers.{l}.final_layer_norm"], 1e-5),
    ("roberta/masked_lm", BERT_NORMS, 1e-12),
];

const BERT_NORMS: [&str; 2] = ["encoder.layer.{l}.attention.output.LayerNorm", "encoder.layer.{l}.output.LayerNorm"];

fn is_post_norm(name: &str) -> bool {
    ["bert/", "distilbert/", "roberta/", "opt/post_norm"].iter().any(|start| name.starts_with(start))
}

#[test]
fn an_input_has_the_same_bits_alone_and_in_any_batch() {
    for name in &checkpoints() {
        let model = tiny(name);
        let hooks = every_hook(&model);
        let inputs = inputs();
        let together = capture(&model, &hooks, &every_row(&inputs)).unwrap();
        let reversed: Vec<Vec<u32>> = inputs.iter().rev().cloned().collect();
        let permuted = capture(&model, &hooks, &every_row(&reversed)).unwrap();
        for (i, ids) in inputs.iter().enumerate() {
            let alone = capture(&model, &hooks, &[(ids, all_rows(ids.len()))]).unwrap();
            assert_same(&hooks, (&alone, 0), (&together, i), name);
            assert_same(&hooks, (&alone, 0), (&permuted, inputs.len() - 1 - i), name);
        }
    }
}

#[test]
fn an_input_has_the_same_bits_whatever_else_is_captured() {
    for name in &checkpoints() {
        let model = tiny(name);
        let hooks = every_hook(&model);
        let inputs = inputs();
        let full = capture(&model, &hooks, &every_row(&inputs)).unwrap();
        for hook in &hooks {
            let only = capture(&model, &[*hook], &every_row(&inputs)).unwrap();
            for i in 0..inputs.len() {
                assert_same(&[*hook], (&only, i), (&full, i), name);
            }
        }
    }
}

#[test]
fn chosen_rows_are_the_rows_of_the_full_tensor() {
    for name in &checkpoints() {
        let model = tiny(name);
        let hooks = every_hook(&model);
        let inputs = inputs();
        let full = capture(&model, &hooks, &every_row(&inputs)).unwrap();
        let chosen = |n: usize| vec![n as u32 - 1, 0, (n / 2) as u32, 0];
        let picks: Vec<(&[u32], Rows)> =
            inputs.iter().map(|ids| (ids.as_slice(), Rows::List(chosen(ids.len())))).collect();
        // A hook captured alone stops the pass as early as possible; all hooks together share one pass.
        let together = capture(&model, &hooks, &picks).unwrap();
        for hook in &hooks {
            let only = capture(&model, &[*hook], &picks).unwrap();
            for (i, ids) in inputs.iter().enumerate() {
                let expected = rows_of(&model, *hook, full.item(*hook, i), ids.len(), &chosen(ids.len()));
                assert_eq!(bits(together.item(*hook, i)), bits(&expected), "{name}: {hook}");
                assert_eq!(bits(only.item(*hook, i)), bits(&expected), "{name}: {hook} alone");
            }
        }
    }
}

/// Rows of an input's tensor. The rows of an attention map `[head, q, k]` are its queries.
fn rows_of(model: &Model, hook: Hook, full: &[f32], n: usize, rows: &[u32]) -> Vec<f32> {
    let map = hook.site().is_attention_map();
    let width = if map { n } else { model.info().row_shape(hook.site()).iter().product() };
    let blocks = full.chunks(n * width);
    blocks
        .flat_map(|b| rows.iter().flat_map(move |r| &b[*r as usize * width..(*r as usize + 1) * width]))
        .copied()
        .collect()
}

#[test]
fn a_mean_is_the_mean_of_its_rows() {
    let model = tiny("llama/gqa_tied");
    let hooks = every_hook(&model);
    // Longer than the blocks in which means are computed; with a short input beside it.
    let inputs = vec![(0..64u32).map(|p| p * 3 % 272).collect::<Vec<_>>(), vec![1, 2, 3]];
    let full = capture(&model, &hooks, &every_row(&inputs)).unwrap();
    let long: Vec<u32> = (1..64).chain([5, 0, 5]).collect();
    for rows in [vec![(0..64).collect(), (0..3).collect()], vec![long, vec![2]], vec![vec![40, 3], vec![1, 2]]] {
        let with: Vec<(&[u32], Rows)> =
            inputs.iter().zip(&rows).map(|(ids, rows)| (ids.as_slice(), Rows::Mean(rows.clone()))).collect();
        let mean = capture(&model, &hooks, &with).unwrap();
        for hook in &hooks {
            for (i, rows) in rows.iter().enumerate() {
                let expected = mean_over(&model, *hook, full.item(*hook, i), inputs[i].len(), rows);
                assert_eq!(bits(mean.item(*hook, i)), bits(&expected), "{hook} over {rows:?}");
            }
        }
    }
}

/// The mean of some rows of a full tensor, accumulated in float64 in the order of the rows.
fn mean_over(model: &Model, hook: Hook, full: &[f32], n: usize, rows: &[u32]) -> Vec<f32> {
    let width = if hook.site().is_attention_map() { n } else { model.info().row_shape(hook.site()).iter().product() };
    rows_of(model, hook, full, n, rows)
        .chunks(rows.len() * width)
        .flat_map(|block| {
            (0..width).map(move |c| {
                let sum: f64 = block.iter().skip(c).step_by(width).map(|v| f64::from(*v)).sum();
                (sum / rows.len() as f64) as f32
            })
        })
        .collect()
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let model = tiny("llama/gqa_tied");
    let hooks = every_hook(&model);
    let inputs = inputs();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| capture(&model, &hooks, &every_row(&inputs)).unwrap())
    };
    let (one, three) = (run(1), run(3));
    for i in 0..inputs.len() {
        assert_same(&hooks, (&one, i), (&three, i), "threads");
    }
}

fn close(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    let rms = (b.iter().map(|v| v * v).sum::<f32>() / b.len() as f32).sqrt();
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() <= 1e-5 * rms.max(1e-3), "{what}: {x} and {y}");
    }
}

fn sum(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(x, y)| x + y).collect()
}

#[test]
fn the_hooks_of_a_block_add_up() {
    for name in &checkpoints() {
        let model = tiny(name);
        let (info, inputs) = (model.info().clone(), inputs());
        let got = capture(&model, &every_hook(&model), &every_row(&inputs)).unwrap();
        for (i, ids) in inputs.iter().enumerate() {
            for l in 0..info.n_layers {
                let at = |site| got.item(Hook::block(site, l), i);
                if info.layers_with(Site::ResidMid).is_some() {
                    close("resid_mid", &sum(at(Site::ResidPre), at(Site::AttnOut)), at(Site::ResidMid));
                    if !is_post_norm(name) {
                        assert_eq!(bits(&sum(at(Site::ResidMid), at(Site::MlpOut))), bits(at(Site::ResidPost)));
                    }
                }
                // The sum of all heads; the rest is the bias of the output projection, the same at every position.
                let heads = at(Site::AttnResult).chunks(info.n_heads * info.d_model);
                let rest: Vec<Vec<f32>> = heads
                    .zip(at(Site::AttnRawOut).chunks(info.d_model))
                    .map(|(heads, out)| {
                        let total = heads.chunks(info.d_model).fold(vec![0.0; info.d_model], |t, h| sum(&t, h));
                        out.iter().zip(&total).map(|(o, t)| o - t).collect()
                    })
                    .collect();
                for r in &rest {
                    r.iter().zip(&rest[0]).for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{name}: {a} and {b}"));
                }
                for row in at(Site::Pattern).chunks(ids.len()) {
                    assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                }
                if l > 0 {
                    let before = got.item(Hook::block(Site::ResidPost, l - 1), i);
                    assert_eq!(bits(before), bits(at(Site::ResidPre)));
                }
            }
        }
    }
}

/// A layer norm in float64, computed from the hooks and the stored gain and bias.
fn layer_norm(x: &[f32], eps: f64, weights: &BTreeMap<String, Vec<f64>>, name: &str) -> Vec<f32> {
    let stored = |part: &str| {
        let full = format!("{name}.{part}");
        weights.iter().find(|(key, _)| key.ends_with(&full)).unwrap_or_else(|| panic!("{full}")).1
    };
    let (gain, bias) = (stored("weight"), stored("bias"));
    let rows = x.chunks(gain.len()).map(|row| {
        let row: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let scale = (row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64 + eps).sqrt();
        row.iter().zip(gain).zip(bias).map(|((v, g), b)| ((v - mean) / scale * g + b) as f32).collect::<Vec<_>>()
    });
    rows.flatten().collect()
}

#[test]
fn post_norm_blocks_normalise_the_sums() {
    for (name, [ln1, ln2], eps) in POST_NORM {
        let model = tiny(name);
        let weights = read_tensors(&goldens().join(name).join("model.safetensors"));
        let inputs = inputs();
        let got = capture(&model, &every_hook(&model), &every_row(&inputs)).unwrap();
        for i in 0..inputs.len() {
            for l in 0..model.info().n_layers {
                let at = |site| got.item(Hook::block(site, l), i);
                let norm = |x: &[f32], norm: &str| layer_norm(x, *eps, &weights, &norm.replace("{l}", &l.to_string()));
                let after_attention = norm(&sum(at(Site::ResidPre), at(Site::AttnOut)), ln1);
                close("mlp.hook_in", at(Site::MlpIn), &after_attention);
                close("resid_post", at(Site::ResidPost), &norm(&sum(&after_attention, at(Site::MlpOut)), ln2));
                assert_eq!(bits(at(Site::AttnIn)), bits(at(Site::ResidPre)), "attention receives the residual stream");
                assert_eq!(bits(at(Site::AttnRawOut)), bits(at(Site::AttnOut)));
            }
        }
    }
}

#[test]
fn a_cancelled_pass_stops_before_the_next_layer() {
    let model = tiny("llama/gqa_tied");
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let stop_at_third = || asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 2;
    let rows = all_rows(2);
    let hooks: std::sync::Arc<[Hook]> = (0..3).map(|l| Hook::block(Site::ResidPost, l)).collect();
    let shapes = vec![vec![32]; 3];
    let layout = PackLayout::new(hooks, shapes, Dtype::Float32, &[(2, &rows)]);
    struct Count(usize);
    impl CaptureSink for Count {
        fn write(&mut self, _: usize, _: Range<usize>, _: &mut Vec<f32>) -> Result<(), Refusal> {
            self.0 += 1;
            Ok(())
        }
    }
    let inputs = [Input { token_ids: &[1, 2], rows: &rows, edits: None }];
    let batch = Batch { inputs: &inputs, layout: &layout };
    let mut sink = Count(0);
    let result = model.forward(&batch, &mut sink, &stop_at_third);
    assert!(matches!(result, Err(ForwardError::Cancelled)));
    assert_eq!(sink.0, 2, "two layers were handed to the sink");
}

#[test]
fn a_batch_that_does_not_fit_is_refused() {
    let model = tiny("llama/gqa_tied");
    let hook = Hook::block(Site::ResidPost, 0);
    let run = |hooks: &[Hook], ids: &[u32], rows: Rows| capture(&model, hooks, &[(ids, rows)]).map(|_| ());
    let failed = |r: Result<(), ForwardError>, says: &str| match r {
        Err(ForwardError::Failed(reason)) => assert!(reason.contains(says), "{reason}"),
        other => panic!("{other:?}"),
    };
    failed(run(&[hook], &[272], all_rows(1)), "the vocabulary ends at 271");
    failed(run(&[hook], &[], all_rows(0)), "0 tokens");
    failed(run(&[hook], &[1; 65], all_rows(65)), "1 to 64");
    failed(run(&[hook], &[1], Rows::List(vec![1])), "no position 1");
    failed(run(&[Hook::block(Site::ResidPost, 3)], &[1], all_rows(1)), "no hook blocks.3");
}

/// Inputs that are divided into three sub-batches of five, with the rows to keep.
fn fifteen_inputs() -> Vec<(Vec<u32>, Rows)> {
    (0..15u32)
        .map(|i| {
            let n = 26 + i % 3;
            let rows = match i % 4 {
                0 => Rows::List((0..n).collect()),
                1 => Rows::List(vec![3]),
                _ => Rows::Mean((0..n).collect()),
            };
            ((0..n).map(|t| (t * 7 + i) % 270).collect(), rows)
        })
        .collect()
}

/// As many threads as [`fifteen_inputs`] has sub-batches, whatever the machine has.
fn three_threads() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap()
}

#[test]
fn sub_batches_give_the_numbers_of_the_whole_batch() {
    let pool = three_threads();
    let part = |site, n| Edit {
        hook: Hook::block(site, 0),
        intervention: 0,
        parts: vec![std::iter::once(0..n).collect()],
        op: Op::Scale { factor: 1.5 },
    };
    let edits = Edits::new(vec![part(Site::Pattern, 1), part(Site::ResidPost, 8)], Vec::new()).unwrap();
    for name in &checkpoints() {
        let model = tiny(name);
        let hooks = every_hook(&model);
        let fifteen = fifteen_inputs();
        let applied: Vec<[Applied; 1]> = (0..15)
            .map(|i| {
                [Applied { tokens: Tokens::From(i % 4), keys: Tokens::All, ..Applied::told(serde_json::Map::new()) }]
            })
            .collect();
        let inputs: Vec<Input<'_>> = fifteen
            .iter()
            .zip(&applied)
            .enumerate()
            .map(|(i, ((ids, rows), applied))| {
                let edits = (i % 3 == 0).then_some(InputEdits { edits: &edits, applied });
                Input { token_ids: ids, rows, edits }
            })
            .collect();
        let whole = collect(&model, &hooks, &inputs, false).unwrap();
        let divided = pool.install(|| collect(&model, &hooks, &inputs, true)).unwrap();
        assert_eq!((whole.sub_batches(), divided.sub_batches()), (vec![], vec![0, 5, 10]), "{name}");
        for i in 0..15 {
            assert_same(&hooks, (&whole, i), (&divided, i), name);
        }
        let unchanged: Vec<Input<'_>> = inputs.iter().map(|input| Input { edits: None, ..*input }).collect();
        let unchanged = pool.install(|| collect(&model, &hooks, &unchanged, true)).unwrap();
        let changed = |i| hooks.iter().any(|hook| bits(whole.item(*hook, i)) != bits(unchanged.item(*hook, i)));
        assert!((0..15).all(|i| changed(i) == (i % 3 == 0)), "{name}: every third input is changed");
    }
}

/// A sink of which one sub-batch refuses its values.
struct Refusing {
    /// The sub-batch that refuses.
    sub_batch: usize,
    refuses: bool,
}

impl CaptureSink for Refusing {
    fn write(&mut self, _: usize, _: Range<usize>, _: &mut Vec<f32>) -> Result<(), Refusal> {
        if self.refuses { Err("refused".into()) } else { Ok(()) }
    }

    fn split(&mut self, sub_batches: &[Range<usize>]) -> Option<Vec<Box<dyn CaptureSink + '_>>> {
        assert_eq!(sub_batches, [0..5, 5..10, 10..15]);
        let part = |n| Box::new(Self { refuses: n == self.sub_batch, ..*self }) as _;
        Some((0..sub_batches.len()).map(part).collect())
    }
}

#[test]
fn a_sub_batch_that_fails_ends_the_others_and_returns_its_error() {
    let model = tiny("llama/gqa_tied");
    let fifteen = fifteen_inputs();
    let inputs: Vec<Input<'_>> =
        fifteen.iter().map(|(ids, rows)| Input { token_ids: ids, rows, edits: None }).collect();
    let hooks: Vec<Hook> = (0..3).map(|layer| Hook::block(Site::ResidPost, layer)).collect();
    let items: Vec<(usize, &Rows)> = fifteen.iter().map(|(ids, rows)| (ids.len(), rows)).collect();
    let layout = PackLayout::new(hooks.into(), vec![vec![32]; 3], Dtype::Float32, &items);
    let batch = Batch { inputs: &inputs, layout: &layout };
    let pool = three_threads();
    let run = |sub_batch, cancelled: bool| {
        let mut sink = Refusing { sub_batch, refuses: false };
        pool.install(|| model.forward(&batch, &mut sink, &|| cancelled))
    };
    for sub_batch in 0..3 {
        assert!(matches!(run(sub_batch, false), Err(ForwardError::Sink(e)) if e.to_string() == "refused"));
    }
    assert!(matches!(run(3, true), Err(ForwardError::Cancelled)));
    assert!(run(3, false).is_ok());
}
