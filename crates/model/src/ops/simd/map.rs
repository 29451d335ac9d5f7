//! Functions of one or two vectors, mapped over slices of any length.

use super::{LANES, Op, Simd};

/// A function of one element, given on a vector of them.
pub trait Unary: Copy {
    fn call<S: Simd>(self, s: S, x: S::V) -> S::V;
}

/// A function of two elements, given on vectors of them.
pub trait Binary: Copy {
    fn call<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V;
}

/// `x[i] = f(x[i])`.
pub struct Map<'a, F> {
    pub x: &'a mut [f32],
    pub f: F,
}

impl<F: Unary> Op for Map<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (chunks, tail) = self.x.as_chunks_mut::<LANES>();
        for x in chunks {
            s.store(self.f.call(s, s.load(x)), x);
        }
        if !tail.is_empty() {
            let y = self.f.call(s, load_partial(s, tail));
            store_partial(s, y, tail);
        }
    }
}

/// `x[i] = f(x[i], y[i])`.
pub struct Zip<'a, F> {
    pub x: &'a mut [f32],
    pub y: &'a [f32],
    pub f: F,
}

impl<F: Binary> Op for Zip<'_, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (chunks, tail) = self.x.as_chunks_mut::<LANES>();
        let (others, other_tail) = self.y.as_chunks::<LANES>();
        for (x, y) in chunks.iter_mut().zip(others) {
            s.store(self.f.call(s, s.load(x), s.load(y)), x);
        }
        if !tail.is_empty() {
            let y = self.f.call(s, load_partial(s, tail), load_partial(s, other_tail));
            store_partial(s, y, tail);
        }
    }
}

/// Loads fewer than sixteen floats; the other lanes are zero.
#[inline(always)]
pub fn load_partial<S: Simd>(s: S, from: &[f32]) -> S::V {
    let mut lanes = [0.0; LANES];
    lanes[..from.len()].copy_from_slice(from);
    s.load(&lanes)
}

/// Stores the first `to.len()` lanes.
#[inline(always)]
pub fn store_partial<S: Simd>(s: S, v: S::V, to: &mut [f32]) {
    let mut lanes = [0.0; LANES];
    s.store(v, &mut lanes);
    to.copy_from_slice(&lanes[..to.len()]);
}
