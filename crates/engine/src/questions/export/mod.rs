//! Exports: decides before the first byte is sent which rows of which caches go into which arrays.

mod cache_pages;
mod export_plan;
mod picked;

pub use cache_pages::{CachePages, ExportScope};
pub use export_plan::{ExportArray, ExportPlan, ExportQuestion};
pub use picked::Picked;

use super::Questions;
use residuum_domain::{Problem, TenantId};

impl Questions {
    /// Plans an export and starts reading its caches.
    ///
    /// # Errors
    /// Those of [`ExportPlan::new`], and those of the store.
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
