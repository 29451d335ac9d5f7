use std::sync::LazyLock;

use super::super::testing::{assert_close, assert_same_bits, numbers};
use super::*;

const SPEC: AttentionSpec = AttentionSpec {
    n_heads: 6,
    n_kv_heads: 2,
    d_head: 20,
    scale: 0.7,
    causal: true,
    window: None,
    softcap: None,
    key_biases: None,
};

/// A bias for each of six heads that grows with the position, and a kink in it.
fn bias(head: usize, position: usize) -> f32 {
    [0.5, 0.25, 0.125, 0.06, 0.03, 0.01][head] * (position % 29) as f32
}

static BIASES: LazyLock<KeyBiases> = LazyLock::new(|| KeyBiases::new(6, 700, bias));

/// Every kind of mask and score, and head sizes on and off the vector length.
fn specs() -> Vec<AttentionSpec<'static>> {
    vec![
        SPEC,
        AttentionSpec { window: Some(9), ..SPEC },
        AttentionSpec { window: Some(1), ..SPEC },
        AttentionSpec { causal: false, n_kv_heads: 6, d_head: 16, ..SPEC },
        AttentionSpec { causal: false, window: Some(8), ..SPEC },
        AttentionSpec { softcap: Some(1.5), d_head: 64, ..SPEC },
        AttentionSpec { key_biases: Some(&BIASES), n_kv_heads: 1, d_head: 5, ..SPEC },
        AttentionSpec { key_biases: Some(&BIASES), window: Some(9), ..SPEC },
    ]
}

/// The scores of one head of one sequence, `[n_q][n_k]`, from the definition, in double precision.
fn reference_scores(spec: &AttentionSpec, head: usize, q_pos: &[u32], q: &[f32], k: &[f32]) -> Vec<Vec<f64>> {
    let (d, group) = (spec.d_head, spec.n_heads / spec.n_kv_heads);
    let n_keys = k.len() / (spec.n_kv_heads * d);
    let score = |i: usize, j: usize| {
        let q = &q[(i * spec.n_heads + head) * d..][..d];
        let k = &k[(j * spec.n_kv_heads + head / group) * d..][..d];
        let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
        let mut score = dot * f64::from(spec.scale);
        if let Some(cap) = spec.softcap {
            score = f64::from(cap) * (score / f64::from(cap)).tanh();
        }
        if spec.key_biases.is_some() {
            score += f64::from(bias(head, j));
        }
        let (p, key) = (i64::from(q_pos[i]), j as i64);
        let seen = match (spec.causal, spec.window.map(|w| w as i64)) {
            (true, window) => key <= p && window.is_none_or(|w| key > p - w),
            (false, window) => window.is_none_or(|w| (p - key).abs() <= w / 2),
        };
        if seen { score } else { f64::NEG_INFINITY }
    };
    (0..q_pos.len()).map(|i| (0..n_keys).map(|j| score(i, j)).collect()).collect()
}

fn reference_softmax(scores: &[f64]) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return vec![0.0; scores.len()];
    }
    let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
    scores.iter().map(|s| (s - most).exp() / total).collect()
}

/// z of one sequence with all its queries.
fn reference(spec: &AttentionSpec, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
    let (d, group) = (spec.d_head, spec.n_heads / spec.n_kv_heads);
    let n = q.len() / (spec.n_heads * d);
    let q_pos: Vec<u32> = (0..n as u32).collect();
    let mut z = vec![0.0; q.len()];
    for head in 0..spec.n_heads {
        for (i, scores) in reference_scores(spec, head, &q_pos, q, k).iter().enumerate() {
            for (j, p) in reference_softmax(scores).iter().enumerate() {
                for c in 0..d {
                    z[(i * spec.n_heads + head) * d + c] +=
                        p * f64::from(v[(j * spec.n_kv_heads + head / group) * d + c]);
                }
            }
        }
    }
    z
}

/// q, k and v of packed sequences, large enough that softmax is far from flat.
fn inputs(spec: &AttentionSpec, tokens: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let kv = tokens * spec.n_kv_heads * spec.d_head;
    let q = numbers(1, tokens * spec.n_heads * spec.d_head).iter().map(|x| x * 2.0).collect();
    (q, numbers(2, kv), numbers(3, kv))
}

fn offsets(lengths: &[usize]) -> Vec<usize> {
    lengths.iter().fold(vec![0], |mut offsets, n| {
        offsets.push(offsets[offsets.len() - 1] + n);
        offsets
    })
}

#[test]
fn attention_agrees_with_double_precision() {
    let offsets = offsets(&[1, 2, 5, 0, 17, 64, 131]);
    for level in Level::available() {
        for spec in specs() {
            let (q, k, v) = inputs(&spec, 220);
            let mut z = vec![f32::NAN; q.len()];
            attention_at(level, &spec, &offsets, None, &q, &k, &v, &mut z);
            for bounds in offsets.windows(2).filter(|b| b[0] < b[1]) {
                let rows = bounds[0] * spec.n_heads * spec.d_head..bounds[1] * spec.n_heads * spec.d_head;
                let keys = bounds[0] * spec.n_kv_heads * spec.d_head..bounds[1] * spec.n_kv_heads * spec.d_head;
                let expected = reference(&spec, &q[rows.clone()], &k[keys.clone()], &v[keys]);
                assert_close(&z[rows], &expected, 1e-5);
            }
        }
    }
}

#[test]
fn a_query_has_the_same_bits_selected_or_not_and_in_any_batch() {
    let lengths = [3, 70, 1, 131, 16];
    let all_offsets = offsets(&lengths);
    for level in Level::available() {
        for spec in specs() {
            let (q, k, v) = inputs(&spec, 221);
            let width = spec.n_heads * spec.d_head;
            let mut all = vec![f32::NAN; q.len()];
            attention_at(level, &spec, &all_offsets, None, &q, &k, &v, &mut all);

            let rows = [vec![2], vec![], vec![0], vec![0, 1, 5, 60, 61, 62, 63, 64, 65, 99, 130], vec![15, 3, 3]];
            let chosen: Vec<usize> = rows
                .iter()
                .zip(&all_offsets)
                .flat_map(|(rows, &offset)| rows.iter().map(move |&row| offset + row as usize))
                .collect();
            let q_chosen: Vec<f32> = chosen.iter().flat_map(|&t| q[t * width..][..width].to_vec()).collect();
            let mut z = vec![f32::NAN; q_chosen.len()];
            attention_at(level, &spec, &all_offsets, Some(&rows), &q_chosen, &k, &v, &mut z);
            for (z, t) in z.chunks(width).zip(chosen) {
                assert_same_bits(z, &all[t * width..][..width]);
            }

            let kv_width = spec.n_kv_heads * spec.d_head;
            let (k, v) = (&k[73 * kv_width..][..kv_width], &v[73 * kv_width..][..kv_width]);
            let mut alone = vec![f32::NAN; width];
            attention_at(level, &spec, &[0, 1], None, &q[73 * width..][..width], k, v, &mut alone);
            assert_same_bits(&alone, &all[73 * width..][..width]);
            let at = 74;
            let (q, all) = (&q[at * width..][..131 * width], &all[at * width..][..131 * width]);
            let (_, k, v) = inputs(&spec, 221);
            let keys = at * kv_width..(at + 131) * kv_width;
            let mut alone = vec![f32::NAN; q.len()];
            attention_at(level, &spec, &[0, 131], None, q, &k[keys.clone()], &v[keys], &mut alone);
            assert_same_bits(&alone, all);
        }
    }
}

#[test]
fn a_causal_query_does_not_depend_on_later_tokens() {
    let (q, mut k, mut v) = inputs(&SPEC, 100);
    let (width, kv_width) = (SPEC.n_heads * SPEC.d_head, SPEC.n_kv_heads * SPEC.d_head);
    let (mut before, mut after) = (vec![0.0; q.len()], vec![0.0; q.len()]);
    attention(&SPEC, &[0, 100], None, &q, &k, &v, &mut before);
    k[50 * kv_width..].fill(f32::NAN);
    v[50 * kv_width..].fill(f32::INFINITY);
    attention(&SPEC, &[0, 100], None, &q, &k, &v, &mut after);
    assert_same_bits(&after[..50 * width], &before[..50 * width]);
    assert!(after[50 * width..].iter().all(|z| z.is_nan()));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (q, k, v) = inputs(&SPEC, 300);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let mut z = vec![f32::NAN; q.len()];
        pool.install(|| attention(&SPEC, &[0, 130, 300], None, &q, &k, &v, &mut z));
        z
    };
    let one = on(1);
    assert_same_bits(&on(2), &one);
    assert_same_bits(&on(5), &one);
}

#[test]
fn scores_agree_with_double_precision_and_with_attention() {
    let n = 90;
    for level in Level::available() {
        for spec in specs() {
            let (q, k, v) = inputs(&spec, n);
            let q_pos: Vec<u32> = (0..n as u32).collect();
            let mut scores = vec![f32::NAN; spec.n_heads * n * n];
            attention_scores_at(level, &spec, 0..spec.n_heads, &q_pos, &q, &k, &mut scores);
            for (head, scores) in scores.chunks(n * n).enumerate() {
                let expected = reference_scores(&spec, head, &q_pos, &q, &k).concat();
                let masked = |x: &f64| *x == f64::NEG_INFINITY;
                assert!(scores.iter().zip(&expected).all(|(s, e)| (*s == f32::NEG_INFINITY) == masked(e)));
                let (seen, expected): (Vec<f32>, Vec<f64>) =
                    scores.iter().zip(&expected).filter(|(_, e)| !masked(e)).unzip();
                assert_close(&seen, &expected, 2e-6);
            }

            softmax_rows(&mut scores, n);
            let mut z = vec![f32::NAN; q.len()];
            attention_at(level, &spec, &[0, n], None, &q, &k, &v, &mut z);
            let group = spec.n_heads / spec.n_kv_heads;
            let mut expected = Vec::new();
            for i in 0..n {
                for head in 0..spec.n_heads {
                    let pattern = &scores[(head * n + i) * n..][..n];
                    expected.extend((0..spec.d_head).map(|c| {
                        let value = |j: usize| f64::from(v[(j * spec.n_kv_heads + head / group) * spec.d_head + c]);
                        pattern.iter().enumerate().map(|(j, &p)| f64::from(p) * value(j)).sum::<f64>()
                    }));
                }
            }
            assert_close(&z, &expected, 1e-5);
        }
    }
}

#[test]
fn scores_of_chosen_queries_are_those_of_all() {
    let spec = AttentionSpec { window: Some(30), ..SPEC };
    let (q, k, _) = inputs(&spec, 80);
    let width = spec.n_heads * spec.d_head;
    let mut all = vec![f32::NAN; spec.n_heads * 80 * 80];
    attention_scores(&spec, 0..spec.n_heads, &(0..80).collect::<Vec<_>>(), &q, &k, &mut all);
    let q_pos = [79, 0, 41];
    let chosen: Vec<f32> = q_pos.iter().flat_map(|&t| q[t as usize * width..][..width].to_vec()).collect();
    let mut scores = vec![f32::NAN; spec.n_heads * 3 * 80];
    for heads in [0..spec.n_heads, 1..spec.n_heads, 0..1] {
        let scores = &mut scores[..heads.len() * 3 * 80];
        attention_scores(&spec, heads.clone(), &q_pos, &chosen, &k, scores);
        for (i, row) in scores.chunks(80).enumerate() {
            let (head, query) = (heads.start + i / 3, q_pos[i % 3] as usize);
            assert_same_bits(row, &all[(head * 80 + query) * 80..][..80]);
        }
    }
}

#[test]
fn softmax_of_rows() {
    for n_k in [1, 2, 15, 16, 17, 100] {
        let mut scores: Vec<f32> = numbers(5, 40 * n_k).iter().map(|x| x * 20.0).collect();
        scores[0] = f32::NEG_INFINITY;
        let last = 39 * n_k;
        scores[last..].fill(f32::NEG_INFINITY);
        let expected: Vec<f64> = scores
            .chunks(n_k)
            .flat_map(|row| reference_softmax(&row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()))
            .collect();
        softmax_rows(&mut scores, n_k);
        assert_close(&scores, &expected, 1e-6);
        assert!(scores[last..].iter().all(|&p| p == 0.0), "a row that is masked throughout is zeros");
    }
    let mut hidden = [f32::NAN, 1.0, f32::NEG_INFINITY];
    softmax_rows(&mut hidden, 3);
    assert!(hidden[0].is_nan() && hidden[1].is_nan(), "a NaN is not hidden");
}
