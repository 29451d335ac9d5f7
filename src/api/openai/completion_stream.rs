//! Completions in chunks, as server-sent events.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use futures::stream;

use super::{
    answer_parts::Usage,
    answering::Answering,
    asked::Form,
    chat_answer::{ChatChunk, ChunkChoice},
    completion_answer::{Completion, CompletionChoice},
    openai_error::OpenAiErrorDto,
    pieces::Piece,
    recording::Recorded,
};
use crate::api::state::ApiState;
use residuum_domain::{Code, Problem, RunId, TenantId};

/// Time between two keep-alive comments: only sending something shows that a client has disconnected.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The generation as a stream. A client that disconnects ends it.
pub fn respond(answering: Answering, include_usage: bool) -> Response {
    let sending = Sending::new(answering, include_usage);
    let events = stream::unfold(sending, |mut sending| async move {
        let event = sending.next().await?;
        Some((Ok::<Event, Infallible>(event), sending))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

/// Cancels a stored run when it is dropped, unless it has ended. (One that is not stored ends by itself.)
struct CancelOnDrop {
    state: ApiState,
    tenant: TenantId,
    run: Option<RunId>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Some(run) = self.run.take() else { return };
        let (engine, tenant) = (self.state.engine.clone(), self.tenant);
        tokio::spawn(async move {
            if let Err(problem) = engine.cancel(tenant, run).await {
                tracing::warn!(%run, %problem, "a run whose client disconnected could not be cancelled");
            }
        });
    }
}

/// What is sent next.
enum Phase {
    /// Tokens.
    Generating,
    /// Counts, and where it is stored.
    Closing,
    /// `[DONE]`.
    Done,
    /// Nothing.
    Ended,
}

struct Sending {
    answering: Answering,
    include_usage: bool,
    waiting: VecDeque<Event>,
    phase: Phase,
    cancel: CancelOnDrop,
}

impl Sending {
    fn new(answering: Answering, include_usage: bool) -> Self {
        let run = answering.recorded.then(|| answering.completing.run());
        let cancel = CancelOnDrop { state: answering.state.clone(), tenant: answering.tenant, run };
        let mut this = Self { answering, include_usage, waiting: VecDeque::new(), phase: Phase::Generating, cancel };
        let n_items = this.answering.completing.n_items();
        this.waiting = match this.answering.form {
            Form::Chat => (0..n_items).map(|i| this.chat_event(vec![ChunkChoice::opening(i)], None, None)).collect(),
            Form::Text => this.answering.pieces.first(n_items).into_iter().map(|piece| this.event(piece)).collect(),
        };
        this
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            match self.phase {
                Phase::Generating => match self.answering.completing.next().await {
                    Some(event) => match self.answering.pieces.of(&event, &self.answering.completing) {
                        Ok(piece) => self.queue(piece),
                        Err(problem) => return Some(self.failure(&problem)),
                    },
                    None => self.phase = Phase::Closing,
                },
                Phase::Closing => match self.answering.recorded().await {
                    Ok(recorded) => self.close(recorded),
                    Err(problem) => return Some(self.failure(&problem)),
                },
                Phase::Done => {
                    self.phase = Phase::Ended;
                    return Some(Event::default().data("[DONE]"));
                }
                Phase::Ended => return None,
            }
        }
    }

    /// Queues a piece, unless it says nothing.
    fn queue(&mut self, piece: Piece) {
        if !piece.text.is_empty() || !piece.tokens.is_empty() || piece.finish_reason.is_some() {
            let event = self.event(piece);
            self.waiting.push_back(event);
        }
    }

    /// Queues the last chunk, if there is something to say in it.
    fn close(&mut self, recorded: Option<Recorded>) {
        self.phase = Phase::Done;
        self.cancel.run = None;
        if !self.include_usage && recorded.is_none() {
            return;
        }
        let usage = self.include_usage.then(|| Usage::of(self.answering.pieces.counts()));
        let event = match self.answering.form {
            Form::Text => self.text_event(Vec::new(), usage, recorded),
            Form::Chat => self.chat_event(Vec::new(), usage, recorded),
        };
        self.waiting.push_back(event);
    }

    /// The error that ends the stream.
    fn failure(&mut self, problem: &Problem) -> Event {
        metrics::counter!("residuum_errors_total", "code" => problem.code.name()).increment(1);
        self.phase = Phase::Ended;
        json_event(&OpenAiErrorDto::of(problem))
    }

    fn event(&self, piece: Piece) -> Event {
        match self.answering.form {
            Form::Text => self.text_event(vec![CompletionChoice::chunk(piece)], None, None),
            Form::Chat => self.chat_event(vec![ChunkChoice::of(piece)], None, None),
        }
    }

    /// The counts of a chunk: not there, or null until they are known.
    fn usage(&self, known: Option<Usage>) -> Option<Option<Usage>> {
        self.include_usage.then_some(known)
    }

    fn text_event(&self, choices: Vec<CompletionChoice>, usage: Option<Usage>, recorded: Option<Recorded>) -> Event {
        json_event(&Completion::new(&self.answering.head, choices, self.usage(usage), recorded))
    }

    fn chat_event(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>, recorded: Option<Recorded>) -> Event {
        json_event(&ChatChunk::new(&self.answering.head, choices, self.usage(usage), recorded))
    }
}

fn json_event(value: &impl serde::Serialize) -> Event {
    Event::default().json_data(value).unwrap_or_else(|error| {
        tracing::error!(%error, "a chunk could not be written as JSON");
        let problem = Problem::new(Code::Internal, "a chunk could not be written");
        Event::default().data(serde_json::to_string(&OpenAiErrorDto::of(&problem)).unwrap_or_default())
    })
}
