//! The memory that requests under way may take, all together.
//!
//! A body is counted twice: its bytes as they arrive, and before it is read what reading it can become
//! ([`super::json::reading_takes`]). Arriving bytes for which there is no room are refused, since whoever sends them holds what
//! it has sent so far; what is about to be read waits its turn. Waiting ends: those who are being read wait for nobody here.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use residuum_domain::{Code, Problem};

/// Bytes of one permit.
const UNIT: u64 = 1024;
/// Of the whole, the part for bytes of bodies: a fourth.
const ARRIVING: u64 = 4;
/// How long a body that has arrived waits to be read.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds after which a request that found no room may try again.
const RETRY_AFTER: u32 = 2;

/// The memory for requests.
#[derive(Debug, Clone)]
pub struct RequestMemory {
    arriving: Arc<Semaphore>,
    working: Arc<Semaphore>,
    most_working: u32,
    patience: Duration,
}

impl RequestMemory {
    /// `bytes` for all requests together.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let arriving = units(bytes / ARRIVING).max(1);
        let working = units(bytes - bytes / ARRIVING).max(1);
        let semaphore = |units: u32| Arc::new(Semaphore::new(units as usize));
        Self { arriving: semaphore(arriving), working: semaphore(working), most_working: working, patience: PATIENCE }
    }

    /// A request that holds nothing yet.
    #[must_use]
    pub fn guest(&self) -> Memory {
        Memory { all: self.clone(), arrived: None, n_arrived: 0, working: None }
    }
}

/// Units that hold so many bytes.
fn units(bytes: u64) -> u32 {
    let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(most)
}

/// What one request takes of the memory, until it is dropped.
#[derive(Debug)]
pub struct Memory {
    all: RequestMemory,
    arrived: Option<OwnedSemaphorePermit>,
    n_arrived: u64,
    working: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// Takes room for bytes that have arrived.
    ///
    /// # Errors
    /// [`Code::ServerBusy`] when there is none.
    pub fn hold(&mut self, bytes: usize) -> Result<(), Problem> {
        let before = units(self.n_arrived);
        self.n_arrived += bytes as u64;
        let more = units(self.n_arrived) - before;
        let permit = Arc::clone(&self.all.arriving).try_acquire_many_owned(more).map_err(|_| busy())?;
        match &mut self.arrived {
            Some(arrived) => arrived.merge(permit),
            None => self.arrived = Some(permit),
        }
        Ok(())
    }

    /// Waits for room to work in, in place of what it had before; everything, for more than there is.
    ///
    /// # Errors
    /// [`Code::ServerBusy`] when there was none for a minute.
    pub async fn work(&mut self, bytes: u64) -> Result<(), Problem> {
        self.working = None;
        let wanted = units(bytes).min(self.all.most_working);
        let permit = timeout(self.all.patience, Arc::clone(&self.all.working).acquire_many_owned(wanted)).await;
        self.working = Some(permit.ok().and_then(Result::ok).ok_or_else(busy)?);
        Ok(())
    }
}

fn busy() -> Problem {
    let detail = "other requests take all the memory that this server has for requests; try again";
    Problem::new(Code::ServerBusy, detail).retry_after(RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_that_find_no_room_are_refused_and_room_comes_back() {
        let memory = RequestMemory::new(64 << 10);
        let (mut first, mut second) = (memory.guest(), memory.guest());
        first.hold(10_000).unwrap();
        first.hold(200).unwrap();
        let problem = second.hold(10_000).unwrap_err();
        assert_eq!((problem.code, problem.retry_after), (Code::ServerBusy, Some(RETRY_AFTER)));
        drop(first);
        memory.guest().hold(16_000).unwrap();
    }

    #[tokio::test]
    async fn work_waits_its_turn_and_not_for_ever() {
        let memory = RequestMemory { patience: Duration::from_millis(100), ..RequestMemory::new(64 << 10) };
        let (mut first, mut second) = (memory.guest(), memory.guest());
        first.work(u64::MAX).await.unwrap();
        let waiting = tokio::spawn(async move { second.work(1).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
        let (mut third, mut fourth) = (memory.guest(), memory.guest());
        third.work(u64::MAX).await.unwrap();
        assert_eq!(fourth.work(1).await.unwrap_err().code, Code::ServerBusy);
    }
}
