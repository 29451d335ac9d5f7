//! Reads stored rows of the residual stream through the model's final norm and unembedding.

use std::sync::Arc;

use super::{chosen::Chosen, row_reader::read_rows};
use residuum_domain::{Cache, Code, Hook, Layers, Positions, Problem, Rows, Selection, Site};
use residuum_model::{Model, Readout};
use residuum_store::{Store, StoredCache};

/// Most logits held at a time, for each of the two distributions that are compared.
const BLOCK_LOGITS: usize = 1 << 22;
/// Most multiply-adds of one request; they take some ten seconds.
const MAX_WORK: usize = 2_000_000_000_000;

/// The rows to read. It is checked that the hooks and positions are stored, and that the model can read them.
pub struct ReadoutRows {
    store: Store,
    /// The cache of the rows.
    pub cache: Arc<StoredCache>,
    /// The model whose head reads them.
    pub model: Arc<Model>,
    /// One site of the residual stream, at one or more layers.
    pub hooks: Vec<Hook>,
    /// The positions of the rows.
    pub positions: Vec<u32>,
    d_vocab: usize,
}

/// The hook from which the model's own distribution is computed.
#[derive(Debug, Clone, Copy)]
pub struct Final(pub Hook);

impl ReadoutRows {
    /// Checks a question against the cache and its model.
    ///
    /// # Errors
    /// [`Code::NotReadable`], [`Code::UnknownHook`], [`Code::LayerOutOfRange`], [`Code::HookNotStored`],
    /// [`Code::PositionOutOfRange`], [`Code::InvalidValue`] for a hook outside the residual stream or a mean,
    /// [`Code::ResultTooLarge`].
    pub fn new(
        store: Store,
        cache: Arc<StoredCache>,
        model: Arc<Model>,
        hook: &str,
        layers: &Layers,
        positions: Option<&Positions>,
    ) -> Result<Self, Problem> {
        let d_vocab = readout(&model)?.d_vocab();
        let chosen = Chosen { caches: vec![Arc::clone(&cache)], pointers: vec!["/hook".to_owned()] };
        let hooks = chosen.hooks(hook, layers)?;
        if !hooks.iter().all(|h| matches!(h.site(), Site::ResidPre | Site::ResidMid | Site::ResidPost)) {
            let detail = "a lens reads the residual stream: resid_pre, resid_mid or resid_post";
            return Err(Problem::at(Code::InvalidValue, "/hook", detail));
        }
        let positions = single_positions(&cache, positions)?;
        let this = Self { store, cache, model, hooks, positions, d_vocab };
        let work = this.n_rows().saturating_mul(this.model.info().d_model).saturating_mul(d_vocab);
        if work > MAX_WORK {
            let detail = format!(
                "{} layers at {} positions are too much to read at once; request fewer",
                this.hooks.len(),
                this.positions.len()
            );
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        // Checks now whether the rows are stored.
        this.select(this.hooks[0], &this.positions)?;
        Ok(this)
    }

    /// Number of rows: layers times positions.
    pub fn n_rows(&self) -> usize {
        self.hooks.len() * self.positions.len()
    }

    /// Size of the vocabulary.
    pub fn d_vocab(&self) -> usize {
        self.d_vocab
    }

    /// The site of the residual stream.
    pub fn site(&self) -> Site {
        self.hooks[0].site()
    }

    /// The stored hook from which the model's own distribution can be computed: the last block's output, or the logits.
    pub fn end(&self) -> Option<Final> {
        let last = Hook::block(Site::ResidPost, self.model.info().n_layers - 1);
        let stored = |hook: &Hook| self.cache.cache.hook_index(*hook).is_ok();
        [last, Hook::global(Site::Logits)].into_iter().find(stored).map(Final)
    }

    /// Passes the logits `[rows, d_vocab]` of every hook to `take`, with the index of the hook, in blocks of positions.
    /// If `end` is given, also passes the model's own logits at the same positions.
    ///
    /// # Errors
    /// Those of the store and those of `take`.
    pub fn for_each_block(
        &self,
        end: Option<Final>,
        mut take: impl FnMut(usize, &mut [f32], Option<&[f32]>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let readout = readout(&self.model)?;
        for positions in self.positions.chunks((BLOCK_LOGITS / self.d_vocab).max(1)) {
            let last = end.map(|Final(hook)| self.logits(readout, hook, positions)).transpose()?;
            for (i, hook) in self.hooks.iter().enumerate() {
                take(i, &mut self.logits(readout, *hook, positions)?, last.as_deref())?;
            }
        }
        Ok(())
    }

    fn logits(&self, readout: Readout<'_>, hook: Hook, positions: &[u32]) -> Result<Vec<f32>, Problem> {
        let rows = read_rows(&self.store, &self.cache, &self.select(hook, positions)?)?;
        Ok(if hook.site() == Site::Logits { rows } else { readout.logits(&rows) })
    }

    fn select(&self, hook: Hook, positions: &[u32]) -> Result<Selection, Problem> {
        select(&self.cache.cache, hook, positions, "/positions")
    }
}

/// The rows of a stored hook at `positions`, which stand at `pointer` in the request body.
///
/// # Errors
/// [`Code::PositionOutOfRange`], [`Code::HookNotInCache`].
pub fn select(cache: &Cache, hook: Hook, positions: &[u32], pointer: &str) -> Result<Selection, Problem> {
    let positions = Positions::List(positions.iter().map(|p| i64::from(*p)).collect());
    let selected = Selection::of(cache, cache.hook_index(hook)?, Some(&positions));
    selected.map_err(|p| Problem::at(p.code, pointer, p.detail))
}

/// The final norm and unembedding of a model, which turn rows into logits.
///
/// # Errors
/// [`Code::NotReadable`], with the reason.
pub fn readout(model: &Model) -> Result<Readout<'_>, Problem> {
    model.readout().map_err(|why| not_readable(model, why))
}

/// The problem that a model's residual stream cannot be read as logits.
pub fn not_readable(model: &Model, why: &str) -> Problem {
    Problem::new(
        Code::NotReadable,
        format!("the residual stream of `{}` cannot be read as logits: {why}", model.info().id),
    )
}

/// The requested positions, or all that are stored.
fn single_positions(cache: &StoredCache, wanted: Option<&Positions>) -> Result<Vec<u32>, Problem> {
    let rows = match wanted {
        Some(positions) => positions.resolve(cache.cache.token_ids.len())?,
        None => cache.cache.rows()?,
    };
    match rows {
        Rows::List(list) => Ok(list),
        Rows::Mean(_) => {
            let detail = "a lens reads single positions, not a mean over positions";
            Err(Problem::at(Code::InvalidValue, "/positions", detail))
        }
    }
}
