//! Measures forward passes on a device, without HTTP and without a disk: a pass that captures nothing, the last token
//! of every layer, every token of every layer.
//!
//! `device MODEL [DEVICE [COMPUTE_DTYPE [TOKENS...]]]` loads a checkpoint and prints medians in milliseconds, as JSON.
//! A value counts as captured once it is in the server's memory.

use std::{env, error::Error, ops::Range, time::Instant};

use residuum::{
    domain::{Dtype, Hook, PackLayout, Rows, Site},
    model::{Batch, CaptureSink, Input, Lent, LoadOptions, Model},
};
use serde_json::{Map, Value, json};
use tikv_jemallocator::Jemalloc;

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Measured passes of each kind, after one that is not measured.
const ROUNDS: usize = 15;

type Failure = Box<dyn Error + Send + Sync>;

/// A sink that counts values and reuses the buffers.
#[derive(Default)]
struct Counted(usize);

impl CaptureSink for Counted {
    fn write(&mut self, _hook: usize, _items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Failure> {
        self.0 += values.len();
        Ok(())
    }

    fn take(&mut self, _hook: usize, _items: Range<usize>, values: Lent) -> Result<(), Failure> {
        self.0 += (*values).as_ref().len();
        Ok(())
    }
}

/// What is captured: hooks, and whether at every token.
struct Kind {
    name: &'static str,
    hooks: Vec<Hook>,
    every_token: bool,
}

fn main() -> Result<(), Failure> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Some(path) = arguments.first().filter(|path| !path.starts_with('-')) else {
        return Err("usage: device MODEL [DEVICE [COMPUTE_DTYPE [TOKENS...]]]".into());
    };
    let options = LoadOptions {
        placements: arguments.get(1).map_or("cpu", String::as_str).parse()?,
        compute_dtype: arguments.get(2).map(|dtype| dtype.parse()).transpose()?,
        ..LoadOptions::default()
    };
    let lengths: Vec<usize> = arguments.iter().skip(3).map(|n| n.parse()).collect::<Result<_, _>>()?;
    let lengths = if lengths.is_empty() { vec![512] } else { lengths };
    let started = Instant::now();
    let model = Model::load("model", path, &options)?;
    let loaded = started.elapsed().as_secs_f64();
    let layers = || (0..model.info().n_layers).map(|l| Hook::block(Site::ResidPost, l));
    let kinds = [
        Kind { name: "plain", hooks: layers().next_back().into_iter().collect(), every_token: false },
        Kind { name: "last token of every layer", hooks: layers().collect(), every_token: false },
        Kind { name: "every token of one layer", hooks: layers().next_back().into_iter().collect(), every_token: true },
        Kind { name: "every token of every layer", hooks: layers().collect(), every_token: true },
        Kind { name: "logits of the last token", hooks: vec![Hook::global(Site::Logits)], every_token: false },
    ];
    let mut figures = Map::new();
    for n in lengths {
        let mut times: Vec<Vec<f64>> = kinds.iter().map(|_| Vec::new()).collect();
        for round in 0..=ROUNDS {
            for (kind, times) in kinds.iter().zip(&mut times) {
                let took = pass(&model, kind, n, round)?;
                if round > 0 {
                    times.push(took);
                }
            }
        }
        let medians = kinds.iter().zip(times).map(|(kind, mut times)| {
            times.sort_by(f64::total_cmp);
            (kind.name.to_owned(), json!(times[times.len() / 2]))
        });
        figures.insert(format!("{n} tokens"), Value::Object(medians.collect()));
    }
    let info = model.info();
    let about = json!({"seconds to load": loaded, "device": info.device, "compute_dtype": info.compute_dtype, "milliseconds": figures});
    println!("{about:#}");
    Ok(())
}

/// Milliseconds of one pass over an input of `n` tokens.
fn pass(model: &Model, kind: &Kind, n: usize, round: usize) -> Result<f64, Failure> {
    let ids: Vec<u32> =
        (0..n).map(|i| u32::try_from((i * 7919 + round * 31 + 1) % model.info().d_vocab)).collect::<Result<_, _>>()?;
    let last = u32::try_from(n)?.checked_sub(1).ok_or("an input has at least one token")?;
    let rows = Rows::List(if kind.every_token { (0..=last).collect() } else { vec![last] });
    let shapes = kind.hooks.iter().map(|h| model.info().row_shape(h.site())).collect();
    let layout = PackLayout::new(kind.hooks.as_slice().into(), shapes, Dtype::Float32, &[(n, &rows)]);
    let inputs = [Input { token_ids: &ids, rows: &rows, edits: None }];
    let mut sink = Counted::default();
    let started = Instant::now();
    model.forward(&Batch { inputs: &inputs, layout: &layout }, &mut sink, &|| false)?;
    let took = started.elapsed().as_secs_f64() * 1000.0;
    let expected: usize = (0..layout.hooks.len()).map(|hook| layout.elements(hook, 0..1).len()).sum();
    if sink.0 != expected {
        return Err(format!("{} values instead of {expected}", sink.0).into());
    }
    Ok(took)
}
