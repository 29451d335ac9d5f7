//! Short names of caches, runs and models on the command line.

use serde_json::Value;

use super::{
    answers::{Model, Page, Run},
    call::{Call, segment},
    failure::{Failure, Outcome},
    server::{Client, read},
    visible::visible,
};

/// How far back `@N` reaches: one page of a listing.
const REACH: usize = 200;

/// How caches can be named, for `--help`.
pub(super) const CACHE_HELP: &str = "A CACHE is an id; @last or @1, the newest one; @2, the one before it, and so on;
or RUN/INDEX, an input of a run: @last/0 is the first input of the newest run.";

/// How runs can be named, for `--help`.
pub(super) const RUN_HELP: &str = "A RUN is an id; @last or @1, the newest one; @2, the one before it, and so on.";

/// The place that `@last` or `@N` names, from 0; `None` for an id.
fn place(text: &str) -> Outcome<Option<usize>> {
    let Some(word) = text.strip_prefix('@') else { return Ok(None) };
    match word {
        "last" => Ok(Some(0)),
        _ => match word.parse::<usize>() {
            Ok(n @ 1..=REACH) => Ok(Some(n - 1)),
            _ => Err(Failure::Usage(format!("{}: write @last, or @1 to @{REACH}", visible(text)))),
        },
    }
}

/// The id of the item at a place of a listing, the newest first.
fn id_at(client: &Client, path: &str, place: usize, noun: &str) -> Outcome<String> {
    let Page { items, .. } = client.json(&Call::get(path).query("limit", place + 1))?.read()?;
    let id = items.get(place).and_then(|item| item.get("id")).and_then(Value::as_str);
    let n = items.len();
    id.map(str::to_owned).ok_or_else(|| {
        let there = if n == 0 { format!("there is no {noun} yet") } else { format!("there are only {n} {noun}s") };
        Failure::NotFound(format!("@{}: {there}", place + 1))
    })
}

/// The id of a run that is named by its id, `@last` or `@N`.
///
/// # Errors
/// [`Failure::Usage`] for a malformed name, [`Failure::NotFound`] if there are fewer runs, and those of the request.
pub(super) fn run_id(client: &Client, name: &str) -> Outcome<String> {
    match place(name)? {
        Some(place) => id_at(client, "/v1/runs", place, "run"),
        None => Ok(name.to_owned()),
    }
}

/// The id of a cache that is named by its id, `@last`, `@N` or `RUN/INDEX`.
///
/// # Errors
/// As [`run_id`].
pub(super) fn cache_id(client: &Client, name: &str) -> Outcome<String> {
    if let Some((run, index)) = name.split_once('/') {
        let index: u64 = index
            .parse()
            .map_err(|_| Failure::Usage(format!("{}: after the slash stands the index of an input", visible(name))))?;
        return cache_of_run(client, &run_id(client, run)?, index);
    }
    match place(name)? {
        Some(place) => id_at(client, "/v1/caches", place, "cache"),
        None => Ok(name.to_owned()),
    }
}

/// The ids of several caches.
///
/// # Errors
/// As [`cache_id`].
pub(super) fn cache_ids(client: &Client, names: &[String]) -> Outcome<Vec<String>> {
    names.iter().map(|name| cache_id(client, name)).collect()
}

/// The cache of an input of a run.
fn cache_of_run(client: &Client, run: &str, index: u64) -> Outcome<String> {
    let path = format!("/v1/runs/{}", segment(run));
    let found: Run = client.json(&Call::get(&path))?.read()?;
    let missing = || {
        let inputs = super::units::plural(found.n_items, "input");
        Failure::NotFound(format!(
            "run {} has no cache of input {index}: it is {} and has {inputs}, counted from 0",
            visible(run),
            found.status
        ))
    };
    if index >= found.n_items {
        return Err(missing());
    }
    // the run lists its first hundred caches and leaves out what failed or was deleted; if it lists all, the place is the
    // index
    if let Some(id) = usize::try_from(index).ok().and_then(|i| found.caches.get(i))
        && found.caches.len() as u64 == found.n_items
    {
        return Ok(id.clone());
    }
    let mut id = None;
    client.pages(&Call::get(format!("{path}/caches")), usize::MAX, |cache| {
        if cache.get("item_index").and_then(Value::as_u64) == Some(index) {
            id = cache.get("id").and_then(Value::as_str).map(str::to_owned);
        }
        Ok(())
    })?;
    id.ok_or_else(missing)
}

/// The model that is meant: the one that is named, or else the only one that is served.
///
/// # Errors
/// [`Failure::Usage`] if none is named and not exactly one is ready, and those of the request.
pub(super) fn model_id(client: &Client, named: Option<&str>) -> Outcome<String> {
    if let Some(name) = named {
        return Ok(name.to_owned());
    }
    let Page { items, .. } = client.json(&Call::get("/v1/models"))?.read()?;
    let models: Vec<Model> = items.iter().map(read).collect::<Outcome<_>>()?;
    let ready: Vec<&str> = models.iter().filter(|m| m.status == "ready").map(|m| m.id.as_str()).collect();
    match (&ready[..], &models[..]) {
        ([one], _) => Ok((*one).to_owned()),
        ([], []) => Err(Failure::Usage("the server has no model: load one with `residuum models load`".to_owned())),
        ([], [first, ..]) => {
            Err(Failure::Usage(format!("no model is ready: {} is {}", visible(&first.id), visible(&first.status))))
        }
        _ => Err(Failure::Usage(format!(
            "the server has several models: choose one with -m: {}",
            visible(&ready.join(", "))
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_the_newest() {
        assert_eq!((place("@last").unwrap(), place("@1").unwrap(), place("@3").unwrap()), (Some(0), Some(0), Some(2)));
        assert_eq!(place("0198c5a0-5b3f-7d51-8a3e-0242ac120002").unwrap(), None);
        for bad in ["@", "@0", "@-1", "@first", "@201", "@99999999999999999999"] {
            assert_eq!(place(bad).unwrap_err().code(), 2, "{bad}");
        }
    }
}
