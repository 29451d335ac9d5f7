//! A body that is written piece by piece, with backpressure: writing waits for the client to read.

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, pin_mut, stream};
use tokio::sync::mpsc;

use crate::api::tensor::{Assembly, log_early_end};
use residuum_domain::{Code, Problem};
use residuum_store::Store;

/// Maximum number of pieces that wait for the client.
const WAITING: usize = 2;

/// Why writing ended early.
#[derive(Debug)]
pub enum Stop {
    /// The client has disconnected.
    Disconnected,
    /// Reading or encoding failed.
    Failed(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

enum Message {
    Bytes(Bytes),
    End,
    Failed(Problem),
}

/// Sends pieces to the body.
pub struct Sink(mpsc::Sender<Message>);

impl Sink {
    /// Sends a piece; waits while the channel is full.
    ///
    /// # Errors
    /// [`Stop::Disconnected`].
    pub async fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Stop> {
        self.0.send(Message::Bytes(bytes.into())).await.map_err(|_| Stop::Disconnected)
    }

    /// Reads and sends all of an assembly; passes each piece to `see` first.
    ///
    /// # Errors
    /// [`Stop`].
    pub async fn send_all(&self, assembly: Assembly, store: &Store, mut see: impl FnMut(&[u8])) -> Result<(), Stop> {
        let pieces = assembly.stream(store.clone());
        pin_mut!(pieces);
        while let Some(bytes) = pieces.next().await {
            let bytes = bytes?;
            see(&bytes);
            self.send(bytes).await?;
        }
        Ok(())
    }
}

/// A body that `write` fills, started when the body is first read. If `write` fails or panics, the body ends with an
/// error.
pub fn body<F>(write: impl FnOnce(Sink) -> F + Send + 'static) -> Body
where
    F: Future<Output = Result<(), Stop>> + Send + 'static,
{
    let start = async move {
        let (sender, receiver) = mpsc::channel(WAITING);
        let sink = Sink(sender.clone());
        tokio::spawn(async move {
            let last = match write(sink).await {
                Ok(()) => Message::End,
                Err(Stop::Disconnected) => return,
                Err(Stop::Failed(problem)) => Message::Failed(problem),
            };
            // fails if the client has disconnected, which does not matter
            drop(sender.send(last).await);
        });
        stream::unfold(Some(receiver), |receiver| async {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Some(Message::Bytes(bytes)) => Some((Ok(bytes), Some(receiver))),
                Some(Message::End) => None,
                Some(Message::Failed(problem)) => Some((Err(problem), None)),
                None => Some((Err(Problem::new(Code::Internal, "an export was not written to its end")), None)),
            }
        })
    };
    Body::from_stream(
        stream::once(start).flatten().inspect_err(|problem: &Problem| log_early_end("an export", problem)),
    )
}
