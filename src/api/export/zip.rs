//! Writes a NumPy archive: a zip file with uncompressed entries, in one pass.
//!
//! Format: PKWARE's APPNOTE 6.3.10. Every entry has the zip64 fields, so that all sizes have the same form. Its
//! checksum follows the data (bit 3 of the flags), since it is known only then. The length of the archive is known
//! before anything is written.

use bytes::Bytes;

use super::{
    shard::Shard,
    sink::{Sink, Stop},
};
use crate::api::tensor::{Assembly, Part, npy_header, npy_header_of};
use residuum_domain::Dtype;
use residuum_engine::questions::export::ExportPlan;
use residuum_store::Store;

/// Bytes of an entry's header without its name, with the extra field of 20 bytes.
const LOCAL: usize = 30 + 20;
const DESCRIPTOR: usize = 24;
/// Bytes of an entry in the directory without its name, with the extra field of 28 bytes.
const CENTRAL: usize = 46 + 28;
/// Bytes of the zip64 end record, its locator and the old end record.
const END: usize = 56 + 20 + 22;

/// Version 4.5: zip64.
const VERSION: u16 = 45;
/// The checksum follows the data; names are UTF-8.
const FLAGS: u16 = 0x0808;
/// 1 January 1980, always, so that the same export gives the same bytes.
const DATE: u16 = 0x0021;

/// One file of an archive.
pub struct Entry {
    name: String,
    content: Assembly,
}

impl Entry {
    fn npy(name: &str, header: Vec<u8>, content: Assembly) -> Self {
        let mut whole = Assembly::default();
        whole.push(Part::Made(header.into()));
        whole.append(content);
        Self { name: format!("{name}.npy"), content: whole }
    }

    fn made(name: &str, header: Vec<u8>, content: Vec<u8>) -> Self {
        let mut assembly = Assembly::default();
        assembly.push(Part::Made(content.into()));
        Self::npy(name, header, assembly)
    }
}

/// The entries of a shard: arrays, tables of rows and caches, and the manifest.
pub fn entries(shard: &Shard, plan: &ExportPlan, sent: Dtype) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (i, array) in plan.arrays.iter().enumerate() {
        let shape = [&[shard.n_rows], array.row_shape.as_slice()].concat();
        entries.push(Entry::npy(&array.name, npy_header(sent, &shape), shard.array(i, plan.dtype, sent)));
    }
    for (name, table) in shard.row_tables() {
        entries.push(Entry::made(name, npy_header_of("<i8", &[shard.n_rows]), table));
    }
    let ids: Vec<String> = shard.caches.iter().map(|p| p.cache.cache.id.to_string()).collect();
    let labels: Vec<&str> = shard.caches.iter().map(|p| p.cache.cache.label.as_deref().unwrap_or("")).collect();
    entries.push(strings("cache_id", &ids.iter().map(String::as_str).collect::<Vec<_>>()));
    entries.push(strings("cache_label", &labels));
    let mut manifest = Assembly::default();
    manifest.push(Part::Made(shard.manifest(plan, sent).into()));
    entries.push(Entry { name: "manifest.json".to_owned(), content: manifest });
    entries
}

/// Strings in numpy's form: UTF-32, padded with zeros to one length.
fn strings(name: &str, values: &[&str]) -> Entry {
    let width = values.iter().map(|v| v.chars().count()).max().unwrap_or(0).max(1);
    let mut data = Vec::with_capacity(values.len() * width * 4);
    for value in values {
        let begin = data.len();
        value.chars().for_each(|c| data.extend(u32::from(c).to_le_bytes()));
        data.resize(begin + width * 4, 0);
    }
    Entry::made(name, npy_header_of(&format!("<U{width}"), &[values.len()]), data)
}

/// Bytes of an archive of these entries.
pub fn len(entries: &[Entry]) -> u64 {
    let one = |e: &Entry| (LOCAL + DESCRIPTOR + CENTRAL + 2 * e.name.len()) as u64 + e.content.len();
    entries.iter().map(one).sum::<u64>() + END as u64
}

/// Writes an archive.
///
/// # Errors
/// [`Stop`].
pub async fn write(entries: Vec<Entry>, sink: &Sink, store: &Store) -> Result<(), Stop> {
    let (mut offset, mut directory, n) = (0, Vec::new(), entries.len() as u64);
    for Entry { name, content } in entries {
        let size = content.len();
        let header = local(&name, size);
        let begin = offset;
        offset += header.len() as u64 + size + DESCRIPTOR as u64;
        sink.send(header).await?;
        let mut checksum = crc32fast::Hasher::new();
        sink.send_all(content, store, |bytes| checksum.update(bytes)).await?;
        let checksum = checksum.finalize();
        sink.send(descriptor(checksum, size)).await?;
        directory.extend(central(&name, checksum, size, begin));
    }
    let length = directory.len() as u64;
    directory.extend(end(n, length, offset));
    sink.send(directory).await
}

/// A sequence of little-endian fields.
#[derive(Default)]
struct Record(Vec<u8>);

impl Record {
    fn u16(mut self, values: &[u16]) -> Self {
        values.iter().for_each(|v| self.0.extend(v.to_le_bytes()));
        self
    }

    fn u32(mut self, values: &[u32]) -> Self {
        values.iter().for_each(|v| self.0.extend(v.to_le_bytes()));
        self
    }

    fn u64(mut self, values: &[u64]) -> Self {
        values.iter().for_each(|v| self.0.extend(v.to_le_bytes()));
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

fn name_len(name: &str) -> u16 {
    u16::try_from(name.len()).unwrap_or(u16::MAX)
}

fn local(name: &str, size: u64) -> Bytes {
    let record = Record::default().u32(&[0x0403_4b50]).u16(&[VERSION, FLAGS, 0, 0, DATE]).u32(&[0, u32::MAX, u32::MAX]);
    let record = record.u16(&[name_len(name), 20]).bytes(name.as_bytes());
    record.u16(&[1, 16]).u64(&[size, size]).0.into()
}

fn descriptor(checksum: u32, size: u64) -> Bytes {
    Record::default().u32(&[0x0807_4b50, checksum]).u64(&[size, size]).0.into()
}

fn central(name: &str, checksum: u32, size: u64, offset: u64) -> Vec<u8> {
    let record = Record::default().u32(&[0x0201_4b50]).u16(&[VERSION, VERSION, FLAGS, 0, 0, DATE]);
    let record = record.u32(&[checksum, u32::MAX, u32::MAX]).u16(&[name_len(name), 28, 0, 0, 0]);
    let record = record.u32(&[0, u32::MAX]).bytes(name.as_bytes());
    record.u16(&[1, 24]).u64(&[size, size, offset]).0
}

/// The end of an archive of `n` entries whose directory has `length` bytes and begins at `offset`.
fn end(n: u64, length: u64, offset: u64) -> Vec<u8> {
    let record = Record::default().u32(&[0x0606_4b50]).u64(&[44]).u16(&[VERSION, VERSION]).u32(&[0, 0]);
    let record = record.u64(&[n, n, length, offset]);
    let record = record.u32(&[0x0706_4b50, 0]).u64(&[offset + length]).u32(&[1]);
    record.u32(&[0x0605_4b50]).u16(&[0, 0, u16::MAX, u16::MAX]).u32(&[u32::MAX, u32::MAX]).u16(&[0]).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_lengths_of_the_constants() {
        assert_eq!(local("ab", 5).len(), LOCAL + 2);
        assert_eq!(descriptor(1, 5).len(), DESCRIPTOR);
        assert_eq!(central("ab", 1, 5, 0).len(), CENTRAL + 2);
        assert_eq!(end(1, 2, 3).len(), END);
    }
}
