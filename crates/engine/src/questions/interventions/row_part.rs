//! The part of a hook's row that an intervention changes: the whole row, some heads or some neurons.

use std::ops::Range;

use residuum_domain::{Axis, Code, Parts, Problem, Site};

/// The part of a flattened row that is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPart {
    /// Length of the whole row.
    width: usize,
    /// The changed ranges, which do not overlap. In ascending order, unless heads were named in another order.
    ranges: Vec<Range<usize>>,
    /// Length of one head, if the row has heads.
    d_head: Option<usize>,
}

impl RowPart {
    /// The part that `heads` or `neurons` name in a row of `site`. `row_shape` has the sizes of the axes after the
    /// position. In an attention map a head is one value of the row.
    ///
    /// # Errors
    /// [`Code::InvalidValue`] for heads or neurons that do not exist or that the hook does not have.
    pub fn of(
        heads: Option<&[i64]>,
        neurons: Option<&[usize]>,
        site: Site,
        row_shape: &[usize],
    ) -> Result<Self, Problem> {
        let width = row_shape.iter().product();
        let has = |axis: Axis| site.axes().contains(&axis);
        let own_heads = (has(Axis::Head) || has(Axis::KvHead)).then(|| (row_shape[0], width / row_shape[0].max(1)));
        let d_head = own_heads.map(|(_, d_head)| d_head);
        let lacks = |field: &str, what: &str| {
            Problem::at(Code::InvalidValue, format!("/{field}"), format!("`{}` has no {what}", site.name()))
        };
        let ranges = match (heads, neurons) {
            (Some(_), Some(_)) => return Err(lacks("neurons", "heads and neurons both")),
            (Some(named), None) => {
                let (n_heads, d_head) = own_heads.ok_or_else(|| lacks("heads", "heads"))?;
                let heads = indices(named, n_heads, "heads")?;
                heads.into_iter().map(|h| h * d_head..(h + 1) * d_head).collect()
            }
            (None, Some(named)) => {
                if !has(Axis::DMlp) {
                    return Err(lacks("neurons", "neurons"));
                }
                let named: Vec<i64> = named.iter().map(|n| i64::try_from(*n).unwrap_or(i64::MAX)).collect();
                indices(&named, width, "neurons")?.into_iter().map(|n| n..n + 1).collect()
            }
            (None, None) if site.is_attention_map() => (0..width).map(|h| h..h + 1).collect(),
            (None, None) => std::iter::once(0..width).collect(),
        };
        Ok(Self { width, ranges, d_head })
    }

    /// The changed heads of an attention map.
    pub fn heads(&self) -> Vec<usize> {
        self.ranges.iter().map(|range| range.start).collect()
    }

    /// The whole part as one.
    pub fn whole(&self) -> Parts {
        vec![self.ranges.clone()]
    }

    /// Each head of an attention map separately.
    pub fn each(&self) -> Parts {
        self.ranges.iter().map(|range| vec![range.clone()]).collect()
    }

    /// The lengths that a vector may have.
    pub fn lengths(&self) -> Vec<usize> {
        let chosen = self.ranges.iter().map(ExactSizeIterator::len).sum();
        let mut lengths = vec![self.width];
        lengths.extend(self.d_head);
        lengths.push(chosen);
        lengths.dedup();
        lengths
    }

    /// The parts that a vector changes, and its values for each of them. If the vector is as long as the row, its
    /// values at the changed indices are used; if it is as long as a head, it is used for each head; if it is as long
    /// as the changed part, it is used for the whole part.
    ///
    /// # Errors
    /// [`Code::ShapeMismatch`] for any other length.
    pub fn fit(&self, vector: &[f32]) -> Result<(Parts, Vec<f32>), Problem> {
        if vector.len() == self.width {
            return Ok((self.whole(), self.gather(vector)));
        }
        if self.d_head == Some(vector.len()) {
            let heads = self.ranges.iter().flat_map(|range| {
                let head = |at| std::iter::once(at..at + vector.len()).collect();
                range.clone().step_by(vector.len()).map(head).collect::<Vec<_>>()
            });
            return Ok((heads.collect(), vector.to_vec()));
        }
        if self.lengths().contains(&vector.len()) {
            return Ok((self.whole(), vector.to_vec()));
        }
        let lengths: Vec<String> = self.lengths().iter().map(ToString::to_string).collect();
        let detail = format!("the vector has {} values; this hook takes {}", vector.len(), lengths.join(" or "));
        Err(Problem::at(Code::ShapeMismatch, "", detail))
    }

    /// The values of a row at the changed indices.
    pub fn gather(&self, row: &[f32]) -> Vec<f32> {
        self.ranges.iter().flat_map(|range| row[range.clone()].iter().copied()).collect()
    }
}

/// Indices below `n`, negatives counting from the end, without repeats.
fn indices(named: &[i64], n: usize, field: &str) -> Result<Vec<usize>, Problem> {
    let refuse = |i: usize, detail: String| Problem::at(Code::InvalidValue, format!("/{field}/{i}"), detail);
    if named.is_empty() {
        let detail = format!("the list of {field} is empty; leave it out for all of them");
        return Err(Problem::at(Code::InvalidValue, format!("/{field}"), detail));
    }
    let mut found = Vec::with_capacity(named.len());
    for (i, index) in named.iter().enumerate() {
        let from_start =
            if *index < 0 { i64::try_from(n).ok().and_then(|n| n.checked_add(*index)) } else { Some(*index) };
        let at = from_start.and_then(|index| usize::try_from(index).ok()).filter(|at| *at < n);
        let at = at.ok_or_else(|| refuse(i, format!("{index} does not exist: there are {n} {field}")))?;
        if found.contains(&at) {
            return Err(refuse(i, format!("{index} is named twice")));
        }
        found.push(at);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heads and neurons that are named, of a site with rows of a shape; what the refusal points at.
    type Case<'a> = (Option<&'a [i64]>, Option<&'a [usize]>, Site, &'a [usize], &'a str);

    #[test]
    fn a_vector_is_for_the_row_for_each_head_or_for_the_changed_part() {
        let heads = RowPart::of(Some(&[-1, 0]), None, Site::Z, &[3, 2]).unwrap();
        let row = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(heads.fit(&row).unwrap(), (vec![vec![4..6, 0..2]], vec![4.0, 5.0, 0.0, 1.0]));
        assert_eq!(heads.fit(&[7.0, 8.0]).unwrap(), (vec![vec![4..6], vec![0..2]], vec![7.0, 8.0]));
        assert_eq!(heads.fit(&[1.0; 4]).unwrap(), (vec![vec![4..6, 0..2]], vec![1.0; 4]));
        assert_eq!(heads.fit(&[1.0; 3]).unwrap_err().code, Code::ShapeMismatch);
        let all = RowPart::of(None, None, Site::Z, &[3, 2]).unwrap();
        assert_eq!(all.fit(&[7.0, 8.0]).unwrap().0, vec![vec![0..2], vec![2..4], vec![4..6]]);
        let neurons = RowPart::of(None, Some(&[5, 2]), Site::MlpPost, &[8]).unwrap();
        assert_eq!(neurons.fit(&[1.0, 2.0]).unwrap(), (vec![vec![5..6, 2..3]], vec![1.0, 2.0]));
    }

    #[test]
    fn heads_and_neurons_that_a_hook_does_not_have_are_refused() {
        let cases: [Case<'_>; 7] = [
            (Some(&[3]), None, Site::Z, &[3, 2], "/heads/0"),
            (Some(&[0, -3]), None, Site::Z, &[3, 2], "/heads/1"),
            (Some(&[]), None, Site::Z, &[3, 2], "/heads"),
            (Some(&[0]), None, Site::ResidPost, &[6], "/heads"),
            (None, Some(&[0]), Site::Z, &[3, 2], "/neurons"),
            (None, Some(&[8]), Site::MlpPost, &[8], "/neurons/0"),
            (Some(&[0]), Some(&[0]), Site::MlpPost, &[8], "/neurons"),
        ];
        for (heads, neurons, site, shape, pointer) in cases {
            let problem = RowPart::of(heads, neurons, site, shape).unwrap_err();
            let found = (problem.code, problem.errors[0].pointer.as_str());
            assert_eq!(found, (Code::InvalidValue, pointer), "{heads:?} {neurons:?} of {site:?}");
        }
    }
}
