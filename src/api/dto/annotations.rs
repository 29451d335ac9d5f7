//! Bounds of tags, labels and metadata.

use serde_json::{Map, Value};

use residuum_domain::{Code, Problem};

// Bounds on annotations, because the index stores all of them.
const MAX_TAGS: usize = 64;
const MAX_TAG_CHARS: usize = 128;
const MAX_LABEL_CHARS: usize = 512;
const MAX_METADATA_BYTES: usize = 64 << 10;

/// Checks tags, label and metadata of a run, an item or a patch.
///
/// # Errors
/// [`Code::InvalidValue`] with a pointer to the field that is too large.
pub fn check_annotations(tags: &[String], label: Option<&str>, metadata: &Map<String, Value>) -> Result<(), Problem> {
    if tags.len() > MAX_TAGS {
        return Err(Problem::at(
            Code::InvalidValue,
            "/tags",
            format!("{} tags are too many; {MAX_TAGS} are allowed", tags.len()),
        ));
    }
    if let Some(i) = tags.iter().position(|t| t.is_empty() || t.chars().count() > MAX_TAG_CHARS) {
        return Err(Problem::at(
            Code::InvalidValue,
            format!("/tags/{i}"),
            format!("a tag has 1 to {MAX_TAG_CHARS} characters"),
        ));
    }
    if label.is_some_and(|l| l.is_empty() || l.chars().count() > MAX_LABEL_CHARS) {
        return Err(Problem::at(
            Code::InvalidValue,
            "/label",
            format!("a label has 1 to {MAX_LABEL_CHARS} characters"),
        ));
    }
    let bytes = serde_json::to_vec(metadata).map_or(usize::MAX, |v| v.len());
    if bytes > MAX_METADATA_BYTES {
        return Err(Problem::at(
            Code::InvalidValue,
            "/metadata",
            format!("metadata takes {bytes} bytes; {MAX_METADATA_BYTES} are allowed"),
        ));
    }
    Ok(())
}
