//! A checkpoint's fingerprint: blake3 over the description of what it computes and the contents of all files it was read from.

use std::{fs::File, io::Read, path::Path};

use super::{error::LoadError, load_progress::LoadProgress};

/// Bytes hashed at a time: enough to spread over threads.
const CHUNK: usize = 8 << 20;

/// Hashes a description and the contents of files, in this order. The paths of the files are not part of it.
///
/// # Errors
/// When a file cannot be read, or the load is cancelled.
pub fn fingerprint<'p>(
    description: &str,
    files: impl Iterator<Item = &'p Path>,
    progress: &LoadProgress,
) -> Result<String, LoadError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(description.as_bytes());
    let mut buffer = vec![0; CHUNK];
    for path in files {
        let contents = hash_file(path, &mut buffer, progress)?;
        hasher.update(contents.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn hash_file(path: &Path, buffer: &mut [u8], progress: &LoadProgress) -> Result<blake3::Hash, LoadError> {
    let error = |e| LoadError::file(path, e);
    let mut file = File::open(path).map_err(error)?;
    let mut hasher = blake3::Hasher::new();
    loop {
        progress.check()?;
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]).map_err(error)? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update_rayon(&buffer[..filled]);
        progress.add(filled as u64);
    }
}
