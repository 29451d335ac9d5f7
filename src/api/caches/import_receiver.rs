//! Receives the file of an import: streams it to disk and checks it on the way.

use bytes::{Bytes, BytesMut};

use crate::api::{dto::annotations::check_annotations, memory::Memory};
use residuum_domain::{
    Code, ImportOrigin, ImportPlan, ImportSpec, Problem,
    import::Given,
    tensor_file::{FileHeader, header_len},
};
use residuum_engine::questions::blocking;
use residuum_store::Spool;

/// Number of bytes buffered before they are written to disk.
const CHUNK: usize = 1 << 20;

/// A file that is being received. Its header is checked as soon as it is complete, so that a bad file is refused before
/// its data arrives.
pub struct Receiver {
    spool: Spool,
    hasher: blake3::Hasher,
    /// Bytes that have arrived.
    n_bytes: u64,
    max_bytes: u64,
    /// Bytes not processed yet: of the header until it is complete, then of the data until they fill a chunk.
    buffer: BytesMut,
    given: Given,
    header: Option<Header>,
    /// Memory reserved for the header; the data goes to the disk.
    memory: Memory,
}

/// Maximum bytes of memory that parsing a header takes for each of its bytes; the worst case is tensors with names of
/// one letter.
const HEADER_BYTES_PER_BYTE: u64 = 16;

/// What the header of the file says.
struct Header {
    spec: ImportSpec,
    plan: ImportPlan,
    /// Bytes of the data.
    data_len: u64,
}

/// A complete file that passed all checks.
pub struct Received {
    /// The data.
    pub spool: Spool,
    /// What the client says of it.
    pub spec: ImportSpec,
    /// Where the rows of each hook are.
    pub plan: ImportPlan,
    /// What is kept of the file itself.
    pub origin: ImportOrigin,
}

impl Receiver {
    pub fn new(spool: Spool, given: Given, max_bytes: u64, memory: Memory) -> Self {
        let (hasher, buffer) = (blake3::Hasher::new(), BytesMut::new());
        Self { spool, hasher, n_bytes: 0, max_bytes, buffer, given, header: None, memory }
    }

    /// Refuses a body whose `Content-Length` exceeds the limit.
    pub fn expect(&self, n_bytes: u64) -> Result<(), Problem> {
        if n_bytes > self.max_bytes {
            let detail = format!("the file has {n_bytes} bytes; an import may have {}", self.max_bytes);
            return Err(Problem::new(Code::BodyTooLarge, detail));
        }
        Ok(())
    }

    /// Processes bytes that have arrived.
    pub async fn take(mut self, bytes: Bytes) -> Result<Self, Problem> {
        self.n_bytes += bytes.len() as u64;
        self.expect(self.n_bytes)?;
        self.buffer.extend_from_slice(&bytes);
        if self.header.is_none() {
            self.memory.reserve_received(bytes.len())?;
            if let Some(end) = self.header_end()? {
                self.memory.reserve_parsing(end as u64 * HEADER_BYTES_PER_BYTE).await?;
                self.read_header(end)?;
            }
        }
        match &self.header {
            Some(header) if self.spool.len() + self.buffer.len() as u64 > header.data_len => {
                let detail = format!("there are bytes after the {} that the tensors take", header.data_len);
                Err(Problem::new(Code::InvalidSafetensors, detail))
            }
            Some(_) if self.buffer.len() >= CHUNK => self.write().await,
            _ => Ok(self),
        }
    }

    /// The end of the header, if all of it has arrived.
    fn header_end(&self) -> Result<Option<usize>, Problem> {
        let Some(first) = self.buffer.first_chunk::<8>() else { return Ok(None) };
        let end = 8 + header_len(*first)?;
        Ok((self.buffer.len() >= end).then_some(end))
    }

    fn read_header(&mut self, end: usize) -> Result<(), Problem> {
        let front = self.buffer.split_to(end);
        let file = FileHeader::parse(&front[8..])?;
        let spec = ImportSpec::read(std::mem::take(&mut self.given), file.metadata.clone())?;
        check_annotations(&spec.tags, spec.label.as_deref(), &spec.metadata)?;
        let plan = ImportPlan::new(&file, &spec)?;
        self.expect(file.data_len.saturating_add(end as u64))?;
        self.hasher.update(&front);
        self.header = Some(Header { spec, plan, data_len: file.data_len });
        Ok(())
    }

    /// Writes the data in the buffer.
    async fn write(mut self) -> Result<Self, Problem> {
        blocking(move || {
            self.hasher.update(&self.buffer);
            self.spool.append(&self.buffer)?;
            self.buffer.clear();
            Ok(self)
        })
        .await
    }

    /// Completes the file after the end of the body.
    pub async fn finish(self) -> Result<Received, Problem> {
        let short = |why: String| Problem::new(Code::InvalidSafetensors, why);
        if self.header.is_none() {
            return Err(short(format!("the file ends after {} bytes, inside its header", self.n_bytes)));
        }
        let Self { spool, hasher, n_bytes, header: Some(header), .. } = self.write().await? else {
            return Err(Problem::new(Code::Internal, "a header was lost"));
        };
        let Header { spec, plan, data_len } = header;
        if spool.len() < data_len {
            return Err(short(format!(
                "the tensors take {data_len} bytes, but the file ends after {} of them",
                spool.len()
            )));
        }
        let origin = ImportOrigin {
            file_hash: hasher.finalize().to_hex().to_string(),
            file_bytes: n_bytes,
            file_dtypes: plan.file_dtypes(),
            metadata: spec.rest.clone(),
        };
        Ok(Received { spool, spec, plan, origin })
    }
}
