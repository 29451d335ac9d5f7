//! The one writer: a task that owns the only connection that changes the index, with group commit.
//!
//! Changes wait in a bounded channel. The task takes what is waiting, applies it, commits it as one transaction, and
//! only then answers: an answer means durable. If a change fails, the transaction is rolled back and all are applied
//! again, each in a savepoint, so that only the failing one is lost. Not at the first try: savepoints cost a copy of
//! every page and a flush of the full-text index.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use futures::future::BoxFuture;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::{
    blobs::{
        LocalBlobs,
        epoch::KeepDeleted,
        obsolete::{Obsolete, remove_deleted},
    },
    clock::Clock,
    error::StoreError,
    fault,
    index::{ids::Ids, tx::Tx, write::Write},
};

/// Changes that may wait in the channel; then senders wait (backpressure).
const QUEUE: usize = 1024;
/// Most changes of one group commit.
const GROUP: usize = 256;

/// How the changes of a group are isolated from each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Isolation {
    /// Not at all: the error of one undoes all of them.
    None,
    /// Each has a savepoint.
    Savepoints,
}

/// What became of a transaction.
enum Committed {
    Yes(Obsolete),
    /// It was rolled back, since a change failed that had no savepoint.
    Undone(StoreError),
}

struct Job<W: Write> {
    change: W,
    outcome: Option<Result<W::Output, StoreError>>,
    reply: oneshot::Sender<Result<W::Output, StoreError>>,
}

/// A [`Job`] with its types erased.
trait AnyJob: Send {
    fn durable(&self) -> bool;
    fn changes(&self) -> bool;
    fn frees(&self) -> bool;
    fn is_optional(&self) -> bool;
    fn at_once(&self) -> bool;
    /// Applies the change; an error means that it has no effect. With a savepoint of its own, it leaves no statement waiting.
    fn apply<'a>(&'a mut self, tx: &'a mut Tx<'_>, isolation: Isolation) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Answers, with `failure` instead of the outcome where the group failed.
    fn answer(self: Box<Self>, failure: Option<&StoreError>);
}

impl<W: Write> AnyJob for Job<W> {
    fn durable(&self) -> bool {
        W::DURABLE
    }

    fn changes(&self) -> bool {
        W::CHANGES
    }

    fn frees(&self) -> bool {
        W::FREES
    }

    fn is_optional(&self) -> bool {
        W::OPTIONAL
    }

    fn at_once(&self) -> bool {
        self.change.at_once()
    }

    fn apply<'a>(&'a mut self, tx: &'a mut Tx<'_>, isolation: Isolation) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let outcome = match self.change.apply(tx).await {
                Ok(outcome) if isolation == Isolation::Savepoints => tx.flush().await.map(|()| outcome),
                outcome => outcome,
            };
            let holds = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
            // the error may come from a statement of another change, which waited
            self.outcome = (outcome.is_ok() || isolation == Isolation::Savepoints).then_some(outcome);
            holds
        })
    }

    fn answer(self: Box<Self>, failure: Option<&StoreError>) {
        let outcome = match (failure, self.outcome) {
            // a change that failed by itself keeps its own error
            (_, Some(Err(own))) => Err(own),
            (Some(error), _) => Err(error.clone()),
            (None, Some(done)) => done,
            (None, None) => Err(StoreError::Closed),
        };
        // the caller may have gone; the change is applied all the same
        drop(self.reply.send(outcome));
    }
}

enum Message {
    Change(Box<dyn AnyJob>),
    Close(oneshot::Sender<()>),
}

/// Handle to the writer task.
pub(crate) struct Writer {
    sender: mpsc::Sender<Message>,
    commits: Arc<AtomicU64>,
}

impl Writer {
    /// Starts the task. It ends when it is told to close or when every handle is gone.
    pub(crate) fn start(conn: SqliteConnection, blobs: Arc<LocalBlobs>, clock: Clock, keep: KeepDeleted) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let commits = Arc::<AtomicU64>::default();
        let commits_of_task = Arc::clone(&commits);
        let (ids, full_sync) = (Ids::default(), true);
        let task = Task { conn, ids, blobs, clock, keep, full_sync, commits: commits_of_task };
        tokio::spawn(task.run(receiver));
        Self { sender, commits }
    }

    /// Applies a change and waits until it is committed. The change goes on when the caller stops waiting.
    ///
    /// # Errors
    /// The change's own, the commit's, or [`StoreError::Closed`].
    pub(crate) async fn write<W: Write>(&self, change: W) -> Result<W::Output, StoreError> {
        let (reply, outcome) = oneshot::channel();
        let job = Box::new(Job { change, outcome: None, reply });
        self.sender.send(Message::Change(job)).await.map_err(|_| StoreError::Closed)?;
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    /// Transactions committed since the start that changed something: while the number is the same, so is the index. It has
    /// grown by the time a change is answered.
    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Commits what is waiting, moves the log into the database and closes it.
    pub(crate) async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.sender.send(Message::Close(done)).await.is_ok() {
            // an error means that the task has ended, which is what was asked for
            drop(closed.await);
        }
    }
}

struct Task {
    conn: SqliteConnection,
    ids: Ids,
    blobs: Arc<LocalBlobs>,
    clock: Clock,
    /// How long the files of deleted packs stay for those who read them.
    keep: KeepDeleted,
    /// Whether the connection's commits are flushed to the disk at present.
    full_sync: bool,
    /// See [`Writer::commits`].
    commits: Arc<AtomicU64>,
}

impl Task {
    async fn run(mut self, mut receiver: mpsc::Receiver<Message>) {
        let mut waiting = Vec::with_capacity(GROUP);
        let mut closing = None;
        while closing.is_none() && receiver.recv_many(&mut waiting, GROUP).await > 0 {
            let mut group = Vec::with_capacity(waiting.len());
            for message in waiting.drain(..) {
                match message {
                    Message::Change(job) => group.push(job),
                    Message::Close(done) => closing = Some(done),
                }
            }
            self.group(group).await;
        }
        receiver.close();
        let mut late = Vec::new();
        while let Some(message) = receiver.recv().await {
            if let Message::Change(job) = message {
                late.push(job);
            }
        }
        self.group(late).await;
        self.shut().await;
        if let Some(done) = closing {
            // whoever asked may have gone
            let _ = done.send(());
        }
    }

    async fn shut(self) {
        // readers that are still there are told that they are gone
        remove_deleted(&self.blobs).await;
        let Self { mut conn, blobs, .. } = self;
        if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut conn).await {
            tracing::warn!(%error, "the log of the index could not be moved into it; the next start does it");
        }
        if let Err(error) = conn.close().await {
            tracing::warn!(%error, "the index did not close cleanly");
        }
        // the lock of the folder goes with its last holder
        drop(blobs);
    }

    async fn group(&mut self, mut jobs: Vec<Box<dyn AnyJob>>) {
        if jobs.is_empty() {
            return;
        }
        if self.blobs.is_tight() {
            let (frees, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.frees());
            others.into_iter().for_each(|job| job.answer(Some(&StoreError::Full)));
            jobs = frees;
            if jobs.is_empty() {
                return;
            }
        }
        let mut done = self.try_commit(&mut jobs).await;
        let is_full = matches!(done, Err(StoreError::Full));
        if is_full && remove_deleted(&self.blobs).await {
            done = self.try_commit(&mut jobs).await;
        }
        if matches!(done, Err(StoreError::Full)) && jobs.iter().any(|j| j.is_optional()) {
            let (optional, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|j| j.is_optional());
            optional.into_iter().for_each(|job| job.answer(Some(&StoreError::Full)));
            jobs = others;
            if !jobs.is_empty() {
                done = self.try_commit(&mut jobs).await;
            }
        }
        if matches!(done, Err(StoreError::Full)) && jobs.iter().any(|j| j.frees()) && self.blobs.use_reserve() {
            done = self.try_commit(&mut jobs).await;
        }
        let failure = match done {
            Ok(files) => {
                let at_once = is_full || jobs.iter().any(|j| j.at_once());
                let keep = if at_once { KeepDeleted::NOTHING } else { self.keep };
                files.remove(&self.blobs, keep).await;
                None
            }
            Err(error) => Some(error),
        };
        jobs.into_iter().for_each(|job| job.answer(failure.as_ref()));
        self.blobs.keep_reserve();
    }

    /// Commits the changes; those that fail by themselves have their own errors then.
    async fn try_commit(&mut self, jobs: &mut [Box<dyn AnyJob>]) -> Result<Obsolete, StoreError> {
        match self.transaction(jobs, Isolation::None).await? {
            Committed::Yes(files) => Ok(files),
            // there is no other change to save
            Committed::Undone(own) if jobs.len() == 1 => Err(own),
            Committed::Undone(_) => match self.transaction(jobs, Isolation::Savepoints).await? {
                Committed::Yes(files) => Ok(files),
                Committed::Undone(error) => Err(error),
            },
        }
    }

    async fn transaction(
        &mut self,
        jobs: &mut [Box<dyn AnyJob>],
        isolation: Isolation,
    ) -> Result<Committed, StoreError> {
        let done = self.commit(jobs, isolation).await;
        if !matches!(done, Ok(Committed::Yes(_))) {
            self.ids.forget();
            // SQLite may have rolled back by itself; then this fails, and nothing is left to do
            drop(sqlx::query("ROLLBACK").execute(&mut self.conn).await);
        }
        done
    }

    async fn commit(&mut self, jobs: &mut [Box<dyn AnyJob>], isolation: Isolation) -> Result<Committed, StoreError> {
        let full = jobs.iter().any(|j| j.durable());
        self.set_sync(full).await?;
        let now = self.clock.now();
        let faults = &self.blobs.faults;
        let mut tx = Tx::begin(&mut self.conn, &mut self.ids, now, faults, jobs.len() == 1);
        faults.hit(fault::BEGUN)?;
        for job in &mut *jobs {
            if isolation == Isolation::Savepoints {
                tx.later("SAVEPOINT change");
                tx.flush().await?;
            }
            let files = (tx.unlink.len(), tx.retire.len());
            match (job.apply(&mut tx, isolation).await, isolation) {
                (Ok(()), Isolation::Savepoints) => {}
                (Ok(()), Isolation::None) => match tx.flush_if_large().await {
                    Ok(()) => {}
                    Err(error) if error.is_of_one_change() => return Ok(Committed::Undone(error)),
                    Err(error) => return Err(error),
                },
                // then no change has an effect, and SQLite may have rolled all of them back
                (Err(error), _) if !error.is_of_one_change() => return Err(error),
                (Err(error), Isolation::None) => return Ok(Committed::Undone(error)),
                (Err(_), Isolation::Savepoints) => {
                    tx.forget_waiting();
                    tx.ids.forget();
                    tx.unlink.truncate(files.0);
                    tx.retire.truncate(files.1);
                    tx.later("ROLLBACK TO change");
                }
            }
            if isolation == Isolation::Savepoints {
                tx.later("RELEASE change");
            }
        }
        match end(&mut tx).await {
            Ok(()) => {}
            // it may come from one change, a statement of which waited
            Err(error) if isolation == Isolation::None && error.is_of_one_change() => {
                return Ok(Committed::Undone(error));
            }
            Err(error) => return Err(error),
        }
        let files = Obsolete { unlink: tx.unlink, retire: tx.retire };
        if jobs.iter().any(|j| j.changes()) {
            self.commits.fetch_add(1, Ordering::AcqRel);
        }
        // what is committed cannot fail any more
        drop(self.blobs.faults.hit(fault::COMMITTED));
        Ok(Committed::Yes(files))
    }

    /// In WAL mode `NORMAL` leaves the log unflushed at a commit: the next `FULL` commit flushes it along.
    async fn set_sync(&mut self, full: bool) -> Result<(), StoreError> {
        if self.full_sync != full {
            let pragma = if full { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" };
            sqlx::query(pragma).execute(&mut self.conn).await?;
            self.full_sync = full;
        }
        Ok(())
    }
}

/// Commits, together with what still waits.
async fn end(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    if tx.faults.await_at(fault::APPLIED) {
        tx.flush().await?;
    }
    tx.faults.hit(fault::APPLIED)?;
    tx.enter_tombstones();
    tx.later("COMMIT");
    tx.flush().await
}
