//! Reading a whole blob: its header, and the hash and the non-finite values of every extent.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    blobs::LocalBlobs,
    error::StoreError,
    index::intern::Layout,
    packs::{
        header::{self, BlobHeader},
        location::{PackDims, hash},
        sub_batch::count_special,
    },
};
use residuum_domain::{ItemSpan, PackId, PackLayout, TensorStats};

/// A blob that was read to its end.
pub(super) struct ReadBlob {
    pub(super) header: BlobHeader,
    pub(super) layout: PackLayout,
    pub(super) n_bytes: u64,
    /// One for each item of the layout; `None` if its bytes have changed.
    pub(super) found: Vec<Option<(blake3::Hash, Vec<TensorStats>)>>,
    pub(super) n_unhashed: u64,
}

/// Reads a blob, hashes what is in it, and compares it with its header.
///
/// # Errors
/// [`StoreError::Damaged`] when its header is not one, or not its own; [`StoreError::Io`].
pub(super) fn read(blobs: &LocalBlobs, pack: PackId, n_bytes: u64) -> Result<ReadBlob, StoreError> {
    let damaged = |why: &str| StoreError::damaged(format!("pack {pack} {why}"));
    let file = blobs.file(pack)?;
    let header = header::read(&file, pack)?;
    if header.front.pack != pack {
        return Err(damaged("has the header of another"));
    }
    let mut spans: BTreeMap<usize, (ItemSpan, Option<String>)> = BTreeMap::new();
    for entry in &header.caches {
        let span = entry.span().map_err(|problem| damaged(&problem.detail))?;
        let known = spans.entry(span.row_start).or_insert_with(|| (span.clone(), entry.content_hash.clone()));
        if known.0 != span {
            return Err(damaged("has caches that disagree about their rows"));
        }
    }
    let (items, hashes): (Vec<ItemSpan>, Vec<Option<String>>) = spans.into_values().unzip();
    let front = &header.front;
    let layout = PackLayout {
        hooks: Arc::clone(&front.capture.hooks),
        row_shapes: front.row_shapes.clone(),
        dtype: front.capture.dtype,
        items,
    };
    let fits = layout.hooks.len() == layout.row_shapes.len()
        && layout.hooks.is_sorted()
        && !layout.items.is_empty()
        && header.tensors == header::tensors(&layout);
    if !fits {
        return Err(damaged("has other tensors than its header says"));
    }
    let mut found = Vec::with_capacity(layout.items.len());
    let dims = PackDims { n_rows: layout.n_rows(), n_map: layout.n_map() };
    let kind = Layout { hooks: Arc::clone(&layout.hooks), row_shapes: layout.row_shapes.clone() };
    for (span, expected) in layout.items.iter().zip(&hashes) {
        let tensors = dims.tensors(&kind, layout.dtype, span);
        let tensors: Vec<(u64, usize)> = tensors.into_iter().map(|(at, n)| (header.data_start + at, n)).collect();
        let mut stats = vec![TensorStats::default(); layout.hooks.len()];
        let hashed = hash(&file, pack, layout.dtype, &tensors, |hook, bytes| {
            count_special(layout.dtype, layout.hooks[hook].site(), bytes, &mut stats[hook]);
            Ok(())
        });
        found.push(match hashed {
            Ok(hash) if expected.as_ref().is_none_or(|e| *e == hash.to_hex().as_str()) => Some((hash, stats)),
            // changed, or behind the end of the file
            Ok(_) | Err(StoreError::Damaged { .. }) => None,
            Err(other) => return Err(other),
        });
    }
    let n_unhashed = hashes.iter().filter(|h| h.is_none()).count() as u64;
    Ok(ReadBlob { header, layout, n_bytes, found, n_unhashed })
}
