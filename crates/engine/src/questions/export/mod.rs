//! Exports: decides before the first byte is sent which rows of which caches go into which arrays.

mod arrangement;
mod cache_pages;
mod export_plan;
mod picked;

pub use arrangement::Arrangement;
pub use cache_pages::CachePages;
pub use export_plan::{ExportArray, ExportPlan, ExportQuestion};
pub use picked::Picked;

use super::Questions;
use residuum_domain::{CacheFilter, Problem, TenantId};

impl Questions {
    /// Plans an export of the caches that a filter finds, and starts reading them.
    ///
    /// # Errors
    /// Those of [`ExportPlan::new`], and those of the store.
    pub async fn export(
        &self,
        tenant: TenantId,
        filter: &CacheFilter,
        question: ExportQuestion,
    ) -> Result<(ExportPlan, CachePages), Problem> {
        let kinds = self.store().survey(tenant, filter).await?;
        let plan = ExportPlan::new(question, &kinds)?;
        let ids = plan.question.arrangement.of(self.store(), tenant, filter).await?;
        Ok((plan, CachePages::new(self.store().clone(), tenant, ids)))
    }
}
