//! Verification: every byte is read and hashed again, and every row is compared with what it refers to.
//!
//! The terms of a cache cannot be read back from the full-text index: only its structure is checked, and that it has
//! every cache.

mod checksums;
mod contradictions;
mod pack_files;

use std::{collections::HashSet, fmt, sync::Arc};

use serde::Serialize;

use crate::{
    blobs::{LocalBlobs, is_unfinished},
    blocking::blocking,
    error::StoreError,
    index::SqliteIndex,
    upkeep::orphans::Orphans,
};
pub(crate) use contradictions::{integrity_check, is_structural};
pub(crate) use pack_files::PackFaults;
use residuum_domain::{CacheId, PackId};

/// Noted when a damaged index ends the check.
const UNCHECKED: &str = "the index is damaged: the rest was not checked (--rebuild-index makes a new one)";

/// What [`crate::Store::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VerifyReport {
    /// Packs read.
    pub n_packs: u64,
    /// Extents hashed.
    pub n_extents: u64,
    /// Caches compared with them.
    pub n_caches: u64,
    /// Bytes of the packs.
    pub n_bytes: u64,
    /// What is wrong, in the order found.
    pub issues: Vec<Issue>,
    /// What is there and is no damage, such as unfinished work that a kill left.
    pub notes: Vec<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// The pack concerned; `None`: the index itself, or a file that is no pack.
    pub pack: Option<String>,
    /// What is wrong with it.
    pub detail: String,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.issues.is_empty()
    }

    fn report(&mut self, pack: Option<PackId>, detail: impl Into<String>) {
        self.issues.push(Issue { pack: pack.map(|p| p.to_string()), detail: detail.into() });
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for issue in &self.issues {
            match &issue.pack {
                Some(pack) => writeln!(f, "pack {pack}: {}", issue.detail)?,
                None => writeln!(f, "index: {}", issue.detail)?,
            }
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let Self { n_packs, n_extents, n_caches, n_bytes, issues, .. } = self;
        write!(
            f,
            "{n_packs} packs, {n_extents} extents, {n_caches} caches, {n_bytes} bytes read: {} issues",
            issues.len()
        )
    }
}

/// Checks a store.
#[derive(Clone, Copy)]
pub(crate) struct Verifier<'a> {
    pub(crate) index: &'a SqliteIndex,
    pub(crate) blobs: &'a Arc<LocalBlobs>,
}

impl Verifier<'_> {
    /// Checks the index and what its rows say of each other, every pack's file, size and header, the hash of every extent,
    /// every cache against header and extent, and that no file is unknown.
    ///
    /// Works beside a running server; what is written, moved or deleted meanwhile is not reported, and unknown files only by
    /// the server itself or when there is none.
    pub(crate) async fn verify(&self) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        match self.check(&mut report).await {
            Ok(()) => {}
            // a walk came to rows that are out of order or make no sense
            Err(StoreError::IndexDamaged(what) | StoreError::Damaged { what }) => {
                report.report(None, what);
                report.notes.push(UNCHECKED.to_owned());
            }
            Err(other) => return Err(other),
        }
        Ok(report)
    }

    async fn check(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        if !self.verify_index(report).await? {
            // a query on such an index may not end
            report.notes.push(UNCHECKED.to_owned());
            return Ok(());
        }
        let alone = self.index.is_writable() || !self.blobs.has_writer();
        let files = if alone { self.orphans().unknown_files().await? } else { Vec::new() };
        let mut last: Option<PackId> = None;
        loop {
            let page = self.index.packs_after(last).await?;
            let Some(end) = page.last() else { break };
            last = Some(end.id);
            for pack in page {
                self.verify_pack(pack, report).await?;
            }
        }
        if alone {
            self.verify_files(&files, report).await?;
        }
        Ok(())
    }

    /// Checks what the index says; whether it can be read any further.
    async fn verify_index(&self, report: &mut VerifyReport) -> Result<bool, StoreError> {
        let found = self.index.integrity().await?;
        let broken = found.iter().any(|line| is_structural(line));
        for line in found {
            report.report(None, line);
        }
        if broken {
            return Ok(false);
        }
        for (what, n) in self.index.contradictions().await? {
            report.report(None, format!("{what} ({n} rows)"));
        }
        for wrong in self.index.wrong_checksums().await? {
            report.report(None, wrong);
        }
        for (cache, why) in self.unreadable_caches(&mut report.n_caches).await? {
            report.report(None, format!("cache {cache}: {why}"));
        }
        Ok(true)
    }

    async fn verify_pack(&self, pack: pack_files::PackRow, report: &mut VerifyReport) -> Result<(), StoreError> {
        let (id, n_extents, n_bytes) = (pack.id, pack.extents.len() as u64, pack.n_bytes);
        let faults = self.pack_faults(pack).await?;
        // what was deleted or moved since the rows were read is no issue
        if !faults.is_empty() && !self.index.has_pack(id).await? {
            return Ok(());
        }
        report.n_packs += 1;
        report.n_extents += n_extents;
        report.n_bytes += n_bytes;
        for detail in faults.issues {
            report.report(Some(id), detail);
        }
        Ok(())
    }

    /// What is wrong with the file of a pack.
    ///
    /// # Errors
    /// Failures to read; damage is a finding.
    pub(crate) async fn pack_faults(&self, pack: pack_files::PackRow) -> Result<PackFaults, StoreError> {
        let blobs = Arc::clone(self.blobs);
        blocking(move || pack.check(&blobs)).await
    }

    fn orphans(&self) -> Orphans<'_> {
        Orphans { index: self.index, blobs: self.blobs }
    }

    /// Reports those of the unknown files that are still there and still unknown, and files that are no packs. What a kill
    /// leaves is noted, and no issue.
    async fn verify_files(&self, files: &[(PackId, u64)], report: &mut VerifyReport) -> Result<(), StoreError> {
        let retired: HashSet<PackId> = self.blobs.epochs().retired().into_iter().collect();
        let mut left = Vec::new();
        for (pack, n_bytes) in files {
            if self.blobs.file(*pack).is_ok() && !retired.contains(pack) && !self.index.has_pack(*pack).await? {
                left.push((*pack, *n_bytes));
            }
        }
        let unknown = self.orphans().sort_unknown(&left, false).await?;
        for (pack, _) in unknown.garbage {
            report
                .notes
                .push(format!("pack {pack} is unfinished or superfluous work, which the next start or gc removes"));
        }
        for pack in unknown.data {
            let what = "the index does not know this blob, which is whole: --rebuild-index takes it in";
            report.report(Some(pack), what);
        }
        for (pack, why) in unknown.broken {
            report.report(Some(pack), format!("the index does not know this file, and it is no whole blob: {why}"));
        }
        let blobs = Arc::clone(self.blobs);
        let (strays, aside) = blocking(move || Ok((blobs.strays()?, blobs.list_unknown()?))).await?;
        for path in strays {
            if is_unfinished(&path) {
                report.notes.push(format!("{} is unfinished work, which the next start removes", path.display()));
            } else {
                report.report(None, format!("{} is no blob of this store", path.display()));
            }
        }
        if !aside.is_empty() {
            let n = aside.len();
            report
                .notes
                .push(format!("{n} blobs that an index did not know lie in `unknown`: --rebuild-index takes them in"));
        }
        Ok(())
    }
}

/// A cache that cannot be read, and why.
pub(crate) type Unreadable = (CacheId, String);
