//! What the tests of the kernels share: seeded numbers, closeness, bit equality.

/// `n` numbers in -1..1 from a seed (splitmix64).
pub fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..n).map(|_| (next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// Asserts that the numbers agree to `tolerance` times the RMS of what is expected.
#[track_caller]
pub fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len());
    let mean_square = expected.iter().map(|x| x * x).sum::<f64>() / expected.len().max(1) as f64;
    let bound = tolerance * mean_square.sqrt();
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        assert!((f64::from(a) - e).abs() <= bound, "number {i}: {a} instead of {e}, more than {bound:.3e} off");
    }
}

/// Asserts that the numbers are the same bits.
#[track_caller]
pub fn assert_same_bits(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert_eq!(a.to_bits(), e.to_bits(), "number {i}: {a:e} instead of {e:e}");
    }
}
