//! Exports: which rows of which caches make the arrays asked for, found out before the first byte is sent.

mod cache_pages;
mod export_plan;
mod picked;

pub use cache_pages::{CachePages, ExportScope};
pub use export_plan::{ExportArray, ExportPlan, ExportQuestion};
pub use picked::Picked;

use super::Questions;
use residuum_domain::{Problem, TenantId};

impl Questions {
    /// Holds what is asked for against what there is, and begins to read the caches.
    ///
    /// # Errors
    /// Those of [`ExportPlan::new`], and the store's.
    pub async fn export(
        &self,
        tenant: TenantId,
        scope: ExportScope,
        question: ExportQuestion,
    ) -> Result<(ExportPlan, CachePages), Problem> {
        let kinds = self.store().survey(tenant, &scope.filter()).await?;
        let plan = ExportPlan::new(question, &kinds)?;
        Ok((plan, CachePages::new(self.store().clone(), tenant, scope)))
    }
}
