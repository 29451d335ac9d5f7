use super::*;

/// Values in [-1, 1) that look random.
fn noise(seed: u32, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn exact(nearness: Nearness, a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    match nearness {
        Nearness::Dot => dot(a, b),
        Nearness::Cosine => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
        Nearness::Euclidean => a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt(),
    }
}

#[test]
fn every_ranking_is_that_of_brute_force_in_float64() {
    for level in simd::Level::available() {
        for (width, n, n_queries) in [(1, 70, 1), (16, 33, 7), (31, 200, 8), (100, 37, 3), (576, 65, 14)] {
            let rows = noise(7, n * width);
            let queries: Vec<Vec<f32>> = (0..n_queries).map(|q| noise(q + 99, width)).collect();
            for nearness in [Nearness::Cosine, Nearness::Dot, Nearness::Euclidean] {
                let scan = Scan::at(level, nearness, &queries);
                let mut rankings = scan.rankings(5);
                let keys: Vec<usize> = (0..n).collect();
                scan.offer(&rows, &keys, &mut rankings);
                for (query, best) in queries.iter().zip(rankings) {
                    let mut all: Vec<f64> = rows.chunks(width).map(|row| exact(nearness, row, query)).collect();
                    let values = all.clone();
                    all.sort_by(f64::total_cmp);
                    if nearness != Nearness::Euclidean {
                        all.reverse();
                    }
                    let found = best.into_sorted();
                    assert_eq!(found.len(), 5);
                    for ((goodness, key), exact) in found.into_iter().zip(all) {
                        let score = f64::from(scan.score(goodness));
                        let tolerance = 2e-6 * (width as f64).sqrt();
                        assert!((score - values[key]).abs() < tolerance, "{nearness:?} {level:?} {width}");
                        assert!((score - exact).abs() < tolerance, "{nearness:?} {level:?} {width}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_score_depends_on_its_row_and_query_alone() {
    let (width, n) = (45, 41);
    let rows = noise(3, n * width);
    let queries: Vec<Vec<f32>> = (0..11).map(|q| noise(q + 50, width)).collect();
    let keys: Vec<usize> = (0..n).collect();
    for level in simd::Level::available() {
        for nearness in [Nearness::Cosine, Nearness::Dot, Nearness::Euclidean] {
            let scan = Scan::at(level, nearness, &queries);
            let mut together = scan.rankings(n);
            scan.offer(&rows, &keys, &mut together);
            for (query, together) in queries.iter().zip(together) {
                let alone = Scan::at(level, nearness, std::slice::from_ref(query));
                let mut best = alone.rankings(n);
                for key in &keys {
                    alone.offer(&rows[key * width..][..width], &[*key], &mut best);
                }
                assert_eq!(best.remove(0).into_sorted(), together.into_sorted(), "{nearness:?} {level:?}");
            }
        }
    }
}

#[test]
fn rows_without_a_score_never_rank() {
    let rows = [[f32::NAN, 1.0], [0.0, 0.0], [1.0, 0.0], [f32::INFINITY, 0.0], [-1.0, 0.5]].concat();
    let keys = [0, 1, 2, 3, 4];
    for (nearness, expected) in
        [(Nearness::Cosine, vec![2, 4]), (Nearness::Dot, vec![2, 1, 4]), (Nearness::Euclidean, vec![2, 1, 4])]
    {
        let scan = Scan::new(nearness, &[vec![2.0, 0.0]]);
        let mut best = scan.rankings(10);
        scan.offer(&rows, &keys, &mut best);
        let found: Vec<i32> = best.remove(0).into_sorted().into_iter().map(|(_, key)| key).collect();
        assert_eq!(found, expected, "{nearness:?}");
    }
}

#[test]
fn distances_of_near_rows_do_not_cancel() {
    // ‖x‖² − 2x·q + ‖q‖² would lose this difference beside the norms.
    let query: Vec<f32> = noise(1, 64).iter().map(|x| x * 4096.0).collect();
    let mut row = query.clone();
    row[5] += 0.5;
    let expected = f64::from(row[5] - query[5]);
    let scan = Scan::new(Nearness::Euclidean, &[query]);
    let mut best = scan.rankings(1);
    scan.offer(&row, &[0], &mut best);
    assert!((f64::from(scan.score(best.remove(0).into_sorted()[0].0)) - expected).abs() < 1e-6);
}
