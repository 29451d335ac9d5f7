//! What was loaded while the server ran: models and autoencoders that the next start loads again.

use sqlx::sqlite::SqliteRow;

use crate::{
    error::StoreError,
    index::{SqliteIndex, rows::Fields, tx::Tx, write::Write},
};

/// A model or autoencoder that was loaded while the server ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServedRecord {
    /// A model.
    Model {
        /// The name that clients use.
        id: String,
        /// Where it is, as the client gave it.
        source: String,
    },
    /// A sparse autoencoder.
    Sae {
        /// The name that clients use.
        id: String,
        /// Name of its model.
        model: String,
        /// Where it is, as the client gave it; `None`: it was uploaded.
        source: Option<String>,
    },
}

const MODEL: &str = "model";
const SAE: &str = "sae";

impl ServedRecord {
    fn columns(&self) -> (&'static str, &str, Option<&str>, Option<&str>) {
        match self {
            Self::Model { id, source } => (MODEL, id, Some(source), None),
            Self::Sae { id, model, source } => (SAE, id, source.as_deref(), Some(model)),
        }
    }
}

impl SqliteIndex {
    /// Everything to be loaded at the start, in the order in which it was loaded.
    pub(crate) async fn served(&self) -> Result<Vec<ServedRecord>, StoreError> {
        let rows = self.rows(sqlx::query("SELECT kind, name, source, model FROM served ORDER BY id")).await?;
        rows.iter().map(decode).collect()
    }

    /// Notes something that is to be loaded at the next start, durably. Replaces what had its name.
    pub(crate) async fn keep_served(&self, record: ServedRecord) -> Result<(), StoreError> {
        self.write(Keep(record)).await
    }

    /// Forgets a model, durably.
    pub(crate) async fn forget_served_model(&self, id: String) -> Result<(), StoreError> {
        self.write(Forget { kind: MODEL, id }).await
    }

    /// Forgets an autoencoder, durably.
    pub(crate) async fn forget_served_sae(&self, id: String) -> Result<(), StoreError> {
        self.write(Forget { kind: SAE, id }).await
    }
}

fn decode(row: &SqliteRow) -> Result<ServedRecord, StoreError> {
    let f = Fields::of("served", row);
    let (kind, id): (&str, String) = (f.get("kind")?, f.get("name")?);
    if kind == MODEL {
        Ok(ServedRecord::Model { id, source: f.get("source")? })
    } else {
        Ok(ServedRecord::Sae { id, model: f.get("model")?, source: f.get("source")? })
    }
}

struct Keep(ServedRecord);

impl Write for Keep {
    type Output = ();

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let (kind, name, source, model) = self.0.columns();
        sqlx::query(
            "INSERT INTO served (kind, name, source, model) VALUES (?, ?, ?, ?) \
             ON CONFLICT (kind, name) DO UPDATE SET source = excluded.source, model = excluded.model",
        )
        .bind(kind)
        .bind(name)
        .bind(source)
        .bind(model)
        .execute(tx.conn().await?)
        .await?;
        Ok(())
    }
}

struct Forget {
    kind: &'static str,
    id: String,
}

impl Write for Forget {
    type Output = ();

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM served WHERE kind = ? AND name = ?")
            .bind(self.kind)
            .bind(&self.id)
            .execute(tx.conn().await?)
            .await?;
        Ok(())
    }
}
