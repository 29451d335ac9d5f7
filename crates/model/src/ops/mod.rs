//! The CPU kernels of the forward pass, on `f32` slices in row-major order.
//!
//! This module knows slices; it must not know models, hooks or requests. Two rules hold for every function here:
//!
//! - **A row depends on that row alone.** The numbers of a token do not change with the number of other rows in the
//!   call, their values, the number of threads, or the row's place. The order of a sum depends only on the length of the
//!   row, and partial tiles use the same arithmetic as full ones. Tests assert this bit for bit.
//! - **The instruction set is chosen once**, at run time (`simd`). AVX-512 and AVX2 with FMA work on the same 16
//!   SIMD lanes in the same order, so they agree bit for bit as well; a machine without fused multiply-add does not.
//!
//! Work is spread over the current rayon pool, where it is large enough to pay for waking other threads. A slice whose length
//! does not match its shape is a bug of the caller and panics: shapes come from a checked architecture, never from a
//! request.

pub mod activation;
pub mod attention;
pub mod elementwise;
pub mod linear;
pub mod norm;
pub mod rope_table;

mod outliers;
pub mod parallel;
mod rows;
mod simd;

pub use linear::{Linear, forward_all};

#[cfg(test)]
mod testing;
