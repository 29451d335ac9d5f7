//! Looking at the write-ahead log of the index before SQLite recovers it.
//!
//! SQLite takes the frames up to the first whose checksum is wrong, and drops the rest. A process that is killed
//! leaves nothing behind that frame. If there is something, it may have been acknowledged, and files that the index
//! does not know may hold data. (A power failure can leave frames too that were never acknowledged; nothing tells the
//! two apart. Nor does anything tell a damaged last frame from one that was being written.)
//!
//! Format: <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC: u32 = 0x377f_0682;

/// Whether the log holds frames of its present generation behind one that is damaged, or is damaged at its front.
///
/// # Errors
/// When it cannot be read. That there is none is no error.
pub(crate) fn is_torn(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; HEADER];
    if !fill(&mut file, &mut header)? {
        // cut before there was anything in it
        return Ok(false);
    }
    if header.iter().all(|b| *b == 0) {
        return Ok(false);
    }
    let magic = word(&header, 0);
    let order = if magic & 1 == 1 { u32::from_be_bytes } else { u32::from_le_bytes };
    let mut sums = checksum(order, (0, 0), &header[..24]);
    let page = usize::try_from(word(&header, 8)).unwrap_or(0);
    let plausible = page.is_power_of_two() && (512..=65536).contains(&page);
    if magic & !1 != MAGIC || !plausible || sums != (word(&header, 24), word(&header, 28)) {
        return Ok(true);
    }
    let salts = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER + page];
    let mut whole = true;
    while fill(&mut file, &mut frame)? {
        let current = &frame[8..16] == salts;
        if !whole && current {
            return Ok(true);
        }
        if whole {
            let next = checksum(order, checksum(order, sums, &frame[..8]), &frame[FRAME_HEADER..]);
            whole = current && next == (word(&frame, 16), word(&frame, 20));
            sums = next;
        }
    }
    Ok(false)
}

/// Fills the buffer, or says that the file ends before.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}

/// Fibonacci-weighted sums over pairs of words.
fn checksum(order: fn([u8; 4]) -> u32, (mut a, mut b): (u32, u32), bytes: &[u8]) -> (u32, u32) {
    for pair in bytes.as_chunks::<8>().0 {
        let (first, second) = pair.split_at(4);
        let read = |half: &[u8]| half.first_chunk().map_or(0, |word| order(*word));
        a = a.wrapping_add(read(first)).wrapping_add(b);
        b = b.wrapping_add(read(second)).wrapping_add(a);
    }
    (a, b)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sqlx::{Connection, Executor, SqliteConnection};

    use super::*;

    #[tokio::test]
    async fn a_log_is_torn_where_frames_lie_behind_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (base, wal) = (dir.path().join("x.sqlite"), dir.path().join("x.sqlite-wal"));
        assert!(!is_torn(&wal).unwrap());
        let url = format!("sqlite://{}?mode=rwc", base.display());
        let mut conn = SqliteConnection::connect(&url).await.unwrap();
        conn.execute("PRAGMA journal_mode = WAL").await.unwrap();
        conn.execute("PRAGMA wal_autocheckpoint = 0").await.unwrap();
        conn.execute("CREATE TABLE t (b BLOB)").await.unwrap();
        for _ in 0..5 {
            conn.execute("INSERT INTO t VALUES (randomblob(9000))").await.unwrap();
        }
        let good = fs::read(&wal).unwrap();
        assert!(good.len() > 10 * 4096);
        let torn = |bytes: &[u8]| {
            fs::write(dir.path().join("copy"), bytes).unwrap();
            is_torn(&dir.path().join("copy")).unwrap()
        };
        assert!(!torn(&good));
        // a process that is killed leaves a shorter file
        assert!(!torn(&good[..good.len() - 100]));
        assert!(!torn(&good[..20]));
        assert!(!torn(&[]));
        for at in [0, 9, 17, 40, 3000, good.len() / 2] {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            assert!(torn(&bytes), "byte {at}");
        }
        let mut last = good.clone();
        last[good.len() - 1] ^= 1;
        assert!(!torn(&last), "it could be one that was being written");
        // frames of an earlier generation are behind every log that has been reused
        conn.execute("PRAGMA wal_checkpoint(RESTART)").await.unwrap();
        conn.execute("INSERT INTO t VALUES (1)").await.unwrap();
        assert!(fs::metadata(&wal).unwrap().len() as usize == good.len());
        assert!(!is_torn(&wal).unwrap());
    }
}
