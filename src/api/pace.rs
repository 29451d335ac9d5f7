//! The minimum rate at which a body must arrive, and the time of the last activity of a request.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep, sleep_until},
};

/// How slowly a body may arrive: the server waits for bytes for at most `grace` plus a second for every
/// `bytes_per_second` bytes received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyRate {
    /// Waiting time that every body has.
    pub grace: Duration,
    /// Received bytes that add another second.
    pub bytes_per_second: u64,
}

impl Default for BodyRate {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), bytes_per_second: 4096 }
    }
}

/// Time of the last activity of a request. Clones share it: the body and the handler set it, and the middleware with the
/// time limit reads it.
#[derive(Clone)]
pub struct Activity {
    started: Instant,
    /// Milliseconds after `started`, or [`EXEMPT`].
    last: Arc<AtomicU64>,
    /// Notified when time counts again.
    counts: Arc<Notify>,
}

/// In the place of a time: time does not count now.
const EXEMPT: u64 = u64::MAX;

impl Default for Activity {
    fn default() -> Self {
        Self { started: Instant::now(), last: Arc::default(), counts: Arc::default() }
    }
}

impl Activity {
    pub fn note(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(EXEMPT - 1);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Runs a future whose time does not count.
    pub async fn exempt<F: Future>(&self, future: F) -> F::Output {
        self.last.store(EXEMPT, Ordering::Relaxed);
        let output = future.await;
        self.note();
        self.counts.notify_waiters();
        output
    }

    /// Resolves once there was no activity for `limit`.
    pub async fn idle_for(&self, limit: Duration) {
        loop {
            let counts = self.counts.notified();
            if self.last.load(Ordering::Relaxed) == EXEMPT {
                counts.await;
                continue;
            }
            let end = self.started + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= end {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// The error of a body that arrived too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body arrived too slowly")]
pub struct TooSlow;

impl TooSlow {
    /// Whether `error`, or one of its sources, is this error.
    pub fn caused(error: &(dyn std::error::Error + 'static)) -> bool {
        std::iter::successors(Some(error), |e| e.source()).any(<dyn std::error::Error>::is::<Self>)
    }
}

/// A body that fails with [`TooSlow`] if the server has waited for its bytes longer than [`BodyRate`] allows. Time in
/// which the handler does not read does not count.
pub struct PacedBody {
    inner: Body,
    rate: BodyRate,
    activity: Activity,
    received: u64,
    waited: Duration,
    /// Start of the current wait for bytes, and the timer that ends it.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl PacedBody {
    pub fn new(inner: Body, rate: BodyRate, activity: Activity) -> Self {
        Self { inner, rate, activity, received: 0, waited: Duration::ZERO, waiting: None }
    }

    fn time_left(&self) -> Duration {
        let earned = Duration::from_secs(self.received / self.rate.bytes_per_second.max(1));
        (self.rate.grace + earned).saturating_sub(self.waited)
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            self.activity.note();
            if let Some((since, _)) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            if let Some(Ok(data)) = frame.as_ref().map(|f| f.as_ref().map(Frame::data_ref)) {
                self.received += data.map_or(0, |bytes| bytes.len() as u64);
            }
            return Poll::Ready(frame.map(|f| f.map_err(Into::into)));
        }
        let left = self.time_left();
        let (_, timer) = self.waiting.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        timer.as_mut().poll(cx).map(|()| Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;

    /// A body whose chunks the test sends; `grace` is in milliseconds.
    fn paced(grace: u64, bytes_per_second: u64) -> (mpsc::UnboundedSender<Bytes>, PacedBody) {
        let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
        let chunks = futures::stream::unfold(receiver, |mut r| async move { Some((r.recv().await?, r)) });
        let body = Body::from_stream(futures::StreamExt::map(chunks, Ok::<_, std::convert::Infallible>));
        let rate = BodyRate { grace: Duration::from_millis(grace), bytes_per_second };
        (sender, PacedBody::new(body, rate, Activity::default()))
    }

    #[tokio::test]
    async fn all_chunks_are_passed_on() {
        let (sender, body) = paced(60_000, 1);
        tokio::spawn(async move {
            sender.send(vec![1; 300].into()).unwrap();
            sleep(Duration::from_millis(5)).await;
            sender.send(vec![2; 5].into()).unwrap();
        });
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 305);
    }

    #[tokio::test]
    async fn a_body_below_the_rate_fails() {
        let (sender, body) = paced(50, 1_000_000);
        let trickle = tokio::spawn(async move {
            while sender.send(Bytes::from_static(b"x")).is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        let error = body.collect().await.unwrap_err();
        assert!(TooSlow::caused(&*error));
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn a_slow_reader_does_not_use_up_the_time_of_the_sender() {
        let (sender, mut body) = paced(20, 1_000_000);
        for _ in 0..5 {
            sender.send(vec![0; 10].into()).unwrap();
        }
        drop(sender);
        let mut n = 0;
        while let Some(frame) = body.frame().await {
            n += frame.unwrap().into_data().unwrap().len();
            sleep(Duration::from_millis(30)).await;
        }
        assert_eq!(n, 50);
    }

    #[test]
    fn bytes_add_time_and_waiting_uses_it_up() {
        let rate = BodyRate { grace: Duration::from_secs(3), bytes_per_second: 100 };
        let mut body = PacedBody::new(Body::empty(), rate, Activity::default());
        assert_eq!(body.time_left(), Duration::from_secs(3));
        (body.received, body.waited) = (1000, Duration::from_secs(4));
        assert_eq!(body.time_left(), Duration::from_secs(9));
        body.waited = Duration::from_secs(40);
        assert_eq!(body.time_left(), Duration::ZERO);
    }

    #[tokio::test]
    async fn exempt_time_does_not_count() {
        let activity = Activity::default();
        let limit = Duration::from_millis(20);
        let work = async {
            activity.exempt(sleep(5 * limit)).await;
            "the limit begins only now"
        };
        tokio::select! {
            biased;
            () = activity.idle_for(limit) => panic!("the time counted"),
            _ = work => {}
        }
        activity.idle_for(limit).await;
    }

    #[tokio::test]
    async fn the_time_limit_starts_at_the_last_activity() {
        let activity = Activity::default();
        activity.idle_for(Duration::ZERO).await;
        activity.last.store(3_600_000, Ordering::Relaxed);
        let idle = tokio::time::timeout(Duration::from_millis(20), activity.idle_for(Duration::ZERO)).await;
        assert!(idle.is_err());
    }
}
