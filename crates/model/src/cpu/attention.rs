//! The attention sublayer on the CPU: norm, projections, rotary positions, attention, output projection, and their hook points.

use super::{
    kv_cache,
    stream::{Place, Scratch, Stream, tapped_norm},
};
use crate::{
    ForwardError,
    architecture::{Architecture, Layer, QkNorm, Residual},
    capture::{editor::Editor, map_part::MapPart, taps::Taps},
    checkpoint::Checkpoint,
    error::LoadError,
    ops::{
        Linear,
        attention::{AttentionSpec, KeyBiases, attention, attention_scores, softmax_rows, weighted_values},
        elementwise, forward_all,
        norm::Norm,
    },
    packing::{Packing, RowSet},
    sources::{LayerSources, load_norm},
};
use residuum_domain::Site;

/// Queries whose attention maps are in memory at once, for inputs whose maps are changed by interventions.
const CHANGED_QUERIES: usize = 32;

/// The weights of one attention sublayer.
#[derive(Debug)]
pub struct Attention {
    pub(crate) ln: Option<Norm>,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    pub(crate) qk_norm: Option<(Norm, Norm)>,
    pub(crate) ln_post: Option<Norm>,
    pub(crate) layer: Layer,
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

    /// Writes to `scratch.attn_out` what attention adds to the residual stream, for the rows of `place.set`, and to
    /// `scratch.normed` the input of attention, for every token. Returns early once nothing further was asked for.
    pub fn forward(&self, place: &Place<'_>, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        self.input(place, stream, taps)?;
        if taps.done() {
            return Ok(());
        }
        self.project(place, stream, taps)?;
        self.rotate(place, stream, taps)?;
        if taps.done() {
            return Ok(());
        }
        self.attend(place, stream, taps)?;
        if taps.done() {
            return Ok(());
        }
        self.output(place, stream, taps)
    }

    /// The norm before attention: `scratch.normed` `[tokens, d_model]`.
    fn input(&self, place: &Place<'_>, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        let Scratch { normed, received, spare, .. } = &mut stream.scratch;
        normed.resize(stream.x.len(), 0.0);
        match &self.ln {
            Some(norm) => {
                let hooks = [place.hook(Site::Ln1Scale), place.hook(Site::Ln1Normalized)];
                tapped_norm(norm, place.a.d_model, &stream.x, normed, spare, hooks, RowSet::All, taps)?;
            }
            None => normed.copy_from_slice(&stream.x),
        }
        let hook = place.hook(Site::AttnIn);
        // Interventions here change the input of attention only, not that of a parallel MLP.
        *received = (place.a.residual == Residual::Parallel && taps.edits(hook)).then(|| normed.clone());
        taps.tap(hook, normed, RowSet::All)
    }

    /// Computes queries of the rows of `place.set`, and keys and values of every token.
    fn project(&self, place: &Place<'_>, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        let d = place.a.d_model;
        let packing = stream.packing;
        let Scratch { normed, gathered, q, k, v, .. } = &mut stream.scratch;
        q.resize(packing.of(place.set).positions.len() * self.q.out_features(), 0.0);
        k.resize(packing.n_tokens() * self.k.out_features(), 0.0);
        v.resize(packing.n_tokens() * self.v.out_features(), 0.0);
        match place.set {
            RowSet::All => forward_all(normed, [(&self.q, q), (&self.k, k), (&self.v, v)]),
            RowSet::Wanted => {
                gathered.resize(packing.wanted_tokens.len() * d, 0.0);
                elementwise::gather_rows(normed, d, &packing.wanted_tokens, gathered);
                self.q.forward(gathered, q);
                forward_all(normed, [(&self.k, k), (&self.v, v)]);
            }
        }
        taps.tap(place.hook(Site::Q), q, place.set)?;
        taps.tap(place.hook(Site::K), k, RowSet::All)?;
        taps.tap(place.hook(Site::V), v, RowSet::All)
    }

    /// Applies QK-norm, clipping and rotary positions.
    fn rotate(&self, place: &Place<'_>, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
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
            stream.rotary_tables[rope].apply(q, a.n_heads, a.d_head, packing.of(place.set));
            stream.rotary_tables[rope].apply(k, a.n_kv_heads, a.d_head, &packing.all);
        }
        taps.tap(place.hook(Site::RotQ), q, place.set)?;
        taps.tap(place.hook(Site::RotK), k, RowSet::All)
    }

    /// The shape, mask and scale of this layer's attention.
    pub fn spec<'s>(&self, a: &Architecture, key_biases: Option<&'s KeyBiases>) -> AttentionSpec<'s> {
        AttentionSpec {
            n_heads: a.n_heads,
            n_kv_heads: a.n_kv_heads,
            d_head: a.d_head,
            scale: a.attention_scale,
            causal: a.causal,
            window: self.layer.window,
            softcap: a.score_softcap,
            key_biases,
        }
    }

    /// Computes scores and patterns where they are asked for, and `scratch.z` `[rows, heads, d_head]`.
    fn attend(&self, place: &Place<'_>, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        let a = place.a;
        let packing = stream.packing;
        let Stream { scratch: Scratch { q, k, v, z, gathered, .. }, history, key_biases, .. } = stream;
        let spec = self.spec(a, key_biases.as_ref());
        for site in [Site::AttnScores, Site::Pattern] {
            taps.map(place.hook(site), a.n_heads, place.set, &mut |editor, part, rows, out| {
                let keys = of_input(packing, k, part.input, self.k.out_features());
                gathered.resize(rows.len() * self.q.out_features(), 0.0);
                elementwise::gather_rows(q, self.q.out_features(), rows, gathered);
                attention_map(place, site, editor, &spec, part, gathered, keys, out);
            })?;
        }
        if taps.done() {
            return Ok(());
        }
        z.resize(q.len(), 0.0);
        if let Some(history) = history {
            kv_cache::attend(history, &spec, place.l, packing, place.set, [q, k, v], z);
        } else {
            let rows = (place.set == RowSet::Wanted).then_some(packing.wanted_positions.as_slice());
            attention(&spec, &packing.all.offsets, rows, q, k, v, z);
        }
        if let Some(editor) = taps.editor() {
            for input in editor.mapped(place.l) {
                let [keys, values] = match history {
                    Some(history) => history[input].of_layer(place.l),
                    None => [&*k, &*v].map(|all| of_input(packing, all, input, self.k.out_features())),
                };
                self.attend_changed(place, &spec, editor, input, packing, [q, keys, values], z);
            }
        }
        taps.tap(place.hook(Site::Z), z, place.set)?;
        self.results(place, z, taps)
    }

    /// Computes `z` again for the queries of one input whose rows of the attention maps are changed, some queries at a time.
    /// The other queries keep their `z`, bit for bit.
    #[expect(clippy::too_many_arguments, reason = "the buffers belong to different owners")]
    pub fn attend_changed(
        &self,
        place: &Place<'_>,
        spec: &AttentionSpec<'_>,
        editor: &Editor<'_>,
        input: usize,
        packing: &Packing,
        [q, keys, values]: [&[f32]; 3],
        z: &mut [f32],
    ) {
        let (width, n_keys) = (self.q.out_features(), keys.len() / self.k.out_features());
        let selection = packing.of(place.set);
        let own = selection.offsets[input]..selection.offsets[input + 1];
        let hooks = [Site::AttnScores, Site::Pattern].map(|site| place.hook(site));
        let mut changed = editor.touched(&hooks, place.set);
        changed.retain(|row| own.contains(&(*row as usize)));
        let [mut queries, mut pattern, mut found] = [const { Vec::new() }; 3];
        for rows in changed.chunks(CHANGED_QUERIES) {
            let positions: Vec<u32> = rows.iter().map(|row| selection.positions[*row as usize]).collect();
            queries.resize(rows.len() * width, 0.0);
            elementwise::gather_rows(q, width, rows, &mut queries);
            pattern.clear();
            pattern.resize(spec.n_heads * rows.len() * n_keys, 0.0);
            let part = MapPart { input, heads: 0..spec.n_heads, positions: &positions, n_keys };
            attention_map(place, Site::Pattern, Some(editor), spec, &part, &queries, keys, &mut pattern);
            found.resize(queries.len(), 0.0);
            weighted_values(spec, &pattern, values, &mut found);
            for (row, found) in rows.iter().zip(found.chunks_exact(width)) {
                z[*row as usize * width..][..width].copy_from_slice(found);
            }
        }
    }

    /// Records what each head contributes to the output: `[rows, heads, d_model]`.
    fn results(&self, place: &Place<'_>, z: &[f32], taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        let (n_heads, d) = (place.a.n_heads, place.a.d_model);
        let (mut of_head, mut result) = (Vec::new(), Vec::new());
        taps.compute(place.hook(Site::AttnResult), n_heads * d, place.set, &mut |rows, out| {
            self.results_of(rows, n_heads, z, [&mut of_head, &mut result], out);
        })
    }

    /// The contributions of the heads in some rows of `z`: `out` is `[rows, heads, d_model]`. The caller keeps the two buffers.
    fn results_of(&self, rows: &[u32], n_heads: usize, z: &[f32], buffers: [&mut Vec<f32>; 2], out: &mut [f32]) {
        let (width, d) = (self.o.in_features(), self.o.out_features());
        let d_head = width / n_heads;
        let [of_head, result] = buffers;
        of_head.resize(rows.len() * d_head, 0.0);
        result.resize(rows.len() * d, 0.0);
        for head in 0..n_heads {
            let columns = head * d_head..(head + 1) * d_head;
            for (row, of_head) in rows.iter().zip(of_head.chunks_exact_mut(d_head)) {
                let at = *row as usize * width;
                of_head.copy_from_slice(&z[at + columns.start..at + columns.end]);
            }
            self.o.forward_columns(columns, of_head, result);
            for (result, out) in result.chunks_exact(d).zip(out.chunks_exact_mut(n_heads * d)) {
                out[head * d..(head + 1) * d].copy_from_slice(result);
            }
        }
    }

    /// Where an intervention changes the contribution of a head, adds the difference to the output.
    fn follow_results(&self, place: &Place<'_>, z: &[f32], attn_out: &mut [f32], taps: &Taps<'_>) {
        let hook = place.hook(Site::AttnResult);
        let Some(editor) = taps.editor().filter(|e| e.edits(hook)) else { return };
        let (n_heads, d) = (place.a.n_heads, place.a.d_model);
        let (mut of_head, mut result) = (Vec::new(), Vec::new());
        for row in editor.touched(&[hook], place.set) {
            let mut before = vec![0.0; n_heads * d];
            self.results_of(&[row], n_heads, z, [&mut of_head, &mut result], &mut before);
            let mut after = before.clone();
            editor.some_rows(hook, &[row], &mut after, place.set);
            let out = &mut attn_out[row as usize * d..][..d];
            for (before, after) in before.chunks_exact(d).zip(after.chunks_exact(d)) {
                out.iter_mut().zip(before.iter().zip(after)).for_each(|(x, (b, a))| *x += a - b);
            }
        }
    }

    /// The output projection, the norm after it, and the residual multiplier: `scratch.attn_out` `[rows, d_model]`.
    fn output(&self, place: &Place<'_>, stream: &mut Stream<'_>, taps: &mut Taps<'_>) -> Result<(), ForwardError> {
        let (d, set) = (place.a.d_model, place.set);
        let Scratch { z, attn_out, gathered, spare, .. } = &mut stream.scratch;
        attn_out.resize(stream.packing.of(set).positions.len() * d, 0.0);
        self.o.forward(z, attn_out);
        self.follow_results(place, z, attn_out, taps);
        taps.tap(place.hook(Site::AttnRawOut), attn_out, set)?;
        if let Some(norm) = &self.ln_post {
            let hooks = [place.hook(Site::Ln1PostScale), place.hook(Site::Ln1PostNormalized)];
            gathered.resize(attn_out.len(), 0.0);
            tapped_norm(norm, d, attn_out, gathered, spare, hooks, set, taps)?;
            std::mem::swap(attn_out, gathered);
        }
        if let Some(factor) = place.a.residual_multiplier {
            elementwise::scale(attn_out, factor);
        }
        taps.tap(place.hook(Site::AttnOut), attn_out, set)
    }
}

/// The rows of one input among the keys or values of all tokens.
fn of_input<'k>(packing: &Packing, all: &'k [f32], input: usize, width: usize) -> &'k [f32] {
    &all[packing.all.offsets[input] * width..packing.all.offsets[input + 1] * width]
}

/// Part of an attention map, after interventions: scores or the pattern, as `site` says, `[heads, queries, keys]`. `q` are the
/// queries of the part; `q` and `keys` have every head.
#[expect(clippy::too_many_arguments, reason = "the buffers belong to different owners")]
pub fn attention_map(
    place: &Place<'_>,
    site: Site,
    editor: Option<&Editor<'_>>,
    spec: &AttentionSpec<'_>,
    part: &MapPart<'_>,
    q: &[f32],
    keys: &[f32],
    out: &mut [f32],
) {
    attention_scores(spec, part.heads.clone(), part.positions, q, keys, out);
    if let Some(editor) = editor {
        editor.map(place.hook(Site::AttnScores), spec, part, out);
    }
    if site == Site::Pattern {
        softmax_rows(out, part.n_keys);
        if let Some(editor) = editor {
            editor.map(place.hook(Site::Pattern), spec, part, out);
        }
    }
}
