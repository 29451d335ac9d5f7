//! Interned values, which many rows share and which are stored once each: hook sets, layouts and provenances.
//!
//! The writer looks them up by digest or adds them, and remembers their ids until such rows are removed. Readers
//! remember them by id: the rows never change, and an id is never given out twice.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::{SqliteConnection, sqlite::SqliteRow};

use crate::{
    error::StoreError,
    index::{
        ids::Table,
        rows::{Fields, int, to_json},
        tx::Tx,
    },
};
use residuum_domain::{Hook, Provenance};

/// Entries of one kind that are remembered; at that number the memory is cleared.
const REMEMBERED: usize = 4096;

/// What the tensors of a pack look like, their lengths aside.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) hooks: Arc<[Hook]>,
    /// For each hook, the shape of one row.
    pub(crate) row_shapes: Vec<Vec<usize>>,
}

/// What produced the activations.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) provenance: Provenance,
    pub(crate) n_layers: usize,
    pub(crate) d_model: usize,
}

/// What the row of a cache refers to: what produced its activations, the layout of its pack, its hooks.
pub(crate) type Referred = (Arc<Origin>, Arc<Layout>, Arc<[Hook]>);

/// What readers remember.
#[derive(Default)]
pub(crate) struct Memo {
    hook_sets: Entries<Arc<[Hook]>>,
    layouts: Entries<Arc<Layout>>,
    origins: Entries<Arc<Origin>>,
}

struct Entries<T>(Mutex<HashMap<i64, T>>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Entries<T> {
    fn get(&self, id: i64) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn put(&self, id: i64, value: &T) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= REMEMBERED {
            entries.clear();
        }
        entries.insert(id, value.clone());
    }
}

impl Memo {
    /// What a cache refers to, where all of it is remembered.
    pub(crate) fn known(&self, origin: i64, layout: i64, hook_set: i64) -> Option<Referred> {
        Some((self.origins.get(origin)?, self.layouts.get(layout)?, self.hook_sets.get(hook_set)?))
    }

    /// The hooks of a set.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when there is no such set; [`StoreError::Database`].
    pub(crate) async fn hooks(&self, conn: &mut SqliteConnection, id: i64) -> Result<Arc<[Hook]>, StoreError> {
        if let Some(known) = self.hook_sets.get(id) {
            return Ok(known);
        }
        let row = sqlx::query("SELECT hooks FROM hook_sets WHERE id = ?").bind(id).fetch_optional(conn).await?;
        let hooks = Fields::of("hook_sets", &found("hook_sets", id, row)?).json("hooks")?;
        self.hook_sets.put(id, &hooks);
        Ok(hooks)
    }

    /// A layout.
    ///
    /// # Errors
    /// As [`Self::hooks`].
    pub(crate) async fn layout(&self, conn: &mut SqliteConnection, id: i64) -> Result<Arc<Layout>, StoreError> {
        if let Some(known) = self.layouts.get(id) {
            return Ok(known);
        }
        let row = sqlx::query("SELECT hook_set_id, row_shapes FROM layouts WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut *conn)
            .await?;
        let row = found("layouts", id, row)?;
        let fields = Fields::of("layouts", &row);
        let row_shapes: Vec<Vec<usize>> = fields.json("row_shapes")?;
        let hooks = self.hooks(conn, fields.get("hook_set_id")?).await?;
        if hooks.len() != row_shapes.len() {
            return Err(StoreError::damaged(format!(
                "table layouts, column row_shapes: row {id} does not match its hooks"
            )));
        }
        let layout = Arc::new(Layout { hooks, row_shapes });
        self.layouts.put(id, &layout);
        Ok(layout)
    }

    /// What produced the activations.
    ///
    /// # Errors
    /// As [`Self::hooks`].
    pub(crate) async fn origin(&self, conn: &mut SqliteConnection, id: i64) -> Result<Arc<Origin>, StoreError> {
        if let Some(known) = self.origins.get(id) {
            return Ok(known);
        }
        let row = sqlx::query("SELECT provenance, n_layers, d_model FROM provenances WHERE id = ?")
            .bind(id)
            .fetch_optional(conn)
            .await?;
        let row = found("provenances", id, row)?;
        let fields = Fields::of("provenances", &row);
        let origin = Arc::new(Origin {
            provenance: fields.json("provenance")?,
            n_layers: fields.uint("n_layers")?,
            d_model: fields.uint("d_model")?,
        });
        self.origins.put(id, &origin);
        Ok(origin)
    }
}

fn found(table: &str, id: i64, row: Option<SqliteRow>) -> Result<SqliteRow, StoreError> {
    row.ok_or_else(|| StoreError::damaged(format!("table {table}: row {id} is missing")))
}

/// The id of a value, if it has one: `query` asks for it by its digest.
async fn known(
    tx: &mut Tx<'_>,
    table: Table,
    query: &'static str,
    digest: &blake3::Hash,
) -> Result<Option<i64>, StoreError> {
    if let Some(id) = tx.ids.get(table, digest) {
        return Ok(Some(id));
    }
    let id = sqlx::query_scalar(query).bind(digest.as_bytes().as_slice()).fetch_optional(tx.conn().await?).await?;
    if let Some(id) = id {
        tx.ids.put(table, digest, id);
    }
    Ok(id)
}

/// Hook sets of one change, by value.
#[derive(Default)]
pub(crate) struct HookSets(Vec<(Arc<[Hook]>, i64)>);

impl HookSets {
    /// Id of a set of hooks, which is added if it is new.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn id(&mut self, tx: &mut Tx<'_>, hooks: &Arc<[Hook]>) -> Result<i64, StoreError> {
        if let Some((_, id)) = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, hooks) || known == hooks) {
            return Ok(*id);
        }
        let (json, digest) = hook_set(hooks)?;
        let known = known(tx, Table::HookSets, "SELECT id FROM hook_sets WHERE digest = ?", &digest).await?;
        let id = match known {
            Some(id) => id,
            None => add_hook_set(tx, &json, &digest).await?,
        };
        self.0.push((Arc::clone(hooks), id));
        Ok(id)
    }
}

/// A set of hooks as the index holds it, and the digest it is found by.
///
/// # Errors
/// As [`to_json`].
pub(crate) fn hook_set(hooks: &[Hook]) -> Result<(String, blake3::Hash), StoreError> {
    let json = to_json(hooks)?;
    let digest = blake3::hash(json.as_bytes());
    Ok((json, digest))
}

async fn add_hook_set(tx: &mut Tx<'_>, json: &str, digest: &blake3::Hash) -> Result<i64, StoreError> {
    let id = sqlx::query_scalar("INSERT INTO hook_sets (digest, hooks) VALUES (?, ?) RETURNING id")
        .bind(digest.as_bytes().as_slice())
        .bind(json)
        .fetch_one(tx.conn().await?)
        .await?;
    tx.later("INSERT INTO hook_set_hooks (hook_set_id, hook) SELECT ?, value FROM json_each(?)").bind(id).bind(json);
    tx.ids.put(Table::HookSets, digest, id);
    Ok(id)
}

/// Id of a layout, which is added if it is new.
///
/// # Errors
/// [`StoreError::Database`].
pub(crate) async fn layout_id(tx: &mut Tx<'_>, hook_set_id: i64, row_shapes: &[Vec<usize>]) -> Result<i64, StoreError> {
    let json = to_json(row_shapes)?;
    let digest = blake3::hash(format!("{hook_set_id} {json}").as_bytes());
    if let Some(id) = known(tx, Table::Layouts, "SELECT id FROM layouts WHERE digest = ?", &digest).await? {
        return Ok(id);
    }
    let id = sqlx::query_scalar("INSERT INTO layouts (digest, hook_set_id, row_shapes) VALUES (?, ?, ?) RETURNING id")
        .bind(digest.as_bytes().as_slice())
        .bind(hook_set_id)
        .bind(json)
        .fetch_one(tx.conn().await?)
        .await?;
    tx.ids.put(Table::Layouts, &digest, id);
    Ok(id)
}

/// Id of what produced activations, which is added if it is new.
///
/// # Errors
/// [`StoreError::Database`].
pub(crate) async fn provenance_id(
    tx: &mut Tx<'_>,
    provenance: &Provenance,
    n_layers: usize,
    d_model: usize,
) -> Result<i64, StoreError> {
    let json = to_json(provenance)?;
    let digest = blake3::hash(format!("{n_layers} {d_model} {json}").as_bytes());
    if let Some(id) = known(tx, Table::Provenances, "SELECT id FROM provenances WHERE digest = ?", &digest).await? {
        return Ok(id);
    }
    let insert = "INSERT INTO provenances (digest, provenance, n_layers, d_model) VALUES (?, ?, ?, ?) RETURNING id";
    let id = sqlx::query_scalar(insert)
        .bind(digest.as_bytes().as_slice())
        .bind(json)
        .bind(int(n_layers)?)
        .bind(int(d_model)?)
        .fetch_one(tx.conn().await?)
        .await?;
    tx.ids.put(Table::Provenances, &digest, id);
    Ok(id)
}
