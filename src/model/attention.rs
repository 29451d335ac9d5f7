//! The attention sublayer with its norms and taps.

use super::{
    ForwardError,
    architecture::{Architecture, Layer, QkNorm, Residual},
    block::Place,
    checkpoint::Checkpoint,
    error::LoadError,
    history,
    ops::{
        Linear,
        attention::{AttentionSpec, attention, attention_scores, softmax_rows},
        elementwise,
        norm::Norm,
    },
    packing::{Packing, RowSet},
    recorder::Recorder,
    sources::{LayerSources, load_norm},
    transformer::{Scratch, Stream, tapped_norm},
};
use crate::domain::Site;

/// The weights of one attention sublayer.
#[derive(Debug)]
pub struct Attention {
    ln: Option<Norm>,
    q: Linear,
    k: Linear,
    v: Linear,
    pub(super) o: Linear,
    qk_norm: Option<(Norm, Norm)>,
    pub(super) ln_post: Option<Norm>,
    layer: Layer,
}

impl Attention {
    /// Reads the weights.
    pub fn load(
        a: &Architecture,
        layer: Layer,
        sources: &LayerSources,
        checkpoint: &Checkpoint,
    ) -> Result<Self, LoadError> {
        let (d, width_q, width_kv) = (a.d_model, a.n_heads * a.d_head, a.n_kv_heads * a.d_head);
        let norm = |name: &str, d| load_norm(checkpoint, a.norm, name, d);
        let qk_norm = match a.qk_norm {
            None => None,
            Some(QkNorm::PerHead) => Some((norm(&sources.q_norm, a.d_head)?, norm(&sources.k_norm, a.d_head)?)),
            Some(QkNorm::AllHeads) => Some((norm(&sources.q_norm, width_q)?, norm(&sources.k_norm, width_kv)?)),
        };
        Ok(Self {
            ln: (layer.ln1 && a.residual != Residual::PostNorm).then(|| norm(&sources.ln1, d)).transpose()?,
            q: sources.q.load(checkpoint, width_q, d)?,
            k: sources.k.load(checkpoint, width_kv, d)?,
            v: sources.v.load(checkpoint, width_kv, d)?,
            o: sources.o.load(checkpoint, d, width_q)?,
            qk_norm,
            ln_post: layer.ln1_post.then(|| norm(&sources.ln1_post, d)).transpose()?,
            layer,
        })
    }

    /// Leaves in `scratch.attn_out` what attention adds to the residual stream, for the rows of `place.set`, and in
    /// `scratch.normed` what it received, for every token. Stops early when nothing behind was asked for.
    pub fn forward(
        &self,
        place: &Place<'_>,
        stream: &mut Stream<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), ForwardError> {
        self.receive(place, stream, recorder)?;
        if recorder.done() {
            return Ok(());
        }
        self.project(place, stream, recorder)?;
        self.rotate(place, stream, recorder)?;
        if recorder.done() {
            return Ok(());
        }
        self.attend(place, stream, recorder)?;
        if recorder.done() {
            return Ok(());
        }
        self.hand_out(place, stream, recorder)
    }

    /// The norm before: `scratch.normed` `[tokens, d_model]`.
    fn receive(
        &self,
        place: &Place<'_>,
        stream: &mut Stream<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), ForwardError> {
        let Scratch { normed, spare, .. } = &mut stream.scratch;
        normed.resize(stream.x.len(), 0.0);
        match &self.ln {
            Some(norm) => {
                let taps = [place.hook(Site::Ln1Scale), place.hook(Site::Ln1Normalized)];
                tapped_norm(norm, place.a.d_model, &stream.x, normed, spare, taps, RowSet::All, recorder)?;
            }
            None => normed.copy_from_slice(&stream.x),
        }
        recorder.tap(place.hook(Site::AttnIn), normed, RowSet::All)
    }

    /// Queries of the rows that go on, keys and values of every token.
    fn project(
        &self,
        place: &Place<'_>,
        stream: &mut Stream<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), ForwardError> {
        let d = place.a.d_model;
        let packing = stream.packing;
        let Scratch { normed, gathered, q, k, v, .. } = &mut stream.scratch;
        let n_rows = packing.of(place.set).positions.len();
        let queried: &[f32] = match place.set {
            RowSet::All => normed,
            RowSet::Wanted => {
                gathered.resize(n_rows * d, 0.0);
                elementwise::gather_rows(normed, d, &packing.wanted_tokens, gathered);
                gathered
            }
        };
        q.resize(n_rows * self.q.out_features(), 0.0);
        k.resize(packing.n_tokens() * self.k.out_features(), 0.0);
        v.resize(packing.n_tokens() * self.v.out_features(), 0.0);
        self.q.forward(queried, q);
        self.k.forward(normed, k);
        self.v.forward(normed, v);
        recorder.tap(place.hook(Site::Q), q, place.set)?;
        recorder.tap(place.hook(Site::K), k, RowSet::All)?;
        recorder.tap(place.hook(Site::V), v, RowSet::All)
    }

    /// QK-norm, clipping and rotary positions.
    fn rotate(
        &self,
        place: &Place<'_>,
        stream: &mut Stream<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), ForwardError> {
        let a = place.a;
        let packing = stream.packing;
        let Scratch { q, k, v, spare, .. } = &mut stream.scratch;
        if let (Some((q_norm, k_norm)), Some(kind)) = (&self.qk_norm, a.qk_norm) {
            let (d_q, d_k) = match kind {
                QkNorm::PerHead => (a.d_head, a.d_head),
                QkNorm::AllHeads => (self.q.out_features(), self.k.out_features()),
            };
            for (norm, d, values) in [(q_norm, d_q, &mut *q), (k_norm, d_k, &mut *k)] {
                spare.resize(values.len(), 0.0);
                norm.forward(values, d, spare);
                std::mem::swap(values, spare);
            }
        }
        if let Some(limit) = a.qkv_clip {
            [&mut *q, &mut *k, &mut *v].into_iter().for_each(|values| elementwise::clamp(values, limit));
        }
        if let Some(rope) = self.layer.rope {
            stream.turns[rope].apply(q, a.n_heads, a.d_head, packing.of(place.set));
            stream.turns[rope].apply(k, a.n_kv_heads, a.d_head, &packing.all);
        }
        recorder.tap(place.hook(Site::RotQ), q, place.set)?;
        recorder.tap(place.hook(Site::RotK), k, RowSet::All)
    }

    /// Scores, patterns and `scratch.z` `[rows, heads, d_head]`.
    fn attend(
        &self,
        place: &Place<'_>,
        stream: &mut Stream<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), ForwardError> {
        let a = place.a;
        let packing = stream.packing;
        let Stream { scratch: Scratch { q, k, v, z, gathered, .. }, history, key_biases, .. } = stream;
        let spec = AttentionSpec {
            n_heads: a.n_heads,
            n_kv_heads: a.n_kv_heads,
            d_head: a.d_head,
            scale: a.attention_scale,
            causal: a.causal,
            window: self.layer.window,
            softcap: a.score_softcap,
            key_biases: key_biases.as_ref(),
        };
        for (site, softmax) in [(Site::AttnScores, false), (Site::Pattern, true)] {
            recorder.map(place.hook(site), a.n_heads, place.set, &mut |input, rows, positions, out| {
                let k = keys_of(packing, k, input, self.k.out_features());
                gathered.resize(rows.len() * self.q.out_features(), 0.0);
                elementwise::gather_rows(q, self.q.out_features(), rows, gathered);
                attention_scores(&spec, positions, gathered, k, out);
                if softmax {
                    softmax_rows(out, k.len() / self.k.out_features());
                }
            })?;
        }
        if recorder.done() {
            return Ok(());
        }
        z.resize(q.len(), 0.0);
        if let Some(history) = history {
            history::attend(history, &spec, place.l, packing, place.set, [q, k, v], z);
        } else {
            let rows = (place.set == RowSet::Wanted).then_some(packing.wanted_positions.as_slice());
            attention(&spec, &packing.all.offsets, rows, q, k, v, z);
        }
        recorder.tap(place.hook(Site::Z), z, place.set)?;
        self.results(place, z, recorder)
    }

    /// What each head contributes to the output: `[rows, heads, d_model]`.
    fn results(&self, place: &Place<'_>, z: &[f32], recorder: &mut Recorder<'_>) -> Result<(), ForwardError> {
        let (a, d, d_head) = (place.a, place.a.d_model, place.a.d_head);
        let width = a.n_heads * d_head;
        let (mut of_head, mut result) = (Vec::new(), Vec::new());
        recorder.compute(place.hook(Site::AttnResult), a.n_heads * d, place.set, &mut |rows, out| {
            of_head.resize(rows.len() * d_head, 0.0);
            result.resize(rows.len() * d, 0.0);
            for head in 0..a.n_heads {
                let columns = head * d_head..(head + 1) * d_head;
                for (row, of_head) in rows.iter().zip(of_head.chunks_exact_mut(d_head)) {
                    let at = *row as usize * width;
                    of_head.copy_from_slice(&z[at + columns.start..at + columns.end]);
                }
                self.o.forward_columns(columns, &of_head, &mut result);
                for (result, out) in result.chunks_exact(d).zip(out.chunks_exact_mut(a.n_heads * d)) {
                    out[head * d..(head + 1) * d].copy_from_slice(result);
                }
            }
        })
    }

    /// Output projection, the norm after it, the residual multiplier: `scratch.attn_out` `[rows, d_model]`.
    fn hand_out(
        &self,
        place: &Place<'_>,
        stream: &mut Stream<'_>,
        recorder: &mut Recorder<'_>,
    ) -> Result<(), ForwardError> {
        let (d, set) = (place.a.d_model, place.set);
        let Scratch { z, attn_out, gathered, spare, .. } = &mut stream.scratch;
        attn_out.resize(stream.packing.of(set).positions.len() * d, 0.0);
        self.o.forward(z, attn_out);
        recorder.tap(place.hook(Site::AttnRawOut), attn_out, set)?;
        if let Some(norm) = &self.ln_post {
            let taps = [place.hook(Site::Ln1PostScale), place.hook(Site::Ln1PostNormalized)];
            gathered.resize(attn_out.len(), 0.0);
            tapped_norm(norm, d, attn_out, gathered, spare, taps, set, recorder)?;
            std::mem::swap(attn_out, gathered);
        }
        if let Some(factor) = place.a.residual_multiplier {
            elementwise::scale(attn_out, factor);
        }
        recorder.tap(place.hook(Site::AttnOut), attn_out, set)
    }
}

/// The keys of one input.
fn keys_of<'k>(packing: &Packing, k: &'k [f32], input: usize, width: usize) -> &'k [f32] {
    &k[packing.all.offsets[input] * width..packing.all.offsets[input + 1] * width]
}
