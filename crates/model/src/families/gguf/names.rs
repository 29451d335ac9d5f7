//! GGUF's names of weights. They are the same for all architectures; some architectures fuse projections that others store
//! separately.

use crate::{
    architecture::Architecture,
    checkpoint::Checkpoint,
    sources::{LayerSources, LinearSource, RowOrder, Sources},
};
use residuum_domain::{WarningCode, Warnings};

/// Replaces the Hugging Face names of `family` by GGUF's. `interleaved`: rows of query and key projections are stored in the order
/// of interleaved rotary pairs.
pub fn sources(
    a: &Architecture,
    family: &Sources,
    checkpoint: &Checkpoint,
    interleaved: bool,
    warnings: &Warnings,
) -> Sources {
    let names = |l: usize| Names { a, checkpoint, block: format!("blk.{l}."), interleaved, warnings };
    let layers: Vec<LayerSources> = (0..a.layers.len()).map(|l| names(l).layer(&(family.layer)(l))).collect();
    Sources {
        positions: family.positions.as_ref().map(|_| "position_embd.weight".to_owned()),
        embed_norm: family.embed_norm.as_ref().map(|_| "token_embd_norm".to_owned()),
        unembed: linear(checkpoint, "output", &family.unembed, warnings),
        ..Sources::new("token_embd.weight".to_owned(), "output_norm".to_owned(), move |l| layers[l].clone())
    }
}

/// The projection `name`. It has a bias if the family or the file has one: no key says so, and llama.cpp adds it too.
fn linear(checkpoint: &Checkpoint, name: &str, family: &LinearSource, warnings: &Warnings) -> LinearSource {
    let stored = checkpoint.has(&format!("{name}.bias"));
    if stored && family.bias.is_none() {
        let kind: String = name
            .split('.')
            .map(|part| if part.parse::<usize>().is_ok() { "{l}" } else { part })
            .collect::<Vec<_>>()
            .join(".");
        let detail = format!(
            "the file has `{kind}.bias`, which this architecture usually lacks; it is added, as llama.cpp does"
        );
        warnings.add(WarningCode::UnannouncedBias, detail);
    }
    LinearSource::new(name, family.bias.is_some() || stored)
}

/// The names of one block.
struct Names<'a> {
    a: &'a Architecture,
    checkpoint: &'a Checkpoint,
    /// Prefix of its weights.
    block: String,
    interleaved: bool,
    warnings: &'a Warnings,
}

impl Names<'_> {
    fn layer(&self, family: &LayerSources) -> LayerSources {
        let name = |part: &str| format!("{}{part}", self.block);
        let [q, k, v] = self.queries_keys_values(family);
        let (gate, up) = self.mlp(family);
        LayerSources {
            ln1: name("attn_norm"),
            q,
            k,
            v,
            o: self.linear("attn_output", &family.o),
            q_norm: name("attn_q_norm"),
            k_norm: name("attn_k_norm"),
            ln1_post: name("post_attention_norm"),
            ln2: name("ffn_norm"),
            gate,
            up,
            down: self.linear("ffn_down", &family.down),
            ln2_post: name("post_ffw_norm"),
            experts: None,
        }
    }

    /// Query, key and value projections: three tensors, or three parts of one.
    fn queries_keys_values(&self, family: &LayerSources) -> [LinearSource; 3] {
        let (q, kv) = (self.a.n_heads * self.a.d_head, self.a.n_kv_heads * self.a.d_head);
        if self.has("attn_qkv") {
            let part = |family, first| self.linear("attn_qkv", family).part(q + 2 * kv, RowOrder::From(first));
            return [part(&family.q, 0), part(&family.k, q), part(&family.v, q + kv)];
        }
        let rotary = if self.interleaved { RowOrder::Unpermuted { d_head: self.a.d_head } } else { RowOrder::From(0) };
        [
            self.linear("attn_q", &family.q).order(rotary),
            self.linear("attn_k", &family.k).order(rotary),
            self.linear("attn_v", &family.v),
        ]
    }

    /// The projections into the MLP: a single one, gate and up, or both as parts of one tensor.
    fn mlp(&self, family: &LayerSources) -> (LinearSource, Option<LinearSource>) {
        let first = self.linear("ffn_up", &family.gate);
        let Some(up) = &family.up else { return (first, None) };
        if self.has("ffn_gate") {
            return (self.linear("ffn_gate", &family.gate), Some(self.linear("ffn_up", up)));
        }
        let part = |row| first.clone().part(2 * self.a.d_mlp, RowOrder::From(row));
        (part(0), Some(part(self.a.d_mlp)))
    }

    fn linear(&self, part: &str, family: &LinearSource) -> LinearSource {
        linear(self.checkpoint, &format!("{}{part}", self.block), family, self.warnings)
    }

    fn has(&self, part: &str) -> bool {
        self.checkpoint.has(&format!("{}{part}.weight", self.block))
    }
}
