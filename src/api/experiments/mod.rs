//! `/v1/experiments`: forward passes whose outcome is a few numbers, nothing of which is kept.

pub mod patching;
mod patching_answer;
mod patching_body;

pub use patching_answer::PatchingProgress;
