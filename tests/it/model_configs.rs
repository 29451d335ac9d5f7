//! Configurations with keys left out, spelled differently or added: Residuum computes transformers' numbers, or
//! refuses.

use std::{fs, path::Path};

use rayon::prelude::*;
use residuum::{
    domain::{Hook, Site},
    model::{LoadOptions, Model},
};
use serde_json::{Map, Value};

use crate::model_support::{all_rows, capture, goldens};

/// Allowed deviation, in units of the root mean square of the unchanged checkpoint's numbers.
const TOLERANCE: f32 = 1e-4;

/// Options that transformers supports and Residuum refuses by name.
const REFUSED: &[&str] = &[
    "is_causal",
    "attention_chunk_size",
    "per_layer_config",
    "layer_types",
    "sliding_window",
    "use_bidirectional_attention",
    "position_embedding_type",
    "qk_layernorm",
    "scale_attn_weights",
    "is_decoder",
    "head_dim",
    "num_attention_heads",
    "use_sliding_window",
];

/// Whether transformers refuses a configuration for a reason that has nothing to do with its numbers.
fn is_refused_for_another_reason(case: &str, row: &Value) -> bool {
    let family = case.split('/').next().unwrap_or_default();
    let drops = |key: &str| row[0].as_array().unwrap().iter().any(|k| k == key);
    let sets = |key: &str| row[1].as_object().unwrap().contains_key(key);
    // The default token id is outside the tiny vocabulary.
    drops("pad_token_id")
        // Rope parameters are validated even in a model without rope.
        || (sets("rope_scaling") && row.get(3).is_none() && ROPELESS.contains(&family))
        // The default includes a full-size vision tower.
        || drops("vision_config")
        // Scaled rope is computed with a head dimension of None.
        || (sets("rope_scaling") && family == "mixtral")
}

/// Families without rotary positions. A multimodal Gemma 3 has them in its text part.
const ROPELESS: &[&str] = &["bert", "bloom", "distilbert", "gemma3", "gpt2", "gpt_neo", "gptj", "opt", "roberta"];

struct Sweep {
    ids: Vec<u32>,
    shown: Vec<usize>,
}

/// The checkpoint's numbers at the last token: logits, or the last hidden state.
fn last_row(folder: &Path, ids: &[u32]) -> Result<Vec<f32>, String> {
    let options = LoadOptions { offline: true, ..LoadOptions::default() };
    let model = Model::load("x", folder.to_str().unwrap(), &options).map_err(|e| e.to_string())?;
    let info = model.info();
    let candidates =
        [Hook::global(Site::Logits), Hook::global(Site::FinalNorm), Hook::block(Site::ResidPost, info.n_layers - 1)];
    let hook = candidates.into_iter().find(|hook| info.has(*hook)).unwrap();
    let collected = capture(&model, &[hook], &[(ids, all_rows(ids.len()))]).map_err(|e| e.to_string())?;
    let rows = collected.item(hook, 0);
    Ok(rows[rows.len() - rows.len() / ids.len()..].to_vec())
}

/// A folder with the changed configuration and links to the other files of the checkpoint.
fn changed(case: &str, row: &Value) -> tempfile::TempDir {
    let (from, to) = (goldens().join(case), tempfile::tempdir().unwrap());
    for file in fs::read_dir(&from).unwrap() {
        let name = file.unwrap().file_name();
        if name != "config.json" {
            std::os::unix::fs::symlink(from.join(&name), to.path().join(&name)).unwrap();
        }
    }
    let mut config: Value = serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    let part: &mut Map<String, Value> = match row.get(3) {
        Some(inside) => config[inside.as_str().unwrap()].as_object_mut().unwrap(),
        None => config.as_object_mut().unwrap(),
    };
    row[0].as_array().unwrap().iter().for_each(|key| drop(part.shift_remove(key.as_str().unwrap())));
    part.extend(row[1].as_object().unwrap().clone());
    fs::write(to.path().join("config.json"), config.to_string()).unwrap();
    to
}

/// What is wrong with our reading of one changed configuration; `None` if nothing is.
fn fault(case: &str, row: &Value, sweep: &Sweep, base: &[f32]) -> Option<String> {
    let folder = changed(case, row);
    let expected = &row[2];
    match (last_row(folder.path(), &sweep.ids), expected) {
        (Err(_), Value::String(s)) if s == "refused" => None,
        (Err(reason), _) if reason.contains("the model takes 1 to") => None,
        (Err(reason), _) => {
            let added = row[1].as_object().unwrap();
            let rightly = REFUSED.iter().any(|key| added.contains_key(*key) && reason.contains(&format!("{key}`")));
            let reason = reason.rsplit(": ").next().unwrap_or_default();
            (!rightly).then(|| format!("is refused ({reason}), transformers computes {expected}"))
        }
        (Ok(_), Value::String(s)) if s == "refused" => {
            (!is_refused_for_another_reason(case, row)).then(|| "is computed, transformers refuses it".to_owned())
        }
        (Ok(got), expected) => {
            let pick = |values: &[f32]| sweep.shown.iter().map(|i| values[i % values.len()]).collect::<Vec<f32>>();
            let base = pick(base);
            #[expect(clippy::cast_possible_truncation, reason = "these are float32 numbers")]
            let wanted = expected.as_array().map_or_else(
                || base.clone(),
                |all| all.iter().map(|v| v.as_f64().unwrap() as f32).collect::<Vec<f32>>(),
            );
            #[expect(clippy::cast_precision_loss, reason = "eight numbers")]
            let rms = (base.iter().map(|v| v * v).sum::<f32>() / base.len() as f32).sqrt();
            let worst = pick(&got).iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max);
            (worst > TOLERANCE * rms || worst.is_nan())
                .then(|| format!("differs by {:.1e} of the root mean square", worst / rms))
        }
    }
}

#[test]
fn every_key_has_the_meaning_of_the_reference() {
    let file: Value = serde_json::from_slice(&fs::read(goldens().join("config_sweep.json")).unwrap()).unwrap();
    let numbers = |key: &str| file[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect::<Vec<u64>>();
    let sweep = Sweep {
        ids: numbers("ids").into_iter().map(|id| u32::try_from(id).unwrap()).collect(),
        shown: numbers("shown").into_iter().map(|i| usize::try_from(i).unwrap()).collect(),
    };
    let mut faults = Vec::new();
    for (case, rows) in file["cases"].as_object().unwrap() {
        let base = last_row(&goldens().join(case), &sweep.ids).unwrap();
        let found: Vec<String> = rows
            .as_array()
            .unwrap()
            .par_iter()
            .filter_map(|row| {
                fault(case, row, &sweep, &base).map(|fault| {
                    let inside = row.get(3).map_or_else(String::new, |i| format!(" in {i}"));
                    format!("{case}{inside}: without {}, with {}: {fault}", row[0], row[1])
                })
            })
            .collect();
        faults.extend(found);
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
