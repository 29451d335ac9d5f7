//! Differences of means, principal components and probes against numpy and scikit-learn
//! (scripts/make_direction_goldens.py).

use residuum::analysis::{
    classes::{self, Separation},
    logistic::sigmoid,
    pca::pca,
    probe::{ProbeSettings, probe},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    vectors: Vec<Vec<f32>>,
    labels: Vec<bool>,
    difference_of_means: Difference,
    pca: Components,
    probes: Vec<Fitted>,
}

#[derive(Deserialize)]
struct Difference {
    direction: Vec<f64>,
    cohens_d: f64,
    auroc: f64,
}

#[derive(Deserialize)]
struct Components {
    k: usize,
    components: Vec<Vec<f64>>,
    explained_variance: Vec<f64>,
    explained_variance_ratio: Vec<f64>,
}

#[derive(Deserialize)]
struct Fitted {
    c: f64,
    folds: usize,
    seed: u64,
    weights: Vec<f64>,
    intercept: f64,
    probabilities: Vec<f64>,
    fold_accuracy: Vec<f64>,
    fold_auroc: Vec<f64>,
    shuffled_accuracy: f64,
    shuffled_auroc: f64,
}

fn cases() -> Vec<Case> {
    let text = include_str!("../goldens_analysis/directions.json");
    serde_json::from_str::<Goldens>(text).unwrap().cases
}

/// Largest difference, relative to the norm of the expected values.
fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
    worst / classes::norm(expected)
}

#[test]
fn differences_of_means_agree_with_numpy() {
    for case in cases() {
        let (positive, negative) =
            (classes::mean(&case.vectors, &case.labels, true), classes::mean(&case.vectors, &case.labels, false));
        let direction: Vec<f64> = positive.iter().zip(&negative).map(|(p, n)| p - n).collect();
        let expected = &case.difference_of_means;
        assert!(error(&direction, &expected.direction) < 1e-12, "{}", case.name);
        let separation = Separation::of(&classes::project(&case.vectors, &direction), &case.labels);
        assert!((separation.cohens_d.unwrap() - expected.cohens_d).abs() < 1e-9, "{}", case.name);
        assert!((separation.auroc.unwrap() - expected.auroc).abs() < 1e-12, "{}", case.name);
    }
}

#[test]
fn principal_components_agree_with_scikit_learn() {
    for case in cases() {
        let found = pca(&case.vectors, case.pca.k, true).unwrap();
        for (component, expected) in found.components.iter().zip(&case.pca.components) {
            let dot: f64 = component.iter().zip(expected).map(|(a, b)| a * b).sum();
            let expected: Vec<f64> = expected.iter().map(|v| v * dot.signum()).collect();
            assert!(error(component, &expected) < 1e-10, "{}", case.name);
            let peak = component.iter().fold(0.0f64, |m, v| if v.abs() > m.abs() { *v } else { m });
            assert!(peak > 0.0, "{}", case.name);
        }
        assert!(error(&found.explained_variance, &case.pca.explained_variance) < 1e-12, "{}", case.name);
        assert!(error(&found.explained_variance_ratio, &case.pca.explained_variance_ratio) < 1e-12, "{}", case.name);
    }
}

#[test]
fn probes_agree_with_scikit_learn() {
    let mut worst = 0.0f64;
    for case in cases() {
        for expected in &case.probes {
            let at = format!("{} c={}", case.name, expected.c);
            let settings = ProbeSettings { c: expected.c, folds: expected.folds, seed: expected.seed, shuffles: 1 };
            let found = probe(&case.vectors, &case.labels, settings).unwrap();
            let of_weights = error(&found.weights, &expected.weights);
            let of_intercept = (found.intercept - expected.intercept).abs() / expected.intercept.abs();
            println!("{at}: weights {of_weights:.1e}, intercept {of_intercept:.1e}, {} steps", found.n_steps);
            worst = worst.max(of_weights).max(of_intercept);
            let logits = classes::project(&case.vectors, &found.weights);
            let probabilities: Vec<f64> = logits.iter().map(|l| sigmoid(l + found.intercept)).collect();
            assert!(error(&probabilities, &expected.probabilities) < 1e-6, "{at}");
            assert!(error(&found.fold_accuracy, &expected.fold_accuracy) < 1e-12, "{at}");
            assert!(error(&found.fold_auroc, &expected.fold_auroc) < 1e-12, "{at}");
            assert!((found.shuffled_accuracy - expected.shuffled_accuracy).abs() < 1e-12, "{at}");
            assert!((found.shuffled_auroc - expected.shuffled_auroc).abs() < 1e-12, "{at}");
        }
    }
    assert!(worst < 1e-5, "{worst:e}");
}

#[test]
fn probes_of_noise_are_right_by_chance_only() {
    let noise = cases().into_iter().find(|c| c.name == "noise").unwrap();
    let settings = ProbeSettings { c: 1.0, folds: 5, seed: 0, shuffles: 10 };
    let found = probe(&noise.vectors, &noise.labels, settings).unwrap();
    assert!((found.shuffled_auroc - 0.5).abs() < 0.08, "{}", found.shuffled_auroc);
}
