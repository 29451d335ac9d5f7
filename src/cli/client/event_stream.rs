//! Server-sent events, read line by line.

use std::io::{BufRead, Read};

/// Maximum bytes of one line, which holds the data of one event.
const MAX_LINE: u64 = 256 << 20;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerEvent {
    /// Its name; `message` if it has none.
    pub(super) name: String,
    /// Its data.
    pub(super) data: String,
}

/// The events of a stream.
pub(super) struct Events<R>(R);

impl<R: BufRead> Events<R> {
    pub(super) const fn new(reader: R) -> Self {
        Self(reader)
    }

    /// The next line without its end; `None` at the end of the stream.
    fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut bytes = Vec::new();
        let n = self.0.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)?;
        if n == 0 {
            return Ok(None);
        }
        if n as u64 == MAX_LINE && !bytes.ends_with(b"\n") {
            return Err(std::io::Error::other("an event is too long"));
        }
        let line = String::from_utf8_lossy(&bytes);
        Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
    }
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = std::io::Result<ServerEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        let (mut name, mut data) = (String::new(), None::<String>);
        loop {
            let line = match self.line() {
                Ok(Some(line)) => line,
                // an event whose end did not come is not complete
                Ok(None) => return None,
                Err(e) => return Some(Err(e)),
            };
            if line.is_empty() {
                if let Some(data) = data.take() {
                    let name = if name.is_empty() { "message".to_owned() } else { name };
                    return Some(Ok(ServerEvent { name, data }));
                }
                name.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" => data = Some(data.map_or_else(|| value.to_owned(), |before| format!("{before}\n{value}"))),
                // comments, and fields that are of no use here
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_comments_are_not() {
        let stream = ": hello\n\nevent: run\r\ndata: {\"a\":1}\r\nid: 3\r\n\r\ndata: x\ndata: y\n\nevent: empty\n\ndata:z\n\ndata: lost";
        let events: Vec<_> = Events::new(stream.as_bytes()).map(|e| e.unwrap()).collect();
        let event = |name: &str, data: &str| ServerEvent { name: name.to_owned(), data: data.to_owned() };
        assert_eq!(events, [event("run", "{\"a\":1}"), event("message", "x\ny"), event("message", "z")]);
    }

    #[test]
    fn bytes_that_are_not_text_do_not_end_the_stream() {
        let events: Vec<_> = Events::new(&b"data: \xff\xfe\n\n"[..]).map(|e| e.unwrap().data).collect();
        assert_eq!(events, ["\u{fffd}\u{fffd}"]);
    }
}
