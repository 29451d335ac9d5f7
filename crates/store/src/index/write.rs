//! What a change of the index is, and what the writer has to know of it.

use crate::{error::StoreError, index::tx::Tx};

/// One change of the index.
pub(crate) trait Write: Send + 'static {
    /// What the caller gets after the commit.
    type Output: Send + 'static;

    /// Whether the commit must survive a power failure; one that need not still survives the end of the process.
    const DURABLE: bool = true;

    /// Whether the change can alter what queries find.
    const CHANGES: bool = true;
    /// Whether the change frees space, or the start needs it: on a full disk it may use the reserve.
    const FREES: bool = false;
    /// Whether the change can be put off: on a full disk it is refused, so that others get what space is left.
    const OPTIONAL: bool = false;

    /// Whether the space that it frees is needed now: then the files of what it deletes do not wait for readers.
    fn at_once(&self) -> bool {
        false
    }

    /// Applies the change. An error rolls all of it back. It may be applied again, if the error of another change rolled it back.
    fn apply(&mut self, tx: &mut Tx<'_>) -> impl Future<Output = Result<Self::Output, StoreError>> + Send;
}

/// Counts itself, to find out whether the index can be written.
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
