//! Helpers for the tests of the model: running it and reading goldens.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use residuum::{
    domain::{Dtype, Generation, Hook, PackLayout, Rows},
    model::{Batch, CaptureSink, ComputeDtype, ForwardError, Input, LoadOptions, Model, Placement, Refusal},
};
use safetensors::SafeTensors;
use serde_json::Value;

/// The folder of goldens.
pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// Loads a golden checkpoint.
pub fn load_golden(folder: &Path) -> Model {
    load_golden_on(folder, Placement::Cpu)
}

/// A copy of a golden checkpoint, which tests may damage.
pub fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in fs::read_dir(goldens().join(name)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

/// Why a checkpoint is refused. The reason must be one line.
pub fn refusal(path: &Path) -> String {
    let options = LoadOptions { offline: true, ..LoadOptions::default() };
    let error = Model::load("x", path.to_str().unwrap(), &options).expect_err("it should be refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// Rewrites the configuration of a copy.
pub fn change_config(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
}

/// Loads a golden checkpoint to run on a device, in float32.
pub fn load_golden_on(folder: &Path, placement: Placement) -> Model {
    let compute_dtype = Some(ComputeDtype::Float32);
    let options = LoadOptions { offline: true, placements: placement.into(), compute_dtype, ..LoadOptions::default() };
    Model::load("golden", folder.to_str().unwrap(), &options).unwrap_or_else(|e| panic!("{e}"))
}

/// The placement on which the code for accelerators is tested: candle's CPU device, or the one that
/// `RESIDUUM_TEST_DEVICE` names.
pub fn accelerator() -> Placement {
    static PLACE: OnceLock<Placement> = OnceLock::new();
    *PLACE.get_or_init(|| {
        let named = std::env::var("RESIDUUM_TEST_DEVICE").unwrap_or_else(|_| Placement::CandleCpu.to_string());
        named.parse().unwrap_or_else(|e| panic!("RESIDUUM_TEST_DEVICE={named}: {e}"))
    })
}

/// The path of the demo model.
pub fn smollm2_path() -> PathBuf {
    let path = std::env::var_os("RESIDUUM_TEST_MODEL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is missing: run scripts/fetch_demo_model.sh, or set RESIDUUM_TEST_MODEL",
        path.display()
    );
    path
}

/// The demo model, loaded once.
pub fn smollm2() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = smollm2_path();
        Model::load("smollm2-135m", path.to_str().unwrap(), &LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
    })
}

/// The folder of the demo encoder.
pub fn minilm_path() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2");
    assert!(path.is_dir(), "{} is missing: run scripts/fetch_demo_model.sh minilm", path.display());
    path
}

/// A sink that collects the values of a forward pass, and checks their order.
pub struct Collected {
    layout: PackLayout,
    values: Vec<Vec<f32>>,
    /// The hook and the item that must come next.
    next: (usize, usize),
    /// Whether it accepts sub-batches.
    divides: bool,
    /// The values of each sub-batch, with the index of its first item.
    sub_batches: Vec<(usize, Self)>,
}

impl CaptureSink for Collected {
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        assert_eq!((hook, items.start), self.next, "hooks and items come in order");
        self.values[hook].extend_from_slice(values);
        let (have, full) = (self.values[hook].len(), self.layout.elements(hook, items.clone()).end);
        if items.len() == 1 && have < full {
            // Part of an item; the rest follows.
            return Ok(());
        }
        assert_eq!(have, full, "{}", self.layout.hooks[hook]);
        self.next = if items.end == self.layout.items.len() { (hook + 1, 0) } else { (hook, items.end) };
        Ok(())
    }

    fn split(&mut self, sub_batches: &[Range<usize>]) -> Option<Vec<Box<dyn CaptureSink + '_>>> {
        if !self.divides {
            return None;
        }
        self.sub_batches =
            sub_batches.iter().map(|items| (items.start, Self::new(self.layout.part(items.clone()), false))).collect();
        Some(self.sub_batches.iter_mut().map(|(_, part)| Box::new(Part(part)) as _).collect())
    }
}

/// The sink of one sub-batch.
struct Part<'c>(&'c mut Collected);

impl CaptureSink for Part<'_> {
    fn write(&mut self, hook: usize, items: Range<usize>, values: &mut Vec<f32>) -> Result<(), Refusal> {
        self.0.write(hook, items, values)
    }
}

impl Collected {
    fn new(layout: PackLayout, divides: bool) -> Self {
        let values = vec![Vec::new(); layout.hooks.len()];
        Self { layout, values, next: (0, 0), divides, sub_batches: Vec::new() }
    }

    /// The values of one item of a hook.
    pub fn item(&self, hook: Hook, item: usize) -> &[f32] {
        if let Some((first, part)) = self.sub_batches.iter().rfind(|(first, _)| *first <= item) {
            return part.item(hook, item - first);
        }
        let index = self.layout.hooks.iter().position(|h| *h == hook).unwrap();
        &self.values[index][self.layout.elements(index, item..item + 1)]
    }

    /// The first item of each sub-batch.
    pub fn sub_batches(&self) -> Vec<usize> {
        self.sub_batches.iter().map(|(first, _)| *first).collect()
    }

    /// Whether every hook of every item has arrived.
    fn is_complete(&self) -> bool {
        match self.sub_batches.as_slice() {
            [] => self.next == (self.layout.hooks.len(), 0),
            parts => self.next == (0, 0) && parts.iter().all(|(_, part)| part.is_complete()),
        }
    }
}

/// Every row of an input.
pub fn all_rows(n_tokens: usize) -> Rows {
    Rows::List((0..u32::try_from(n_tokens).unwrap()).collect())
}

/// Runs inputs through a model and collects `hooks`.
pub fn capture(model: &Model, hooks: &[Hook], inputs: &[(&[u32], Rows)]) -> Result<Collected, ForwardError> {
    let inputs: Vec<Input<'_>> = inputs.iter().map(|(ids, rows)| Input { token_ids: ids, rows, edits: None }).collect();
    collect(model, hooks, &inputs, false)
}

/// Runs inputs through a model and collects `hooks`. With `divides`, the model may divide the batch into sub-batches.
pub fn collect(model: &Model, hooks: &[Hook], inputs: &[Input<'_>], divides: bool) -> Result<Collected, ForwardError> {
    let mut hooks = hooks.to_vec();
    hooks.sort();
    let shapes = hooks.iter().map(|h| model.info().row_shape(h.site())).collect();
    let items: Vec<(usize, &Rows)> = inputs.iter().map(|input| (input.token_ids.len(), input.rows)).collect();
    let layout = PackLayout::new(hooks.into(), shapes, Dtype::Float32, &items);
    let mut sink = Collected::new(layout.clone(), divides);
    model.forward(&Batch { inputs, layout: &layout }, &mut sink, &|| false)?;
    assert!(sink.is_complete(), "every hook arrived");
    Ok(sink)
}

/// All hooks of a model.
pub fn every_hook(model: &Model) -> Vec<Hook> {
    model.info().catalogue().into_iter().map(|h| h.hook).collect()
}

/// The tensors of a golden file as float64, integers included.
pub fn read_tensors(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let decode = |view: safetensors::tensor::TensorView<'_>| match view.dtype() {
        safetensors::Dtype::F32 => {
            view.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
        }
        #[expect(clippy::cast_precision_loss, reason = "token ids are small")]
        safetensors::Dtype::I64 => view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        other => panic!("unexpected type {other:?}"),
    };
    file.tensors().into_iter().map(|(name, view)| (name, decode(view))).collect()
}

/// Token ids from a golden tensor.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "token ids are small")]
pub fn ids(values: &[f64]) -> Vec<u32> {
    values.iter().map(|v| *v as u32).collect()
}

/// The largest difference in units of the reference's root mean square. Infinities must be equal.
pub fn relative_error(name: &str, values: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(values.len(), reference.len(), "{name}: number of values");
    let finite: Vec<f64> = reference.iter().copied().filter(|r| r.is_finite()).collect();
    #[expect(clippy::cast_precision_loss, reason = "a tensor has fewer than 2^52 values")]
    let rms = (finite.iter().map(|r| r * r).sum::<f64>() / finite.len().max(1) as f64).sqrt();
    let mut worst = 0f64;
    for (i, (v, r)) in values.iter().zip(reference).enumerate() {
        let v = f64::from(*v);
        if r.is_finite() {
            assert!(v.is_finite(), "{name}[{i}] is {v}, the reference {r}");
            worst = worst.max((v - r).abs() / rms.max(f64::MIN_POSITIVE));
        } else {
            assert_eq!(v, *r, "{name}[{i}]");
        }
    }
    worst
}

/// Continues an input by at most so many tokens, always the most probable one.
pub fn greedy(max_new_tokens: usize) -> Generation {
    Generation {
        max_new_tokens,
        temperature: 0.0,
        top_k: None,
        top_p: None,
        seed: 1,
        stop: Vec::new(),
        sample: 0,
        n: 1,
    }
}
