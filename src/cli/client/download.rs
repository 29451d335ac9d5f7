//! Binary answers, written to files.

use std::{
    fs::{self, File},
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use ureq::{Body, http};

use super::{
    call::Call,
    failure::{Failure, Outcome},
    interrupt,
    output::Output,
    progress::{Counts, progress},
    server::Client,
    units::bytes,
};

/// Bytes read at a time.
const CHUNK: usize = 1 << 16;

/// A download that has not ended is not called by its final name.
struct Partial {
    path: PathBuf,
    done: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            // what is left is a file named `.part`
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The extension of a file, in lower case.
pub(super) fn extension(path: &Path) -> String {
    path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase()
}

/// Whether the path stands for standard output.
pub(super) fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Refuses to write binary to a terminal.
///
/// # Errors
/// [`Failure::Usage`].
pub(super) fn refuse_terminal(path: &Path) -> Outcome {
    if is_standard(path) && io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "binary is not written to a terminal: name a file with -o, or send it to a pipe".to_owned(),
        ));
    }
    Ok(())
}

/// Sends a request and writes the answer to a file, or to standard output for `-`. The file has its name only once it is
/// whole.
///
/// # Errors
/// Those of the request, and those of the file.
pub(super) fn download(client: &Client, call: &Call, path: &Path) -> Outcome {
    refuse_terminal(path)?;
    let response = client.send(call)?;
    if is_standard(path) {
        let mut out = io::stdout().lock();
        copy(client, response, &client.out, |part| Ok(out.write_all(part)?))?;
        return Ok(out.flush()?);
    }
    let part = PathBuf::from(format!("{}.part", path.display()));
    let wrong = |e: &io::Error| Failure::file(path, e);
    let mut file = File::create(&part).map_err(|e| wrong(&e))?;
    let mut partial = Partial { path: part.clone(), done: false };
    let doomed = part.clone();
    interrupt::before_ending(move || drop(fs::remove_file(doomed)));
    let n_bytes = copy(client, response, &client.out, |part| file.write_all(part).map_err(|e| wrong(&e)))?;
    file.sync_all().map_err(|e| wrong(&e))?;
    fs::rename(&part, path).map_err(|e| wrong(&e))?;
    partial.done = true;
    if !client.out.quiet {
        eprintln!("wrote {}, {}", path.display(), bytes(n_bytes));
    }
    Ok(())
}

/// Copies the body of an answer. Returns the number of bytes.
fn copy(
    client: &Client,
    response: http::Response<Body>,
    out: &Output,
    mut write: impl FnMut(&[u8]) -> Outcome,
) -> Outcome<u64> {
    let body = response.into_body();
    let expected = body.content_length();
    let bar = progress(out, expected, Counts::Bytes);
    let mut reader = body.into_reader();
    let (mut buffer, mut n_bytes) = (vec![0; CHUNK], 0);
    loop {
        let n = reader.read(&mut buffer).map_err(|e| client.unread(&e))?;
        if n == 0 {
            break;
        }
        write(&buffer[..n])?;
        n_bytes += n as u64;
        bar.set_position(n_bytes);
    }
    bar.finish_and_clear();
    match expected {
        Some(expected) if expected != n_bytes => Err(client.unread(&format!("{n_bytes} of {expected} bytes came"))),
        _ => Ok(n_bytes),
    }
}
