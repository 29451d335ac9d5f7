//! The transformer that runs every [`Architecture`] on the CPU, from token ids to logits, with all hook points.

use rayon::prelude::*;

use super::{
    block::Block,
    kv_cache::KvCache,
    rotary::{Rotary, RotaryTables},
    stream::{Scratch, Stream, tapped_norm},
    transform::Transform,
};
use crate::{
    Batch, ForwardError,
    architecture::{Architecture, Unembedding},
    capture::taps::Taps,
    checkpoint::Checkpoint,
    error::LoadError,
    ops::{Linear, attention::KeyBiases, elementwise, norm::Norm, parallel::rows_of_a_task},
    packing::{Packing, RowSet},
    sources::{Sources, load_norm},
};
use residuum_domain::{Hook, Site};

/// A transformer with its weights.
#[derive(Debug)]
pub struct Transformer {
    architecture: Architecture,
    /// The token embedding `[d_vocab, d_model]`, or of the width that is projected; `None` when a tied unembedding holds it.
    embed: Option<Vec<f32>>,
    /// Projections from the width of the embedding to `d_model`, and back.
    pub(crate) projections: Option<(Linear, Linear)>,
    /// Learned positions `[n_ctx + offset, d_model]`.
    positions: Option<Vec<f32>>,
    /// The embedding `[d_model]` of token type 0, which every token has.
    token_type: Option<Vec<f32>>,
    embed_norm: Option<Norm>,
    pub(crate) blocks: Vec<Block>,
    rotaries: Vec<Rotary>,
    pub(crate) final_norm: Option<Norm>,
    pub(crate) transform: Option<Transform>,
    pub(crate) unembed: Option<Linear>,
}

impl Transformer {
    /// Reads the weights from the checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing, does not have the shape that the configuration says, or cannot be read.
    pub fn load(architecture: Architecture, sources: &Sources, checkpoint: &Checkpoint) -> Result<Self, LoadError> {
        let a = &architecture;
        let d = a.d_model;
        let d_embed = a.embedding.projected.unwrap_or(d);
        let tied = a.unembedding.is_some_and(|u| u.tied);
        let (embed, unembed) = if tied {
            let reader = crate::sources::LinearSource { weight: sources.embed.clone(), ..sources.unembed.clone() };
            (None, Some(reader.load(checkpoint, a.d_vocab, d_embed)?))
        } else {
            let table = checkpoint.whole(&sources.embed, &[a.d_vocab, d_embed])?;
            let unembed = a.unembedding.map(|_| sources.unembed.load(checkpoint, a.d_vocab, d_embed)).transpose()?;
            (Some(table), unembed)
        };
        let projections = match a.embedding.projected {
            Some(_) => Some((
                sources.project_in.load(checkpoint, d, d_embed)?,
                sources.project_out.load(checkpoint, d_embed, d)?,
            )),
            None => None,
        };
        let positions = match (&sources.positions, a.embedding.positions) {
            (Some(name), Some(p)) => Some(checkpoint.whole(name, &[a.n_ctx + p.offset, d])?),
            _ => None,
        };
        let token_type = match (&sources.token_types, a.embedding.token_types) {
            (Some(name), Some(rows)) => Some(checkpoint.whole(name, &[rows, d])?[..d].to_vec()),
            _ => None,
        };
        let embed_norm = match &sources.embed_norm {
            Some(name) if a.embedding.norm => Some(load_norm(checkpoint, a.norm, name, d)?),
            _ => None,
        };
        let blocks = a.layers.iter().enumerate();
        let blocks = blocks
            .map(|(l, layer)| Block::load(a, *layer, &(sources.layer)(l), checkpoint))
            .collect::<Result<_, _>>()?;
        let final_norm = if a.final_norm { Some(load_norm(checkpoint, a.norm, &sources.final_norm, d)?) } else { None };
        let transform = match (&sources.transform, a.unembedding.and_then(|u| u.transform)) {
            (Some(sources), Some(activation)) => Some(Transform::load(a, activation, sources, checkpoint)?),
            _ => None,
        };
        let rotaries = a.ropes.iter().map(|r| Rotary::new(r.clone(), a.n_ctx, a.rope_interleaved)).collect();
        Ok(Self {
            embed,
            projections,
            positions,
            token_type,
            embed_norm,
            blocks,
            rotaries,
            final_norm,
            transform,
            unembed,
            architecture,
        })
    }

    /// The architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Whether keys that were rotated for a text of one length are right for a text of another.
    pub fn rotates_alike(&self, length: usize, other: usize) -> bool {
        self.rotaries.iter().all(|r| r.is_alike(length, other))
    }

    /// Runs a batch up to the last hook asked for. `history` holds the KV cache of each input, where inputs are continued: the
    /// new keys and values are appended to it.
    pub fn forward<'a>(
        &self,
        batch: &Batch<'_>,
        packing: &'a Packing,
        history: Option<&'a mut [KvCache]>,
        taps: &mut Taps<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ForwardError> {
        let x = self.embed(batch, packing, taps, Vec::new())?;
        self.forward_from(0, x, packing, history, taps, cancelled)
    }

    /// As [`Self::forward`], but starts at block `first` with the residual stream `x` `[tokens, d_model]`.
    pub fn forward_from<'a>(
        &self,
        first: usize,
        x: Vec<f32>,
        packing: &'a Packing,
        history: Option<&'a mut [KvCache]>,
        taps: &mut Taps<'_>,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), ForwardError> {
        let mut stream = Stream {
            packing,
            x,
            set: RowSet::All,
            rotary_tables: self.rotary_tables(packing),
            history,
            key_biases: self.key_biases(&packing.lengths),
            scratch: Scratch::default(),
        };
        for (l, block) in self.blocks.iter().enumerate().skip(first) {
            if cancelled() {
                return Err(ForwardError::Cancelled);
            }
            if taps.done() {
                return Ok(());
            }
            let last = l + 1 == self.blocks.len() || taps.done_after(Hook::block(Site::ResidPost, l));
            block.forward(&self.architecture, l, last, &mut stream, taps)?;
        }
        if taps.done() {
            return Ok(());
        }
        if cancelled() {
            return Err(ForwardError::Cancelled);
        }
        self.head(&mut stream, taps)
    }

    /// The rotary tables of a batch.
    pub(crate) fn rotary_tables(&self, packing: &Packing) -> Vec<RotaryTables> {
        self.rotaries.iter().map(|r| r.tables(&packing.lengths)).collect()
    }

    /// The ALiBi biases for the positions of the longest of these inputs.
    pub(crate) fn key_biases(&self, lengths: &[usize]) -> Option<KeyBiases> {
        let n_keys = lengths.iter().copied().max().unwrap_or(0);
        self.architecture.alibi.map(|alibi| alibi.biases(self.architecture.n_heads, n_keys))
    }

    /// The token embeddings `[tokens, d_model]`, projected where the embedding has another width. Reuses the buffer `rows`.
    fn embed_tokens(&self, batch: &Batch<'_>, packing: &Packing, mut rows: Vec<f32>) -> Result<Vec<f32>, ForwardError> {
        let d = self.architecture.d_model;
        let width = self.architecture.embedding.projected.unwrap_or(d);
        rows.resize(packing.n_tokens() * width, 0.0);
        let ids: Vec<u32> = batch.inputs.iter().flat_map(|i| i.token_ids).copied().collect();
        let embed: &(dyn Fn(usize, &mut [f32]) + Sync) = match (&self.embed, &self.unembed) {
            (Some(table), _) => &|id, row| row.copy_from_slice(&table[id * width..(id + 1) * width]),
            (None, Some(unembed)) => &|id, row| unembed.row(id, row),
            (None, None) => return Err(ForwardError::Failed("the model has no embedding".to_owned())),
        };
        // About a nanosecond for each number: rows are scattered over a large table.
        let at_once = rows_of_a_task(ids.len(), rows.len());
        rows.par_chunks_mut(at_once * width).zip(ids.par_chunks(at_once)).for_each(|(rows, ids)| {
            rows.chunks_exact_mut(width).zip(ids).for_each(|(row, id)| embed(*id as usize, row));
        });
        let Some((project_in, _)) = &self.projections else { return Ok(rows) };
        let mut x = vec![0.0; packing.n_tokens() * d];
        project_in.forward(&rows, &mut x);
        Ok(x)
    }

    /// The residual stream `[tokens, d_model]` before the first block. Reuses `buffer` where it can.
    pub(crate) fn embed(
        &self,
        batch: &Batch<'_>,
        packing: &Packing,
        taps: &mut Taps<'_>,
        buffer: Vec<f32>,
    ) -> Result<Vec<f32>, ForwardError> {
        let d = self.architecture.d_model;
        let mut x = self.embed_tokens(batch, packing, buffer)?;
        if let Some(scale) = self.architecture.embedding.scale {
            elementwise::scale(&mut x, scale);
        }
        taps.tap(Hook::global(Site::Embed), &mut x, RowSet::All)?;
        if let (Some(table), Some(spec)) = (&self.positions, self.architecture.embedding.positions) {
            let mut learned = vec![0.0; x.len()];
            let starts =
                packing.all.offsets.iter().map(|first| packing.all.positions.get(*first).map_or(0, |p| *p as usize));
            let rows = batch.inputs.iter().zip(starts).flat_map(|(i, before)| spec.rows(i.token_ids, before));
            for (at, row) in rows.zip(learned.chunks_exact_mut(d)) {
                row.copy_from_slice(&table[at * d..(at + 1) * d]);
            }
            taps.tap(Hook::global(Site::PosEmbed), &mut learned, RowSet::All)?;
            elementwise::add_assign(&mut x, &learned);
        }
        if let Some(row) = &self.token_type {
            let mut types = row.repeat(packing.n_tokens());
            taps.tap(Hook::global(Site::TypeEmbed), &mut types, RowSet::All)?;
            elementwise::add_assign(&mut x, &types);
        }
        if let Some(norm) = &self.embed_norm {
            let mut normed = vec![0.0; x.len()];
            norm.forward(&x, d, &mut normed);
            x = normed;
            taps.tap(Hook::global(Site::EmbedLnOut), &mut x, RowSet::All)?;
        }
        Ok(x)
    }

    /// The final norm, and the logits of the rows that are asked for.
    fn head(&self, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        let d = self.architecture.d_model;
        if let Some(norm) = &self.final_norm {
            let mut normed = vec![0.0; stream.x.len()];
            let hooks = [Hook::global(Site::LnFinalScale), Hook::global(Site::LnFinalNormalized)];
            tapped_norm(norm, d, &stream.x, &mut normed, &mut stream.scratch.spare, hooks, stream.set, taps)?;
            stream.x = normed;
        }
        taps.tap(Hook::global(Site::FinalNorm), &mut stream.x, stream.set)?;
        let (Some(unembed), Some(spec)) = (&self.unembed, self.architecture.unembedding) else { return Ok(()) };
        let (x, Scratch { gathered, spare, .. }) = (&stream.x, &mut stream.scratch);
        let hook = Hook::global(Site::Logits);
        taps.compute(hook, self.architecture.d_vocab, stream.set, &mut |rows, out| {
            gathered.resize(rows.len() * d, 0.0);
            elementwise::gather_rows(x, d, rows, gathered);
            self.read_out(unembed, gathered, spare, out);
            cap(spec, out);
        })
    }

    /// The logits `[rows, d_vocab]` of the rows in `x` `[rows, d_model]`, which are outputs of the final norm: scaled, before the
    /// softcap. Overwrites `x` and `spare`.
    pub(crate) fn read_out(&self, unembed: &Linear, x: &mut Vec<f32>, spare: &mut Vec<f32>, out: &mut [f32]) {
        if let Some(transform) = &self.transform {
            transform.apply(x);
        }
        if let Some((_, project_out)) = &self.projections {
            spare.resize(x.len() / project_out.in_features() * project_out.out_features(), 0.0);
            project_out.forward(x, spare);
            std::mem::swap(x, spare);
        }
        unembed.forward(x, out);
        if let Some(scale) = self.architecture.unembedding.and_then(|u| u.scale) {
            elementwise::scale(out, scale);
        }
    }
}

/// Applies the model's softcap, if it has one.
pub(crate) fn cap(spec: Unembedding, logits: &mut [f32]) {
    if let Some(cap) = spec.softcap {
        elementwise::softcap(logits, cap);
    }
}
