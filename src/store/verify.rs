//! Holding blobs against the index: every byte is read and hashed again.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::File,
    sync::Arc,
};

use serde::Serialize;
use sqlx::Row;

use super::{
    Store,
    blobs::{Blobs, read_at},
    blocking,
    caches::pack_id,
    error::StoreError,
    header,
    intern::Layout,
    rows::{Fields, hex},
    tensors::PackDims,
};
use crate::domain::{Dtype, ItemSpan, PackId, Positions};

/// Bytes hashed at a time.
const CHUNK: usize = 1 << 22;
/// Packs looked up at a time.
const PAGE: i64 = 256;

/// What [`Store::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VerifyReport {
    /// Packs read.
    pub n_packs: u64,
    /// Extents hashed.
    pub n_extents: u64,
    /// Bytes of the packs.
    pub n_bytes: u64,
    /// What is wrong, in the order found.
    pub issues: Vec<Issue>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// The pack concerned; `None`: the index itself.
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
        let Self { n_packs, n_extents, n_bytes, issues } = self;
        write!(f, "{n_packs} packs, {n_extents} extents, {n_bytes} bytes read: {} issues", issues.len())
    }
}

impl Store {
    /// Checks the index, every pack's file, size and header, the hash of every extent, and that no file is unknown.
    ///
    /// Works beside a running server; what is written or deleted meanwhile is not reported, and unknown files only by
    /// the server itself or when there is none.
    ///
    /// # Errors
    /// Only when the check itself cannot go on: [`StoreError::Database`], [`StoreError::Io`], [`StoreError::Damaged`]
    /// for rows that cannot be read. What is wrong with blobs is in the report.
    pub async fn verify(&self) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        self.verify_index(&mut report).await?;
        let blobs = Arc::clone(self.blobs());
        let files = blocking(move || blobs.list()).await?;
        let mut last: Vec<u8> = Vec::new();
        loop {
            let page = self.packs_after(&last).await?;
            let Some(end) = page.last() else { break };
            last = end.id.as_bytes().to_vec();
            for pack in page {
                self.verify_pack(pack, &mut report).await?;
            }
        }
        self.verify_files(&files, &mut report).await?;
        Ok(report)
    }

    async fn verify_index(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        let lines: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check").fetch_all(self.readers()).await?;
        for line in lines.into_iter().filter(|line| line != "ok") {
            report.report(None, line);
        }
        for row in sqlx::query("PRAGMA foreign_key_check").fetch_all(self.readers()).await? {
            let (table, parent): (String, String) = (row.try_get(0)?, row.try_get(2)?);
            report.report(None, format!("a row of {table} refers to a missing row of {parent}"));
        }
        Ok(())
    }

    async fn packs_after(&self, last: &[u8]) -> Result<Vec<PackRow>, StoreError> {
        let mut snapshot = self.readers().begin().await?;
        let rows = sqlx::query(
            "SELECT id, layout_id, dtype, data_start, n_rows, n_map, n_bytes FROM packs WHERE id > ? ORDER BY id LIMIT ?",
        )
        .bind(last)
        .bind(PAGE)
        .fetch_all(&mut *snapshot)
        .await?;
        let mut packs = Vec::with_capacity(rows.len());
        for row in &rows {
            let f = Fields::of("packs", row);
            let id = pack_id(&f, "id")?;
            let extents = sqlx::query(
                "SELECT positions, n_tokens, n_rows, row_start, map_start, forward_key, content_hash FROM extents \
                 WHERE pack_id = ? ORDER BY row_start",
            )
            .bind(id.as_bytes().as_slice())
            .fetch_all(&mut *snapshot)
            .await?;
            packs.push(PackRow {
                id,
                layout: self.memo().layout(&mut snapshot, f.get("layout_id")?).await?,
                dtype: f.read("dtype", |d: &str| d.parse().ok())?,
                data_start: f.uint("data_start")?,
                dims: PackDims { n_rows: f.uint("n_rows")?, n_map: f.uint("n_map")? },
                n_bytes: f.uint("n_bytes")?,
                extents: extents.iter().map(ExtentRow::decode).collect::<Result<_, _>>()?,
            });
        }
        Ok(packs)
    }

    async fn verify_pack(&self, pack: PackRow, report: &mut VerifyReport) -> Result<(), StoreError> {
        let (id, n_extents, n_bytes) = (pack.id, pack.extents.len() as u64, pack.n_bytes);
        let blobs = Arc::clone(self.blobs());
        let issues = blocking(move || pack.check(&blobs)).await?;
        // what was deleted since the rows were read is no issue
        if !issues.is_empty() && !self.has_pack(id).await? {
            return Ok(());
        }
        report.n_packs += 1;
        report.n_extents += n_extents;
        report.n_bytes += n_bytes;
        issues.into_iter().for_each(|detail| report.report(Some(id), detail));
        Ok(())
    }

    async fn has_pack(&self, id: PackId) -> Result<bool, StoreError> {
        let query = sqlx::query("SELECT 1 FROM packs WHERE id = ?").bind(id.as_bytes().as_slice());
        Ok(query.fetch_optional(self.readers()).await?.is_some())
    }

    /// Reports those of the files listed before that the index does not know and that are still there. A file that
    /// another process may be about to complete is none of them.
    async fn verify_files(&self, files: &[(PackId, u64)], report: &mut VerifyReport) -> Result<(), StoreError> {
        if self.inner.writer.is_none() && self.blobs().has_writer() {
            return Ok(());
        }
        let rows = sqlx::query("SELECT id FROM packs").fetch_all(self.readers()).await?;
        let known: HashSet<PackId> =
            rows.iter().map(|row| pack_id(&Fields::of("packs", row), "id")).collect::<Result<_, _>>()?;
        for (pack, _) in files.iter().filter(|(pack, _)| !known.contains(pack)) {
            if self.blobs().file(*pack).is_ok() {
                report.report(Some(*pack), "the index does not know this file (gc removes it)");
            }
        }
        Ok(())
    }
}

struct PackRow {
    id: PackId,
    layout: Arc<Layout>,
    dtype: Dtype,
    data_start: u64,
    dims: PackDims,
    n_bytes: u64,
    extents: Vec<ExtentRow>,
}

struct ExtentRow {
    span: ItemSpan,
    positions: Positions,
    /// Hexadecimal.
    forward_key: Option<String>,
    content_hash: blake3::Hash,
}

impl ExtentRow {
    fn decode(row: &sqlx::sqlite::SqliteRow) -> Result<Self, StoreError> {
        let f = Fields::of("extents", row);
        let key: Option<&[u8]> = f.get("forward_key")?;
        Ok(Self {
            span: ItemSpan {
                n_tokens: f.uint("n_tokens")?,
                n_rows: f.uint("n_rows")?,
                row_start: f.uint("row_start")?,
                map_start: f.uint("map_start")?,
            },
            positions: f.json("positions")?,
            forward_key: key.map(hex),
            content_hash: f.read("content_hash", |h: &[u8]| blake3::Hash::from_slice(h).ok())?,
        })
    }
}

impl PackRow {
    /// What is wrong with the pack. Damage is a finding; only failures to read are errors.
    fn check(&self, blobs: &Blobs) -> Result<Vec<String>, StoreError> {
        let mut issues = Vec::new();
        let checked = blobs.file(self.id).and_then(|file| {
            self.check_size(&file, &mut issues)?;
            self.check_header(&file, &mut issues)?;
            self.check_extents(&file, &mut issues)
        });
        match checked {
            Ok(()) => {}
            Err(StoreError::Damaged { what }) => issues.push(what),
            Err(other) => return Err(other),
        }
        Ok(issues)
    }

    fn check_size(&self, file: &File, issues: &mut Vec<String>) -> Result<(), StoreError> {
        let size = file.metadata().map_err(StoreError::io("asking for the size of a blob"))?.len();
        if size != self.n_bytes {
            issues.push(format!("the file has {size} bytes, the index says {}", self.n_bytes));
        }
        Ok(())
    }

    fn check_header(&self, file: &File, issues: &mut Vec<String>) -> Result<(), StoreError> {
        let header = header::read(file, self.id)?;
        if header.pack != self.id {
            issues.push(format!("the header names pack {}", header.pack));
        }
        if header.data_start != self.data_start {
            issues.push(format!("tensors begin at {}, the index says {}", header.data_start, self.data_start));
        }
        let expected = header::tensors(&self.dims.whole(&self.layout, self.dtype));
        if header.tensors != expected {
            issues.push("the header lists other tensors than the index".to_owned());
        }
        let entries: HashMap<usize, _> = header.caches.iter().map(|c| (c.row_start, c)).collect();
        for extent in &self.extents {
            let same = entries.get(&extent.span.row_start).is_some_and(|entry| {
                entry.map_start == extent.span.map_start
                    && entry.item.token_ids.len() == extent.span.n_tokens
                    && *entry.item.positions == extent.positions
                    && extent.forward_key.as_ref().is_none_or(|key| Some(key) == entry.forward_key.as_ref())
            });
            if !same {
                issues.push(format!("the header and the index differ about row {}", extent.span.row_start));
            }
        }
        Ok(())
    }

    fn check_extents(&self, file: &File, issues: &mut Vec<String>) -> Result<(), StoreError> {
        for extent in &self.extents {
            let mut hasher = blake3::Hasher::new();
            for (offset, elements) in self.dims.tensors(&self.layout, self.dtype, &extent.span) {
                let (mut at, end) = (offset, offset + (elements * self.dtype.size()) as u64);
                while at < end {
                    let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                    hasher.update(&read_at(file, self.id, self.data_start + at, len)?);
                    at += len as u64;
                }
            }
            if hasher.finalize() != extent.content_hash {
                issues.push(format!("the bytes of row {} have changed", extent.span.row_start));
            }
        }
        Ok(())
    }
}
