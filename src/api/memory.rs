//! Bounds the memory that the bodies of all requests take together.
//!
//! Memory is reserved for a body twice: for its bytes as they arrive, and before it is parsed for what parsing can take
//! ([`super::json::max_parsing_memory`]). If there is none for arriving bytes, the request is refused and not made to
//! wait, because it would keep the bytes it has sent so far. If there is none for parsing, the request waits. This
//! cannot deadlock: a request that is being parsed reserves nothing more.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use residuum_domain::{Code, Problem};

/// Bytes of one permit.
const UNIT: u64 = 1024;
/// One part in so many is for bytes of bodies, the rest for parsing.
const RECEIVED_PART: u64 = 4;
/// Maximum time that a received body waits to be parsed.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// `Retry-After` of a refused request, in seconds.
const RETRY_AFTER: u32 = 2;

/// The memory for bodies of all requests.
#[derive(Debug, Clone)]
pub struct RequestMemory {
    received: Arc<Semaphore>,
    parsing: Arc<Semaphore>,
    max_parsing: u32,
    max_wait: Duration,
}

impl RequestMemory {
    /// `bytes` for all requests together.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let received = units(bytes / RECEIVED_PART).max(1);
        let parsing = units(bytes - bytes / RECEIVED_PART).max(1);
        let semaphore = |units: u32| Arc::new(Semaphore::new(units as usize));
        Self { received: semaphore(received), parsing: semaphore(parsing), max_parsing: parsing, max_wait: MAX_WAIT }
    }

    /// The reservation of one request, empty at first.
    #[must_use]
    pub fn for_request(&self) -> Memory {
        Memory { all: self.clone(), received: None, n_received: 0, parsing: None }
    }
}

/// Number of permits for so many bytes.
fn units(bytes: u64) -> u32 {
    let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(most)
}

/// Memory reserved for one request, released when this is dropped.
#[derive(Debug)]
pub struct Memory {
    all: RequestMemory,
    received: Option<OwnedSemaphorePermit>,
    n_received: u64,
    parsing: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Reserves memory for bytes that have arrived.
    ///
    /// # Errors
    /// [`Code::ServerBusy`] if there is none.
    pub fn reserve_received(&mut self, bytes: usize) -> Result<(), Problem> {
        let before = units(self.n_received);
        self.n_received += bytes as u64;
        let more = units(self.n_received) - before;
        let permit = Arc::clone(&self.all.received).try_acquire_many_owned(more).map_err(|_| busy())?;
        match &mut self.received {
            Some(received) => received.merge(permit),
            None => self.received = Some(permit),
        }
        Ok(())
    }

    /// Waits for memory to parse in, which replaces what was reserved for parsing before. More than the server has
    /// counts as all that it has.
    ///
    /// # Errors
    /// [`Code::ServerBusy`] after a wait of a minute.
    pub async fn reserve_parsing(&mut self, bytes: u64) -> Result<(), Problem> {
        self.parsing = None;
        let wanted = units(bytes).min(self.all.max_parsing);
        let permit = timeout(self.all.max_wait, Arc::clone(&self.all.parsing).acquire_many_owned(wanted)).await;
        self.parsing = Some(permit.ok().and_then(Result::ok).ok_or_else(busy)?);
        Ok(())
    }
}

fn busy() -> Problem {
    let detail = "other requests use all the memory that this server has for request bodies; try again";
    Problem::new(Code::ServerBusy, detail).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_beyond_the_bound_are_refused_and_dropping_a_request_releases_memory() {
        let memory = RequestMemory::new(64 << 10);
        let (mut first, mut second) = (memory.for_request(), memory.for_request());
        first.reserve_received(10_000).unwrap();
        first.reserve_received(200).unwrap();
        let problem = second.reserve_received(10_000).unwrap_err();
        assert_eq!((problem.code, problem.retry_after), (Code::ServerBusy, Some(RETRY_AFTER)));
        drop(first);
        memory.for_request().reserve_received(16_000).unwrap();
    }

    #[tokio::test]
    async fn parsing_waits_for_memory_but_not_for_ever() {
        let memory = RequestMemory { max_wait: Duration::from_millis(100), ..RequestMemory::new(64 << 10) };
        let (mut first, mut second) = (memory.for_request(), memory.for_request());
        first.reserve_parsing(u64::MAX).await.unwrap();
        let waiting = tokio::spawn(async move { second.reserve_parsing(1).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
        let (mut third, mut fourth) = (memory.for_request(), memory.for_request());
        third.reserve_parsing(u64::MAX).await.unwrap();
        assert_eq!(fourth.reserve_parsing(1).await.unwrap_err().code, Code::ServerBusy);
    }
}
