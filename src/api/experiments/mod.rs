//! `/v1/experiments`: forward passes whose outcome is a few numbers, nothing of which is kept.

mod answer;
pub mod patching;
mod request;

pub use answer::PatchingProgress;
