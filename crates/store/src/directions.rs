//! Directions: storing, finding, renaming and deleting them. Their vectors are small and live in the index, not in
//! blobs.

use serde_json::{Map, Value};
use sqlx::{QueryBuilder, Sqlite, sqlite::SqliteRow};

use crate::{
    error::StoreError,
    index::{
        SqliteIndex, checksum,
        json::merge,
        rows::{Fields, int, push_limit, to_json},
        tx::Tx,
        write::Write,
    },
};
use residuum_domain::{Direction, DirectionId, DirectionInfo, DirectionMethod, DirectionVector, Dtype, Site, TenantId};

/// Rows inserted by one statement: five binds each.
const ROWS_A_STATEMENT: usize = 1000;

const COLUMNS: &str =
    "id, tenant_id, name, method, model, hook, layers, n_components, d, metadata, provenance, created_at";

impl SqliteIndex {
    /// Keeps a direction, durably. Says whether its name was free; if not, nothing changes.
    pub(crate) async fn insert_direction(&self, direction: Direction) -> Result<bool, StoreError> {
        self.write(InsertDirection(direction)).await
    }

    /// One direction of a tenant with its vectors, by id or name.
    pub(crate) async fn direction(&self, tenant: TenantId, id_or_name: &str) -> Result<Option<Direction>, StoreError> {
        // one snapshot, so that a direction is never seen without its vectors
        let mut reader = self.reader().await?;
        let mut snapshot = reader.snapshot().await?;
        let Some(row) = one("", tenant, id_or_name).build().fetch_optional(&mut *snapshot).await? else {
            return Ok(None);
        };
        let info = decode(&row)?;
        let rows = vectors("", info.id).build().fetch_all(&mut *snapshot).await?;
        drop(snapshot);
        reader.done();
        let vectors = rows.iter().map(decode_vector).collect::<Result<Vec<_>, _>>()?;
        if let Some(odd) = vectors.iter().find(|v| v.values.len() != info.d) {
            let what = format!("direction {} has a vector of {} values, not {}", info.id, odd.values.len(), info.d);
            return Err(StoreError::damaged(what));
        }
        Ok(Some(Direction { info, vectors }))
    }

    /// What a direction of a tenant is, by id or name.
    pub(crate) async fn direction_info(
        &self,
        tenant: TenantId,
        id_or_name: &str,
    ) -> Result<Option<DirectionInfo>, StoreError> {
        self.row(one("", tenant, id_or_name).build()).await?.as_ref().map(decode).transpose()
    }

    /// Directions of a tenant, newest first, those older than `before` where it is given.
    pub(crate) async fn directions(
        &self,
        tenant: TenantId,
        before: Option<DirectionId>,
        limit: u32,
    ) -> Result<Vec<DirectionInfo>, StoreError> {
        self.rows(listing("", tenant, before, limit).build()).await?.iter().map(decode).collect()
    }

    /// Merges `metadata` into a direction's as RFC 7396 has it, and says whether there is such a direction.
    pub(crate) async fn patch_direction(
        &self,
        tenant: TenantId,
        id: DirectionId,
        metadata: Map<String, Value>,
    ) -> Result<bool, StoreError> {
        self.write(PatchDirection { tenant, id, metadata }).await
    }

    /// Deletes a direction. Says whether there was one.
    pub(crate) async fn delete_direction(&self, tenant: TenantId, id: DirectionId) -> Result<bool, StoreError> {
        self.write(DeleteDirection { tenant, id }).await
    }
}

/// The statement for one direction, with `prefix` before it. A name never has the form of an id.
pub(crate) fn one(prefix: &str, tenant: TenantId, id_or_name: &str) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(prefix);
    query.push("SELECT ").push(COLUMNS).push(" FROM directions WHERE ");
    match id_or_name.parse::<DirectionId>() {
        Ok(id) => query.push("id = ").push_bind(id.as_bytes().to_vec()).push(" AND +tenant_id = ").push_bind(tenant.0),
        Err(_) => query.push("tenant_id = ").push_bind(tenant.0).push(" AND name = ").push_bind(id_or_name.to_owned()),
    };
    query
}

/// The statement for a direction's vectors, with `prefix` before it.
pub(crate) fn vectors(prefix: &str, id: DirectionId) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(prefix);
    query.push("SELECT layer, component, vector, metrics FROM direction_vectors WHERE direction_id = ");
    query.push_bind(id.as_bytes().to_vec()).push(" ORDER BY layer, component");
    query
}

/// The statement of a listing, with `prefix` before it.
pub(crate) fn listing(prefix: &str, tenant: TenantId, before: Option<DirectionId>, limit: u32) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(prefix);
    query.push("SELECT ").push(COLUMNS).push(" FROM directions WHERE tenant_id = ").push_bind(tenant.0);
    if let Some(before) = before {
        query.push(" AND id < ").push_bind(before.as_bytes().to_vec());
    }
    query.push(" ORDER BY id DESC");
    push_limit(&mut query, i64::from(limit));
    query
}

fn decode(row: &SqliteRow) -> Result<DirectionInfo, StoreError> {
    let f = Fields::of("directions", row);
    Ok(DirectionInfo {
        id: f.read("id", DirectionId::from_slice)?,
        tenant: TenantId(f.get("tenant_id")?),
        name: f.get("name")?,
        method: f.read("method", DirectionMethod::by_name)?,
        model: f.get("model")?,
        site: f.read("hook", Site::by_short_name)?,
        layers: f.json("layers")?,
        n_components: f.uint("n_components")?,
        d: f.uint("d")?,
        metadata: f.json("metadata")?,
        provenance: f.json("provenance")?,
        created_at: f.time("created_at")?,
    })
}

fn decode_vector(row: &SqliteRow) -> Result<DirectionVector, StoreError> {
    let f = Fields::of("direction_vectors", row);
    let layer: i64 = f.get("layer")?;
    let bytes: &[u8] = f.get("vector")?;
    Ok(DirectionVector {
        layer: usize::try_from(layer).ok(),
        component: f.uint("component")?,
        values: Dtype::Float32.decode(bytes),
        metrics: f.json("metrics")?,
    })
}

struct InsertDirection(Direction);

impl Write for InsertDirection {
    type Output = bool;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let Direction { info, vectors } = &self.0;
        let done = sqlx::query(
            "INSERT INTO directions (id, tenant_id, name, method, model, hook, layers, n_components, d, metadata, \
                 provenance, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (tenant_id, name) DO NOTHING",
        )
        .bind(info.id.as_bytes().as_slice())
        .bind(info.tenant.0)
        .bind(&info.name)
        .bind(info.method.name())
        .bind(&info.model)
        .bind(info.site.name())
        .bind(to_json(&info.layers)?)
        .bind(int(info.n_components)?)
        .bind(int(info.d)?)
        .bind(to_json(&info.metadata)?)
        .bind(to_json(&info.provenance)?)
        .bind(info.created_at.as_microsecond())
        .execute(tx.conn().await?)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let insert = "INSERT INTO direction_vectors (direction_id, layer, component, vector, metrics)";
        tx.insert(insert, vectors, ROWS_A_STATEMENT, |script, v| {
            let mut bytes = Vec::with_capacity(v.values.len() * 4);
            Dtype::Float32.encode(&v.values, &mut bytes);
            script.bind(info.id.as_bytes().as_slice()).bind(v.layer.map_or(Ok(-1), int)?).bind(int(v.component)?);
            script.bind(bytes).bind(to_json(&v.metrics)?);
            Ok(())
        })
        .await?;
        checksum::renew_direction(tx, &info.id).await?;
        Ok(true)
    }
}

struct PatchDirection {
    tenant: TenantId,
    id: DirectionId,
    metadata: Map<String, Value>,
}

impl Write for PatchDirection {
    type Output = bool;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT metadata FROM directions WHERE id = ? AND +tenant_id = ?")
            .bind(self.id.as_bytes().as_slice())
            .bind(self.tenant.0)
            .fetch_optional(tx.conn().await?)
            .await?;
        let Some(row) = row else { return Ok(false) };
        let mut metadata: Map<String, Value> = Fields::of("directions", &row).json("metadata")?;
        merge(&mut metadata, &self.metadata);
        sqlx::query("UPDATE directions SET metadata = ? WHERE id = ?")
            .bind(to_json(&metadata)?)
            .bind(self.id.as_bytes().as_slice())
            .execute(tx.conn().await?)
            .await?;
        checksum::renew_direction(tx, &self.id).await?;
        Ok(true)
    }
}

struct DeleteDirection {
    tenant: TenantId,
    id: DirectionId,
}

impl Write for DeleteDirection {
    type Output = bool;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM directions WHERE id = ? AND +tenant_id = ?")
            .bind(self.id.as_bytes().as_slice())
            .bind(self.tenant.0)
            .execute(tx.conn().await?)
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
