//! `residuum keys`: making, listing and revoking API keys.

use std::path::Path;

use clap::{Args, Subcommand};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use serde_json::json;

use super::{DataDir, runtime};
use residuum_domain::{
    ApiKey, KeyId, KeyRecord, KeyState, NewKey, Scope,
    key::{key_name, tenant_name},
};
use residuum_store::{KeyStore, StoreError};

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key and print it; it is not shown again. Once a store has a key, the server requires keys.
    Create(Create),
    /// List keys, including revoked ones.
    List {
        #[command(flatten)]
        data: DataDir,
        /// Print one JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key permanently. The server still requires keys when no active one is left.
    Revoke {
        #[command(flatten)]
        data: DataDir,
        /// Id of the key: the 12 digits after `rsd_`.
        id: KeyId,
    },
    /// Delete all keys, if each is revoked or expired. From its next start the server requires none.
    Reopen(DataDir),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    #[command(flatten)]
    data: DataDir,
    /// Name of the key, for people.
    #[arg(long, value_parser = key_name)]
    name: String,
    /// What the key permits: read, write (includes read), metrics, admin (includes all); may be repeated.
    #[arg(long = "scope", value_name = "SCOPE", value_delimiter = ',', required = true)]
    scopes: Vec<Scope>,
    /// Tenant whose data the key gives access to; a new name makes a new tenant. What was made without keys belongs to
    /// the tenant default.
    #[arg(long, value_parser = tenant_name, default_value = "default")]
    tenant: String,
    /// When the key expires: after a span such as `90d` or `12h`, or at a date or a time such as 2027-01-31T12:00:00Z.
    /// By default never.
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    expires: Option<Timestamp>,
}

impl Keys {
    pub(super) fn run(self) -> Result<(), String> {
        match self {
            Self::Create(create) => create.run(),
            Self::List { data, json } => list(&data.data_dir, json),
            Self::Revoke { data, id } => revoke(&data.data_dir, id),
            Self::Reopen(data) => reopen(&data.data_dir),
        }
    }
}

/// Opens the keys of a data folder, which must have an index, and passes them to `work`.
fn with_keys<T>(data_dir: &Path, work: impl AsyncFnOnce(&mut KeyStore) -> Result<T, StoreError>) -> Result<T, String> {
    let done = runtime(1)?.block_on(async {
        let mut keys = KeyStore::open(data_dir).await?;
        let done = work(&mut keys).await;
        keys.close().await?;
        done
    });
    done.map_err(|e| e.to_string())
}

impl Create {
    fn run(self) -> Result<(), String> {
        let Self { data, name, mut scopes, tenant, expires } = self;
        scopes.sort_unstable();
        scopes.dedup();
        let key = ApiKey::generate().map_err(|e| format!("the system has no random numbers: {e}"))?;
        let new = NewKey { key, name, tenant, scopes, expires_at: expires };
        let record = runtime(1)?.block_on(async {
            let mut keys = KeyStore::open_or_make(&data.data_dir).await?;
            let record = keys.create(&new).await;
            keys.close().await?;
            record
        });
        let record = record.map_err(|e| e.to_string())?;
        // Only the key goes to standard output, for scripts.
        eprintln!("key {} `{}`: {}", record.id, record.name, description(&record));
        eprintln!("This is the only time it is shown:");
        println!("{}", new.key.reveal());
        Ok(())
    }
}

fn list(data_dir: &Path, as_json: bool) -> Result<(), String> {
    let keys = with_keys(data_dir, async |keys| keys.list().await)?;
    for key in &keys {
        if as_json {
            println!("{}", to_json(key));
        } else {
            let used = key.last_used_at.map_or_else(|| "never used".to_owned(), |at| format!("last used {at:.0}"));
            println!(
                "{} {:<8} `{}`: {}; made {:.0}, {used}",
                key.id,
                state(key),
                key.name,
                description(key),
                key.created_at
            );
        }
    }
    if keys.is_empty() && !as_json {
        println!("no keys: anyone who can reach the server can do everything");
    }
    Ok(())
}

fn revoke(data_dir: &Path, id: KeyId) -> Result<(), String> {
    let (before, left) = with_keys(data_dir, async |keys| {
        let before = keys.revoke(id).await?;
        let left = keys.list().await?.iter().filter(|k| k.state(Timestamp::now()) == KeyState::Active).count();
        Ok((before, left))
    })?;
    match before {
        None => return Err(format!("there is no key {id}; `residuum keys list` shows them")),
        Some(KeyRecord { revoked_at: Some(at), .. }) => println!("key {id} was already revoked, {at:.0}"),
        Some(_) => println!("key {id} is revoked; a running server refuses it within a second"),
    }
    if left == 0 {
        println!("No key is active: the server refuses all requests until you make one.");
    }
    Ok(())
}

fn reopen(data_dir: &Path) -> Result<(), String> {
    let active = with_keys(data_dir, async |keys| keys.forget_all().await)?;
    if let Some(key) = active.first() {
        return Err(format!("{} keys are active, such as {} `{}`: revoke them first", active.len(), key.id, key.name));
    }
    println!("all keys are deleted; a running server requires keys until it is restarted");
    Ok(())
}

fn description(key: &KeyRecord) -> String {
    let scopes: Vec<&str> = key.scopes.iter().map(|s| s.name()).collect();
    let end = key.expires_at.map_or_else(|| "never expires".to_owned(), |at| format!("expires {at:.0}"));
    format!("tenant {}, scope {}, {end}", key.tenant_name, scopes.join("+"))
}

fn state(key: &KeyRecord) -> &'static str {
    match key.state(Timestamp::now()) {
        KeyState::Active => "active",
        KeyState::Revoked => "revoked",
        KeyState::Expired => "expired",
    }
}

fn to_json(key: &KeyRecord) -> serde_json::Value {
    json!({
        "id": key.id.to_string(), "name": key.name, "tenant": key.tenant_name, "scopes": key.scopes, "state": state(key),
        "created_at": key.created_at, "last_used_at": key.last_used_at, "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    })
}

/// Parses a time, a date (00:00 UTC of that day) or a span from now.
fn expiry(text: &str) -> Result<Timestamp, String> {
    expiry_after(text, Timestamp::now())
}

fn expiry_after(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let date = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp());
    let span = || now.to_zoned(TimeZone::UTC).checked_add(text.parse::<Span>().ok()?).ok().map(|at| at.timestamp());
    let end = text.parse::<Timestamp>().ok().or_else(date).or_else(span);
    let end = end.ok_or("write a span such as 90d or 12h, a date, or a time such as 2027-01-31T12:00:00Z")?;
    if end > now { Ok(end) } else { Err(format!("{end:.0} is in the past")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_a_span_a_date_or_a_time() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let end = |text: &str| expiry_after(text, now).map(|at| at.to_string());
        assert_eq!(end("90d").as_deref(), Ok("2027-02-22T10:00:00Z"));
        assert_eq!(end("12h").as_deref(), Ok("2026-11-24T22:00:00Z"));
        assert_eq!(end("1y").as_deref(), Ok("2027-11-24T10:00:00Z"));
        assert_eq!(end("2027-01-31").as_deref(), Ok("2027-01-31T00:00:00Z"));
        assert_eq!(end("2027-01-31T12:00:00+02:00").as_deref(), Ok("2027-01-31T10:00:00Z"));
        for bad in ["2026-11-24T10:00:00Z", "2020-01-01", "-1d", "0s", "soon", "", "99999999y"] {
            assert!(end(bad).is_err(), "{bad}");
        }
    }
}
