//! Conditions on caches, as options.

use clap::Args;
use serde_json::{Map, Value, json};

use super::{call::Call, failure::Outcome, references::run_id, server::Client, values::pair};

/// Conditions on caches. A cache must meet all of them.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which caches")]
pub(super) struct CacheFilterArgs {
    /// Name of the model.
    #[arg(short, long)]
    model: Option<String>,
    /// Made by this run.
    #[arg(long)]
    run: Option<String>,
    /// Has this tag; may be repeated: has all of them.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Has this label.
    #[arg(long)]
    label: Option<String>,
    /// The text, or what was generated after it, contains these words and "quoted phrases".
    #[arg(long)]
    text: Option<String>,
    /// Has this value in its metadata; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, Value)>,
    /// Is pinned, or is not.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pinned: Option<bool>,
    /// Stored at or after this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Stored before this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

impl CacheFilterArgs {
    /// Whether there is any condition.
    pub(super) const fn is_given(&self) -> bool {
        let Self { model, run, tags, label, text, metadata, pinned, from, to } = self;
        let single = model.is_some() || run.is_some() || label.is_some() || text.is_some();
        single || !tags.is_empty() || !metadata.is_empty() || pinned.is_some() || from.is_some() || to.is_some()
    }

    /// The same conditions with the id of the run in place of its short name.
    ///
    /// # Errors
    /// Those of looking it up.
    pub(super) fn resolved(&self, client: &Client) -> Outcome<Self> {
        let run = self.run.as_deref().map(|run| run_id(client, run)).transpose()?;
        Ok(Self { run, ..self.clone() })
    }

    /// Adds the conditions to the query of a request.
    pub(super) fn query<'a>(&self, mut call: Call<'a>, names: &'a [String]) -> Call<'a> {
        call = call
            .maybe("model", self.model.as_ref())
            .maybe("run", self.run.as_ref())
            .each("tag", &self.tags)
            .maybe("label", self.label.as_ref())
            .maybe("text", self.text.as_ref())
            .maybe("pinned", self.pinned)
            .maybe("created_from", self.from.as_ref())
            .maybe("created_to", self.to.as_ref());
        self.metadata.iter().zip(names).fold(call, |call, ((_, value), name)| {
            call.query(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
    }

    /// Names of the query parameters of `metadata`.
    pub(super) fn metadata_names(&self) -> Vec<String> {
        self.metadata.iter().map(|(key, _)| format!("metadata.{key}")).collect()
    }

    /// The conditions as an object of a body.
    pub(super) fn body(&self) -> Map<String, Value> {
        let given = [
            ("model", self.model.as_ref().map(|v| json!(v))),
            ("run", self.run.as_ref().map(|v| json!(v))),
            ("tags", (!self.tags.is_empty()).then(|| json!(self.tags))),
            ("label", self.label.as_ref().map(|v| json!(v))),
            ("text", self.text.as_ref().map(|v| json!(v))),
            ("metadata", (!self.metadata.is_empty()).then(|| super::values::object(&self.metadata).into())),
            ("pinned", self.pinned.map(|v| json!(v))),
            ("created_from", self.from.as_ref().map(|v| json!(v))),
            ("created_to", self.to.as_ref().map(|v| json!(v))),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}
