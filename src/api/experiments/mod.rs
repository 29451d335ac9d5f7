//! `/v1/experiments`: forward passes whose result is a few numbers. Nothing is stored.

pub mod patching;
mod patching_answer;
mod patching_body;
mod patching_question;
