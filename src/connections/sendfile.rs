//! Stretches of files that the system copies to a connection by itself: their bytes never come into this process.
//!
//! A body whose bytes lie in files puts an [`Offer`] among the extensions of its response. A connection that can send files
//! takes it, and the body may then yield stand-ins for stretches of files. The connection knows a stand-in by its address, and
//! sends the next stretch in its place. Nothing between the two may look at the bytes of such a body, nor leave any out.

use std::{
    collections::VecDeque,
    fs::File,
    future::Future,
    io::{self, ErrorKind, IoSlice},
    os::unix::fs::FileExt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    task::JoinHandle,
};

use crate::present;

/// Bytes of the longest stretch.
pub const MAX_STRETCH: usize = 1 << 20;
/// Bytes that are sent at a time: all of these have to be in memory.
const SENT: usize = 256 << 10;
/// Bytes that are copied at a time where the system cannot do it.
const COPIED: usize = 64 << 10;
/// Addresses that stand-ins begin at in turn, so that one is not taken for its neighbour.
const BEGINNINGS: usize = 4096;

/// What stands in for a stretch. Were it ever sent, it would be read as NaN in every float type, not as numbers.
static STAND_IN: [u8; MAX_STRETCH + BEGINNINGS] = [0xFF; MAX_STRETCH + BEGINNINGS];

fn stands_in(bytes: &[u8]) -> bool {
    !bytes.is_empty() && STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}

/// Bytes of a file that are to be sent.
#[derive(Debug)]
pub struct Stretch {
    file: Arc<File>,
    offset: u64,
    len: usize,
    /// Where its stand-in begins.
    beginning: usize,
}

impl Stretch {
    /// `len` bytes of `file` from byte `offset` on; `None` where these are none or more than [`MAX_STRETCH`].
    #[must_use]
    pub fn new(file: File, offset: u64, len: usize) -> Option<Self> {
        (1..=MAX_STRETCH).contains(&len).then(|| Self { file: Arc::new(file), offset, len, beginning: 0 })
    }

    fn stand_in(&self) -> &'static [u8] {
        &STAND_IN[self.beginning..self.beginning + self.len]
    }

    /// Whether `bytes` are all that is left of its stand-in.
    fn has(&self, bytes: &[u8]) -> bool {
        std::ptr::eq(self.stand_in(), bytes)
    }

    /// Bytes that are sent next.
    fn next(&self) -> usize {
        self.len.min(SENT)
    }

    /// `n` bytes are sent.
    fn advance(&mut self, n: usize) {
        self.offset += n as u64;
        self.beginning += n;
        self.len -= n;
    }

    /// Reads what is sent next, so that it is in memory. For threads that may block.
    fn fetch(&self) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let (file, offset, len) = (Arc::clone(&self.file), self.offset, self.next());
        move || file.read_exact_at(&mut vec![0; len], offset)
    }

    /// Sends what the connection takes at once; returns how much that was, 0 where the file has ended.
    fn send(&self, to: &TcpStream) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        match rustix::fs::sendfile(to, &self.file, Some(&mut self.offset.clone()), self.next()) {
            // a file system that cannot
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {}
            sent => return Ok(sent?),
        }
        self.copy(to)
    }

    /// The same, through this process.
    fn copy(&self, to: &TcpStream) -> io::Result<usize> {
        let mut bytes = vec![0; self.next().min(COPIED)];
        let n = self.file.read_at(&mut bytes, self.offset)?;
        if n == 0 {
            Ok(0)
        } else {
            rustix::net::send(to, &bytes[..n], rustix::net::SendFlags::empty()).map_err(Into::into)
        }
    }
}

/// The stretches that a connection is to send, in order.
#[derive(Debug, Default)]
pub struct Files(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    stretches: VecDeque<Stretch>,
    /// How many there were.
    n: usize,
}

impl Files {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a body yields for a stretch: it has to be its next frame.
    pub fn stand_in(&self, mut stretch: Stretch) -> Bytes {
        let mut queue = self.lock();
        stretch.beginning = queue.n % BEGINNINGS;
        queue.n += 1;
        let bytes = Bytes::from_static(stretch.stand_in());
        queue.stretches.push_back(stretch);
        bytes
    }
}

/// Put among the extensions of a response whose body can leave stretches of files to the connection.
#[derive(Debug, Clone, Default)]
pub struct Offer(Arc<OnceLock<Arc<Files>>>);

impl Offer {
    /// Accepts it for a connection, before the body is asked for anything.
    fn accept(&self, files: &Arc<Files>) {
        self.0.get_or_init(|| Arc::clone(files));
    }

    /// Where the connection looks for stretches, if it takes any.
    #[must_use]
    pub fn accepted(&self) -> Option<&Arc<Files>> {
        self.0.get()
    }
}

/// Accepts what a response offers, on behalf of the connection that `files` belongs to.
pub(super) fn accept_offer<B>(response: &http::Response<B>, files: &Arc<Files>) {
    if let Some(offer) = response.extensions().get::<Offer>()
        && !response.headers().contains_key(http::header::CONTENT_ENCODING)
    {
        offer.accept(files);
    }
}

/// A TCP connection that sends stretches of files in place of their stand-ins.
#[derive(Debug)]
pub(super) struct Connection {
    tcp: Arc<TcpStream>,
    files: Arc<Files>,
    /// What is sent next is being read from the disk.
    fetching: Option<JoinHandle<io::Result<()>>>,
}

impl Connection {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp: Arc::new(tcp), files: Arc::default(), fetching: None }
    }

    /// For whoever watches it.
    pub(super) fn tcp(&self) -> &Arc<TcpStream> {
        &self.tcp
    }

    pub(super) fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Writes bytes of this process.
    fn poll_own(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match write(&self.tcp) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    /// Sends of the next stretch, of whose stand-in `bytes` have not been sent. Never waits for a disk.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let fetched = match &mut self.fetching {
            Some(fetching) => Some(ready!(Pin::new(fetching).poll(cx)).map_err(io::Error::other)?),
            None => None,
        };
        self.fetching = None;
        if let Some(Err(failed)) = fetched {
            tracing::error!(error = %failed, "a download broke off");
            return Poll::Ready(Err(failed));
        }
        let mut files = self.files.lock();
        // Never other bytes than those that were promised here.
        let Some(stretch) = files.stretches.front_mut().filter(|s| s.has(bytes)) else {
            return Poll::Ready(Err(io::Error::other("a body left out a stretch of a file, or part of one")));
        };
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            // It was when the body asked, which for a slow client may be long ago.
            if fetched.is_none() && !present::is_present(&stretch.file, stretch.offset, stretch.next()) {
                let mut fetching = tokio::task::spawn_blocking(stretch.fetch());
                if Pin::new(&mut fetching).poll(cx).is_pending() {
                    self.fetching = Some(fetching);
                    return Poll::Pending;
                }
            }
            match self.tcp.try_io(Interest::WRITABLE, || stretch.send(&self.tcp)) {
                Ok(0) => {
                    let short = io::Error::new(ErrorKind::UnexpectedEof, "a file ended before the stretch to be sent");
                    tracing::error!(error = %short, "a download broke off");
                    return Poll::Ready(Err(short));
                }
                Ok(n) => {
                    stretch.advance(n);
                    if stretch.len == 0 {
                        files.stretches.pop_front();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read_buf(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if stands_in(bytes) { self.poll_send(cx, bytes) } else { self.poll_own(cx, |tcp| tcp.try_write(bytes)) }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices.iter().position(|slice| stands_in(slice)) {
            Some(0) => self.poll_send(cx, &slices[0]),
            first => {
                let own = &slices[..first.unwrap_or(slices.len())];
                self.poll_own(cx, |tcp| tcp.try_write_vectored(own))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // the system has it
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&*self.tcp, rustix::net::Shutdown::Write).map_err(Into::into))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::new(listener.accept().await.unwrap().0), client)
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn numbers(n: usize) -> Vec<u8> {
        (0..n).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    /// Sends as hyper does: all that is left, every time.
    async fn send(connection: &mut Connection, frames: &[Bytes]) -> io::Result<()> {
        let mut left: VecDeque<Bytes> = frames.iter().cloned().collect();
        while !left.is_empty() {
            let slices: Vec<IoSlice<'_>> = left.iter().map(|b| IoSlice::new(b)).collect();
            let mut n = connection.write_vectored(&slices).await?;
            while let Some(front) = left.front_mut().filter(|_| n > 0) {
                let sent = n.min(front.len());
                (*front, n) = (front.slice(sent..), n - sent);
                if front.is_empty() {
                    left.pop_front();
                }
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn stretches_are_sent_where_their_stand_ins_are() {
        let (mut connection, mut client) = pair().await;
        let bytes = numbers(3 * MAX_STRETCH);
        let stretch = |offset, len| Stretch::new(file(&bytes), offset as u64, len).unwrap();
        let files = Arc::clone(connection.files());
        let frames = [
            Bytes::from_static(b"head"),
            files.stand_in(stretch(7, MAX_STRETCH)),
            files.stand_in(stretch(2 * MAX_STRETCH, 11)),
            Bytes::from_static(b"between"),
            files.stand_in(stretch(MAX_STRETCH, MAX_STRETCH)),
        ];
        let received = tokio::spawn(async move {
            let mut received = Vec::new();
            client.read_to_end(&mut received).await.unwrap();
            received
        });
        send(&mut connection, &frames).await.unwrap();
        assert!(files.lock().stretches.is_empty());
        drop(connection);
        let parts = [
            b"head",
            &bytes[7..7 + MAX_STRETCH],
            &bytes[2 * MAX_STRETCH..2 * MAX_STRETCH + 11],
            b"between",
            &bytes[MAX_STRETCH..2 * MAX_STRETCH],
        ];
        assert!(received.await.unwrap() == parts.concat());
    }

    #[tokio::test]
    async fn a_stretch_is_copied_where_the_system_cannot_send_it() {
        let (connection, mut client) = pair().await;
        let bytes = numbers(1000);
        connection.tcp.writable().await.unwrap();
        let n = Stretch::new(file(&bytes), 100, 500).unwrap().copy(&connection.tcp).unwrap();
        drop(connection);
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        assert!((n, &received[..]) == (500, &bytes[100..600]));
    }

    #[tokio::test]
    async fn a_file_that_ends_early_ends_the_connection() {
        let (mut connection, _client) = pair().await;
        let frame = connection.files().stand_in(Stretch::new(file(&numbers(100)), 60, 50).unwrap());
        let failed = send(&mut connection, &[frame]).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn nothing_is_sent_for_a_stand_in_that_is_not_the_next() {
        let (mut connection, _client) = pair().await;
        let stretch = |len| Stretch::new(file(&numbers(100)), 0, len).unwrap();
        let files = Arc::clone(connection.files());
        // also where both are equally long
        let (_left_out, second) = (files.stand_in(stretch(40)), files.stand_in(stretch(40)));
        assert!(send(&mut connection, &[second]).await.is_err());
        // nor for part of one
        let (mut connection, _client) = pair().await;
        let frame = connection.files().stand_in(stretch(40));
        assert!(send(&mut connection, &[frame.slice(10..)]).await.is_err());
    }

    #[test]
    fn only_stand_ins_stand_in() {
        assert!(stands_in(&STAND_IN[..1]) && stands_in(&STAND_IN[MAX_STRETCH + BEGINNINGS - 1..]));
        assert!(!stands_in(&STAND_IN[..0]) && !stands_in(&[0xFF; 8]) && !stands_in(b""));
        for len in [0, MAX_STRETCH + 1] {
            assert!(Stretch::new(file(b""), 0, len).is_none());
        }
    }
}
