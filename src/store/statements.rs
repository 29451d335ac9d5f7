//! Statements that insert many rows.

use sqlx::{QueryBuilder, Sqlite};

use super::{error::StoreError, writer::Tx};

/// A statement, and whether it is worth remembering: others will have as many rows.
pub(super) struct Insert {
    pub(super) query: QueryBuilder<Sqlite>,
    pub(super) repeats: bool,
}

/// Runs statements one after the other, each made while SQLite, which has a thread of its own, is busy with the one before.
///
/// # Errors
/// The first error of making or running one.
pub(super) async fn run(
    tx: &mut Tx<'_>,
    mut statements: impl Iterator<Item = Result<Insert, StoreError>>,
) -> Result<(), StoreError> {
    let mut next = statements.next().transpose()?;
    while let Some(Insert { mut query, repeats }) = next {
        let (done, made) = tokio::join!(
            biased;
            query.build().persistent(repeats).execute(&mut *tx.conn),
            async { statements.next().transpose() }
        );
        done?;
        next = made?;
    }
    Ok(())
}
