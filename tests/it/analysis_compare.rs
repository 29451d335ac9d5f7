//! Comparisons against numpy and scipy (scripts/make_compare_goldens.py), and invariants that hold for any numbers.

use std::convert::Infallible;

use residuum::analysis::{
    MemoryRows, Metric, Preparation, Prepared, VectorMetric,
    aligned::{AlignedSet, Alignment, align},
    means::{MeanDifferences, mean_differences},
    rsa::Profile,
};
use serde_json::Value;

/// Relative tolerance: the reference uses float64 sums over float32 inputs in another order.
const TOLERANCE: f64 = 1e-9;

fn golden() -> Value {
    serde_json::from_str(include_str!("../goldens_analysis/compare.json")).unwrap()
}

fn rows(json: &Value) -> Vec<Vec<f32>> {
    let number = |v: &Value| v.as_f64().unwrap() as f32;
    json.as_array().unwrap().iter().map(|row| row.as_array().unwrap().iter().map(number).collect()).collect()
}

fn prepared(rows: &[Vec<f32>], preparation: Preparation) -> Prepared<MemoryRows> {
    ok(Prepared::new(MemoryRows::new(rows), preparation))
}

fn plain(rows: &[Vec<f32>]) -> Prepared<MemoryRows> {
    prepared(rows, Preparation::default())
}

fn ok<T>(result: Result<T, Infallible>) -> T {
    result.unwrap()
}

fn alignment(x: &Prepared<MemoryRows>, y: &Prepared<MemoryRows>) -> Alignment {
    ok(align(&ok(AlignedSet::new(x)), &ok(AlignedSet::new(y)), true))
}

fn rsa(x: &Prepared<MemoryRows>, y: &Prepared<MemoryRows>) -> Option<f64> {
    Some(ok(Profile::new(x))?.correlation(&ok(Profile::new(y))?))
}

#[track_caller]
fn close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= TOLERANCE * expected.abs(), "{what}: {found} for {expected}");
}

#[test]
fn metrics_agree_with_numpy_and_scipy() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let preparation =
            Preparation { center: case["center"].as_bool().unwrap(), normalize: case["normalize"].as_bool().unwrap() };
        let set = |name: &Value| prepared(&rows(&golden["sets"][name.as_str().unwrap()]), preparation);
        for pair in case["sets"].as_array().unwrap() {
            let (x, y, values) = (set(&pair["x"]), set(&pair["y"]), &pair["values"]);
            let found = alignment(&x, &y);
            let what = format!("{preparation:?} {} {}", pair["x"], pair["y"]);
            close(found.cka, &values["cka"], &format!("{what} cka"));
            close(found.cka_debiased, &values["cka_debiased"], &format!("{what} cka_debiased"));
            close(found.procrustes, &values["procrustes"], &format!("{what} procrustes"));
            close(rsa(&x, &y).unwrap(), &values["rsa"], &format!("{what} rsa"));
        }
        let wide = set(&Value::from("wide"));
        let (a, b) = (ok(wide.read(2..3)), ok(wide.read(9..10)));
        for metric in Metric::ALL {
            close(metric.of(&a, &b).unwrap(), &case["vectors"][metric.name()], metric.name());
        }
        let jaccard = VectorMetric::Jaccard { k: 3 }.zip(&[&a], &[&b]);
        close(jaccard[0], &case["vectors"]["jaccard"], "jaccard");
    }
}

fn means_of(left: &[Vec<f32>], right: &[Vec<f32>]) -> MeanDifferences {
    ok(mean_differences(&[plain(left), plain(right)]))
}

#[test]
fn differences_of_means_agree_with_numpy() {
    let golden = &golden()["means"];
    let found = means_of(&rows(&golden["left"]), &rows(&golden["right"]));
    close(found.difference[1], &golden["values"]["mean_difference"], "mean_difference");
    close(found.cosine[1], &golden["values"]["mean_cosine"], "mean_cosine");
    close(found.effect_size[1], &golden["values"]["effect_size"], "effect_size");
    assert_eq!((found.difference[0], found.difference[1]), (0.0, found.difference[2]));
    assert!(found.effect_size[0].is_nan(), "a group against itself has no direction");
}

/// Standard normal numbers from a fixed sequence.
fn normal(n: usize, width: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut one = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..n).map(|_| (0..width).map(|_| one() as f32).collect()).collect()
}

/// The rows rotated in the planes of the first two and of the last two dimensions, then scaled and shifted.
fn moved(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let turn = |row: &Vec<f32>| {
        let mut out = row.clone();
        for (i, j, angle) in [(0, 1, 0.7f32), (row.len() - 2, row.len() - 1, 2.1)] {
            (out[i], out[j]) =
                (angle.cos() * out[i] - angle.sin() * out[j], angle.sin() * out[i] + angle.cos() * out[j]);
        }
        out.iter().map(|v| 3.0 * v + 5.0).collect()
    };
    rows.iter().map(turn).collect()
}

#[test]
fn rotation_scale_and_shift_change_nothing() {
    // more rows than columns, and fewer: the formulas are computed in two ways
    for (n, width) in [(40, 6), (6, 40)] {
        let x = normal(n, width, 1);
        let found = alignment(&plain(&x), &plain(&moved(&x)));
        // the copy is rounded to float32
        assert!((found.cka - 1.0).abs() < 1e-6 && (found.cka_debiased - 1.0).abs() < 1e-6, "{found:?}");
        assert!(found.procrustes < 1e-6, "{found:?}");
    }
}

#[test]
fn independent_noise_is_not_similar() {
    let found = alignment(&plain(&normal(400, 60, 2)), &plain(&normal(400, 50, 3)));
    assert!(found.cka_debiased.abs() < 0.05, "{found:?}");
    assert!(found.cka > 0.1, "the biased estimate is far from zero: {found:?}");
    assert!(rsa(&plain(&normal(80, 30, 4)), &plain(&normal(80, 30, 5))).unwrap().abs() < 0.1);
}

#[test]
fn the_effect_size_of_shifted_gaussians_is_the_shift() {
    let left = normal(4000, 3, 6);
    let mut right = normal(4000, 3, 7);
    right.iter_mut().for_each(|row| row[1] += 2.0);
    let found = means_of(&left, &right);
    assert!((found.effect_size[1] - 2.0).abs() < 0.1, "{found:?}");
}

#[test]
fn undefined_metrics_are_nan() {
    let noise = plain(&normal(6, 4, 8));
    let same = plain(&vec![vec![0.1f32, 0.2, 0.3, 0.4]; 6]);
    let mut broken = normal(6, 4, 9);
    broken[3][2] = f32::NAN;
    for other in [&same, &plain(&broken), &plain(&vec![vec![0.0; 4]; 6])] {
        let found = alignment(&noise, other);
        assert!(found.cka.is_nan() && found.cka_debiased.is_nan() && found.procrustes.is_nan(), "{found:?}");
        assert_eq!(rsa(&noise, other), None);
    }
    let one = plain(&normal(1, 4, 10));
    assert!(alignment(&one, &one).cka.is_nan());
    assert!(alignment(&plain(&normal(3, 4, 10)), &plain(&normal(3, 4, 11))).cka_debiased.is_nan());
    let single = means_of(&normal(1, 4, 10), &normal(1, 4, 11));
    assert!(single.difference[1] > 0.0 && single.effect_size[1].is_nan());
}
