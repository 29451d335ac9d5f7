//! Converts the body of a new direction to a question of the engine.

use serde_json::{Map, Value, json};

use super::new_direction_body::{NewDirection, Posted, TargetDto, Upload, UploadedVector};
use crate::api::dto::selector::CacheSelector;
use residuum_domain::{Code, Problem};
use residuum_engine::questions::directions::{
    Classes, DirectionQuestion, FitMethod, FitQuestion, GivenVector, GivenVectors, MadeOf, ProbeSettings, Target,
};

/// Maximum number of cache ids that provenance lists; of longer lists it has only the length.
const MAX_LISTED: usize = 1000;

impl Posted {
    /// Converts the body to a question.
    ///
    /// # Errors
    /// [`Code::InvalidBody`] unless the two classes are given in exactly one of the two forms, and `target` has exactly
    /// one criterion; errors of the selectors.
    pub fn question(self) -> Result<DirectionQuestion, Problem> {
        let selection = selection(&self.written);
        let fitted = |hook, layers, position, method| {
            MadeOf::Caches(Box::new(FitQuestion { hook, layers, position, method, selection }))
        };
        let (name, metadata) = self.request.annotations();
        let (name, metadata) = (name.to_owned(), metadata.clone());
        let made_of = match self.request {
            NewDirection::Upload(r) => MadeOf::Vectors(r.into()),
            NewDirection::DifferenceOfMeans(r) => {
                let classes = classes(r.positive, r.negative, r.caches, r.target)?;
                let method = FitMethod::DifferenceOfMeans { classes, normalize: r.normalize };
                fitted(r.hook, r.layers, r.position, method)
            }
            NewDirection::Pca(r) => {
                let method = FitMethod::Pca { caches: r.caches.selector("/caches")?, k: r.k, center: r.center };
                fitted(r.hook, r.layers, r.position, method)
            }
            NewDirection::Probe(r) => {
                let classes = classes(r.positive, r.negative, r.caches, r.target)?;
                let settings = ProbeSettings { c: r.c, folds: r.folds, seed: r.seed, shuffles: r.shuffles };
                fitted(r.hook, r.layers, r.position, FitMethod::Probe { classes, settings })
            }
        };
        Ok(DirectionQuestion { name, metadata, made_of })
    }
}

/// How the request selected caches, for provenance; of a long list of ids only the length.
fn selection(written: &Map<String, Value>) -> Map<String, Value> {
    let selected = ["positive", "negative", "caches", "target"].into_iter().filter_map(|key| {
        let value = written.get(key).filter(|v| !v.is_null())?;
        let long = value.as_array().filter(|ids| ids.len() > MAX_LISTED);
        Some((key.to_owned(), long.map_or_else(|| value.clone(), |ids| json!({"n_ids": ids.len()}))))
    });
    selected.collect()
}

impl From<Upload> for GivenVectors {
    fn from(upload: Upload) -> Self {
        let vectors = upload.vectors.into_iter().map(|v| {
            let UploadedVector { layer, component, values } = v;
            GivenVector { layer, component, values }
        });
        Self { model: upload.model, hook: upload.hook, vectors: vectors.collect() }
    }
}

/// The two classes, given in one of the two forms.
fn classes(
    positive: Option<CacheSelector>,
    negative: Option<CacheSelector>,
    caches: Option<CacheSelector>,
    target: Option<TargetDto>,
) -> Result<Classes, Problem> {
    match (positive, negative, caches, target) {
        (Some(positive), Some(negative), None, None) => {
            Ok(Classes::Apart { positive: positive.selector("/positive")?, negative: negative.selector("/negative")? })
        }
        (None, None, Some(caches), Some(target)) => {
            Ok(Classes::Together { caches: caches.selector("/caches")?, target: target.target()? })
        }
        _ => Err(Problem::new(Code::InvalidBody, "give positive and negative, or caches and target")),
    }
}

impl TargetDto {
    fn target(self) -> Result<Target, Problem> {
        if self.value.is_some() && self.metadata.is_none() {
            return Err(Problem::at(Code::InvalidBody, "/target/value", "value can only be used with metadata"));
        }
        match (self.metadata, self.tag, self.label) {
            (Some(key), None, None) => Ok(Target::Metadata { key, value: self.value }),
            (None, Some(tag), None) => Ok(Target::Tag(tag)),
            (None, None, Some(label)) => Ok(Target::Label(label)),
            _ => Err(Problem::at(Code::InvalidBody, "/target", "give exactly one of metadata, tag and label")),
        }
    }
}
