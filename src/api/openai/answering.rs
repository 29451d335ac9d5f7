//! A generation whose answer is being written.

use super::{answer_parts::Head, asked::Form, pieces::Pieces, recording::Recorded};
use crate::api::state::ApiState;
use residuum_domain::{Problem, TenantId};
use residuum_engine::Completing;

/// A generation under way, with what its answer needs.
pub struct Answering {
    pub state: ApiState,
    pub tenant: TenantId,
    pub form: Form,
    pub completing: Completing,
    pub pieces: Pieces,
    pub head: Head,
    /// Whether log-probabilities are wanted.
    pub logprobs: bool,
    /// Whether it is stored.
    pub recorded: bool,
}

impl Answering {
    /// Where the generation is stored, once it is; `None` if it is not.
    pub async fn recorded(&self) -> Result<Option<Recorded>, Problem> {
        if !self.recorded {
            return Ok(None);
        }
        let (id, n_items) = (self.completing.run(), self.completing.n_items());
        Recorded::of(&self.state, self.tenant, id, n_items).await.map(Some)
    }
}
