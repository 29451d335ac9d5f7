//! The description of an architecture that goes into the fingerprint. Its text must not change unless what the model computes does:
//! every stored result is tied to the fingerprint.
//!
//! It has one line for each property, `name=value`; fractional numbers are the hexadecimal bits they are computed with. A property
//! that a model does not have has no line. So a new property does not change the description of models without it: write its line
//! only where it differs from what all earlier models have.

use std::fmt::Write;

use super::{
    Architecture, Embedding, Experts, Layer, LearnedPositions, NormKind, QkNorm, Residual, Unembedding,
    alibi::Alibi,
    rope::{LongInputs, LongKind, Rope},
};
use crate::ops::activation::Activation;

/// Version of this format. Raising it gives every model another fingerprint.
const FORM: u32 = 1;

impl Architecture {
    /// The description. It is equal for two architectures if, and only if, they compute the same numbers from the same weights.
    pub fn describe(&self) -> String {
        // Destructure, so that a new property cannot be forgotten here.
        let Self {
            model_type,
            d_model,
            n_heads,
            n_kv_heads,
            d_head,
            d_mlp,
            d_vocab,
            n_ctx,
            embedding,
            norm,
            residual,
            layers,
            ropes,
            rope_interleaved,
            qk_norm,
            qkv_clip,
            attention_scale,
            score_softcap,
            alibi,
            causal,
            activation,
            gated,
            experts,
            residual_multiplier,
            final_norm,
            unembedding,
        } = self;
        let mut lines = Lines::default();
        lines.put("form", FORM);
        lines.put("model_type", model_type);
        for (name, size) in [
            ("d_model", d_model),
            ("n_heads", n_heads),
            ("n_kv_heads", n_kv_heads),
            ("d_head", d_head),
            ("d_mlp", d_mlp),
            ("d_vocab", d_vocab),
            ("n_ctx", n_ctx),
        ] {
            lines.put(name, size);
        }
        embedding_lines(&mut lines, embedding);
        lines.put("norm", norm_value(*norm));
        lines.put("residual", residual_value(*residual));
        ropes.iter().for_each(|rope| lines.put("rope", rope_value(rope)));
        lines.flag("rope_interleaved", *rope_interleaved);
        lines.maybe("qk_norm", qk_norm.map(qk_norm_value));
        lines.maybe("qkv_clip", qkv_clip.map(bits));
        lines.put("attention_scale", bits(*attention_scale));
        lines.maybe("score_softcap", score_softcap.map(bits));
        lines.maybe("alibi", alibi.map(alibi_value));
        lines.flag("causal", *causal);
        lines.put("activation", activation_value(*activation));
        lines.flag("gated", *gated);
        lines.maybe("experts", experts.map(experts_value));
        lines.maybe("residual_multiplier", residual_multiplier.map(bits));
        lines.flag("final_norm", *final_norm);
        if let Some(unembedding) = unembedding {
            unembedding_lines(&mut lines, *unembedding);
        }
        layers.iter().for_each(|layer| lines.put("layer", layer_value(*layer)));
        lines.0
    }
}

/// The lines written so far.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn put(&mut self, name: &str, value: impl std::fmt::Display) {
        // writing to a String cannot fail
        let _ = writeln!(self.0, "{name}={value}");
    }

    fn maybe(&mut self, name: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn flag(&mut self, name: &str, set: bool) {
        if set {
            self.put(name, "yes");
        }
    }
}

/// The bits of a number.
fn bits(x: f32) -> String {
    format!("{:08x}", x.to_bits())
}

fn embedding_lines(lines: &mut Lines, embedding: &Embedding) {
    let Embedding { projected, scale, positions, token_types, norm } = embedding;
    lines.maybe("embedding.projected", *projected);
    lines.maybe("embedding.scale", scale.map(bits));
    if let Some(LearnedPositions { offset, padding }) = positions {
        lines.put("embedding.positions.offset", offset);
        lines.maybe("embedding.positions.padding", *padding);
    }
    lines.maybe("embedding.token_types", *token_types);
    lines.flag("embedding.norm", *norm);
}

fn unembedding_lines(lines: &mut Lines, unembedding: Unembedding) {
    let Unembedding { tied, transform, scale, softcap } = unembedding;
    lines.put("unembedding", if tied { "tied" } else { "own" });
    lines.maybe("unembedding.transform", transform.map(activation_value));
    lines.maybe("unembedding.scale", scale.map(bits));
    lines.maybe("unembedding.softcap", softcap.map(bits));
}

fn layer_value(layer: Layer) -> String {
    let Layer { rope, window, ln1, ln1_post, ln2, ln2_post, sparse } = layer;
    let mut words = Vec::new();
    words.extend(rope.map(|rope| format!("rope:{rope}")));
    words.extend(window.map(|window| format!("window:{window}")));
    let flags = [(ln1, "ln1"), (ln1_post, "ln1_post"), (ln2, "ln2"), (ln2_post, "ln2_post"), (sparse, "sparse")];
    words.extend(flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()));
    words.join(" ")
}

fn norm_value(norm: NormKind) -> String {
    match norm {
        NormKind::Rms { eps, gain_offset } => format!("rms eps:{} gain_offset:{}", bits(eps), bits(gain_offset)),
        NormKind::Layer { eps, gain, bias } => {
            let [gain, bias] = [(gain, " gain"), (bias, " bias")].map(|(set, name)| if set { name } else { "" });
            format!("layer eps:{}{gain}{bias}", bits(eps))
        }
    }
}

fn residual_value(residual: Residual) -> &'static str {
    match residual {
        Residual::Sequential => "sequential",
        Residual::Parallel => "parallel",
        Residual::PostNorm => "post_norm",
    }
}

fn rope_value(rope: &Rope) -> String {
    let list = |all: &[f32]| all.iter().map(|x| bits(*x)).collect::<Vec<_>>().join(",");
    let Rope { inv_freq, attention_factor, long } = rope;
    let mut text = format!("inv_freq:{} attention_factor:{}", list(inv_freq), bits(*attention_factor));
    if let Some(LongInputs { from, kind }) = long {
        text += &match kind {
            LongKind::Dynamic { base, factor, dim } => {
                format!(" from:{from} dynamic:{:016x},{:016x},{dim}", base.to_bits(), factor.to_bits())
            }
            LongKind::Fixed(inv_freq) => format!(" from:{from} fixed:{}", list(inv_freq)),
        };
    }
    text
}

fn qk_norm_value(norm: QkNorm) -> &'static str {
    match norm {
        QkNorm::PerHead => "per_head",
        QkNorm::AllHeads => "all_heads",
    }
}

fn alibi_value(alibi: Alibi) -> String {
    let Alibi { scale, bfloat16 } = alibi;
    format!("scale:{}{}", bits(scale), if bfloat16 { " bfloat16" } else { "" })
}

fn activation_value(activation: Activation) -> &'static str {
    match activation {
        Activation::Silu => "silu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_tanh",
        Activation::Relu => "relu",
        Activation::ReluSquared => "relu_squared",
        Activation::QuickGelu => "quick_gelu",
    }
}

fn experts_value(experts: Experts) -> String {
    let Experts { n_experts, top_k, d_expert, renormalise, d_shared } = experts;
    let renormalise = if renormalise { " renormalise" } else { "" };
    let shared = d_shared.map(|d| format!(" d_shared:{d}")).unwrap_or_default();
    format!("n_experts:{n_experts} top_k:{top_k} d_expert:{d_expert}{renormalise}{shared}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Size;

    fn small() -> Architecture {
        let size = Size {
            model_type: "llama".to_owned(),
            d_model: 8,
            n_heads: 2,
            n_kv_heads: 1,
            d_head: 4,
            d_mlp: 16,
            d_vocab: 10,
            n_ctx: 32,
            n_layers: 2,
        };
        Architecture {
            norm: NormKind::Rms { eps: 1e-5, gain_offset: 0.0 },
            activation: Activation::Silu,
            gated: true,
            unembedding: Some(Unembedding { tied: true, ..Unembedding::default() }),
            ..Architecture::plain(size)
        }
        .with_ropes(vec![Rope { inv_freq: vec![1.0, 0.01], attention_factor: 1.0, long: None }])
    }

    /// A change of this text gives every model another fingerprint, and no stored result is reused any more.
    #[test]
    fn the_description_of_a_model_stays_as_it_is() {
        let expected = "form=1\nmodel_type=llama\nd_model=8\nn_heads=2\nn_kv_heads=1\nd_head=4\nd_mlp=16\nd_vocab=10\nn_ctx=32\n\
            norm=rms eps:3727c5ac gain_offset:00000000\nresidual=sequential\n\
            rope=inv_freq:3f800000,3c23d70a attention_factor:3f800000\nattention_scale=3f000000\ncausal=yes\nactivation=silu\n\
            gated=yes\nfinal_norm=yes\nunembedding=tied\nlayer=rope:0 ln1 ln2\nlayer=rope:0 ln1 ln2\n";
        assert_eq!(small().describe(), expected);
    }

    #[test]
    fn whatever_changes_the_numbers_changes_the_description() {
        let base = small();
        let rope = |change: fn(&mut Rope)| {
            let mut changed = base.clone();
            change(&mut changed.ropes[0]);
            changed
        };
        let layer = |change: fn(&mut Layer)| {
            let mut changed = base.clone();
            change(&mut changed.layers[1]);
            changed
        };
        let experts = Experts { n_experts: 4, top_k: 2, d_expert: 8, renormalise: false, d_shared: None };
        let unembedding = Unembedding { tied: true, ..Unembedding::default() };
        let changed = [
            base.clone(),
            Architecture { d_mlp: 17, ..base.clone() },
            Architecture { rope_interleaved: true, ..base.clone() },
            Architecture { qk_norm: Some(QkNorm::PerHead), ..base.clone() },
            Architecture { qk_norm: Some(QkNorm::AllHeads), ..base.clone() },
            Architecture { qkv_clip: Some(8.0), ..base.clone() },
            Architecture { attention_scale: 0.25, ..base.clone() },
            Architecture { score_softcap: Some(50.0), ..base.clone() },
            Architecture { alibi: Some(Alibi { scale: 1.0, bfloat16: false }), ..base.clone() },
            Architecture { alibi: Some(Alibi { scale: 1.0, bfloat16: true }), ..base.clone() },
            Architecture { causal: false, ..base.clone() },
            Architecture { activation: Activation::Gelu, ..base.clone() },
            Architecture { gated: false, ..base.clone() },
            Architecture { experts: Some(experts), ..base.clone() },
            Architecture { experts: Some(Experts { renormalise: true, ..experts }), ..base.clone() },
            Architecture { experts: Some(Experts { d_shared: Some(8), ..experts }), ..base.clone() },
            Architecture { residual_multiplier: Some(0.5), ..base.clone() },
            Architecture { final_norm: false, ..base.clone() },
            Architecture { residual: Residual::Parallel, ..base.clone() },
            Architecture { norm: NormKind::Layer { eps: 1e-5, gain: true, bias: true }, ..base.clone() },
            Architecture { norm: NormKind::Layer { eps: 1e-5, gain: true, bias: false }, ..base.clone() },
            Architecture { norm: NormKind::Layer { eps: 1e-6, gain: true, bias: false }, ..base.clone() },
            Architecture { unembedding: None, ..base.clone() },
            Architecture { unembedding: Some(Unembedding { scale: Some(0.5), ..unembedding }), ..base.clone() },
            Architecture { unembedding: Some(Unembedding { softcap: Some(30.0), ..unembedding }), ..base.clone() },
            Architecture { embedding: Embedding { scale: Some(2.0), ..Embedding::default() }, ..base.clone() },
            Architecture { embedding: Embedding { norm: true, ..Embedding::default() }, ..base.clone() },
            rope(|r| r.inv_freq[1] = 0.02),
            rope(|r| r.attention_factor = 1.5),
            layer(|l| l.window = Some(4)),
            layer(|l| l.rope = None),
            layer(|l| l.ln2_post = true),
            layer(|l| l.sparse = true),
        ];
        let mut descriptions: Vec<String> = changed.iter().map(Architecture::describe).collect();
        descriptions.sort_unstable();
        descriptions.dedup();
        assert_eq!(descriptions.len(), changed.len());
    }
}
