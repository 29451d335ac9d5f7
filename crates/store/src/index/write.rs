//! What a change of the index is, and what the writer has to know of it.

use crate::{error::StoreError, index::tx::Tx};

/// One change of the index.
pub(crate) trait Write: Send + 'static {
    /// What the caller gets after the commit.
    type Output: Send + 'static;

    /// Whether the commit must survive a power failure; one that need not still survives the end of the process.
    const DURABLE: bool = true;

    /// Whether anything is different afterwards.
    const CHANGES: bool = true;
    /// Whether the change makes room, or the start needs it: on a full disk it may use what is kept in reserve for that.
    const FREES: bool = false;
    /// Whether it may as well be done another time: on a full disk it is, so that others have what room is left.
    const OPTIONAL: bool = false;

    /// Whether the room that it makes is needed now: the files of what it deletes do not wait for readers.
    fn at_once(&self) -> bool {
        false
    }

    /// Applies the change. An error undoes all of it. It may be applied again, where another's error undid it.
    fn apply(&mut self, tx: &mut Tx<'_>) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;
}

/// Counts itself: whether the index can be written to.
pub(crate) struct Probe;

impl Write for Probe {
    type Output = ();

    const DURABLE: bool = false;
    const CHANGES: bool = false;

    async fn apply(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.later("UPDATE counts SET n = n + 1 WHERE what = 'probes'");
        Ok(())
    }
}
