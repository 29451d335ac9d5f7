//! Stored rows of the residual stream on their way through a model's head.

use std::sync::Arc;

use super::{chosen::Chosen, row_reader::read_rows};
use residuum_domain::{Cache, Code, Hook, Layers, Positions, Problem, Rows, Selection, Site};
use residuum_model::{Model, Readout};
use residuum_store::{Store, StoredCache};

/// Logits that are held at a time, for each of the two distributions that are compared.
const BLOCK_LOGITS: usize = 1 << 22;
/// Multiply-adds of one request: some ten seconds.
const MAX_WORK: usize = 2_000_000_000_000;

/// What to read, checked: the hooks and positions are stored, and the model can read them.
pub struct ReadoutRows {
    store: Store,
    /// Whose rows.
    pub cache: Arc<StoredCache>,
    /// Whose head.
    pub model: Arc<Model>,
    /// One site of the residual stream, in one or more layers.
    pub hooks: Vec<Hook>,
    /// Which rows.
    pub positions: Vec<u32>,
    d_vocab: usize,
}

/// Where the model's own distribution comes from.
#[derive(Debug, Clone, Copy)]
pub struct Final(pub Hook);

impl ReadoutRows {
    /// Checks a request against the cache and its model.
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
                "{} layers at {} positions are too much to read at once; ask for fewer",
                this.hooks.len(),
                this.positions.len()
            );
            return Err(Problem::new(Code::ResultTooLarge, detail));
        }
        // Finds out now whether the rows are stored.
        this.select(this.hooks[0], &this.positions)?;
        Ok(this)
    }

    /// Rows read: layers times positions.
    pub fn n_rows(&self) -> usize {
        self.hooks.len() * self.positions.len()
    }

    /// The vocabulary.
    pub fn d_vocab(&self) -> usize {
        self.d_vocab
    }

    /// The place in the residual stream.
    pub fn site(&self) -> Site {
        self.hooks[0].site()
    }

    /// The stored hook that the model's own distribution can be had from: the last block's output, or the logits.
    pub fn end(&self) -> Option<Final> {
        let last = Hook::block(Site::ResidPost, self.model.info().n_layers - 1);
        let stored = |hook: &Hook| self.cache.cache.hook_index(*hook).is_ok();
        [last, Hook::global(Site::Logits)].into_iter().find(stored).map(Final)
    }

    /// Hands `take` the logits `[rows, d_vocab]` of every hook, with its index, in blocks of positions; beside them the
    /// model's own of the same positions, if `end` says where they are.
    ///
    /// # Errors
    /// The store's and those of `take`.
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

/// The rows of a stored hook at `positions`, which the body names at `pointer`.
///
/// # Errors
/// [`Code::PositionOutOfRange`], [`Code::HookNotInCache`].
pub fn select(cache: &Cache, hook: Hook, positions: &[u32], pointer: &str) -> Result<Selection, Problem> {
    let positions = Positions::List(positions.iter().map(|p| i64::from(*p)).collect());
    let selected = Selection::of(cache, cache.hook_index(hook)?, Some(&positions));
    selected.map_err(|p| Problem::at(p.code, pointer, p.detail))
}

/// The end of a model that turns rows into logits.
///
/// # Errors
/// [`Code::NotReadable`] with the reason.
pub fn readout(model: &Model) -> Result<Readout<'_>, Problem> {
    model.readout().map_err(|why| not_readable(model, why))
}

/// The problem of a model whose residual stream cannot be read.
pub fn not_readable(model: &Model, why: &str) -> Problem {
    Problem::new(
        Code::NotReadable,
        format!("the residual stream of `{}` cannot be read as logits: {why}", model.info().id),
    )
}

/// The positions asked for, or all that are stored.
fn single_positions(cache: &StoredCache, wanted: Option<&Positions>) -> Result<Vec<u32>, Problem> {
    let rows = match wanted {
        Some(positions) => positions.resolve(cache.cache.token_ids.len())?,
        None => cache.cache.rows()?,
    };
    match rows {
        Rows::List(list) => Ok(list),
        Rows::Mean(_) => {
            let detail = "a lens reads single positions, and a mean over positions is none";
            Err(Problem::at(Code::InvalidValue, "/positions", detail))
        }
    }
}
