//! Which interventions each item of a run has: those of the run, then those of its input, each with one of its strengths.

use std::{collections::BTreeMap, sync::Arc};

use crate::Variants;
use residuum_domain::{Code, Problem};

/// An intervention that has been read.
pub struct ReadIntervention {
    /// Index of its first strength among the interventions of the run.
    pub first: u32,
    /// Number of strengths, if they are a list.
    pub n_strengths: Option<usize>,
    /// Where it stands in the request, as a JSON pointer.
    pub pointer: String,
}

/// The items that each input becomes.
///
/// # Errors
/// [`Code::InvalidValue`] for lists of strengths that are not equally long; [`Code::TooManyItems`] for more than
/// `max_items`.
pub fn variants(
    run: &[ReadIntervention],
    own: &BTreeMap<usize, Vec<ReadIntervention>>,
    n_inputs: usize,
    max_items: usize,
) -> Result<Variants, Problem> {
    let n_others = n_variants(run, &[])?;
    let mut n_items = n_inputs.saturating_sub(own.len()).saturating_mul(n_others);
    for list in own.values() {
        n_items = n_items.saturating_add(n_variants(run, list)?);
    }
    if n_items > max_items {
        let detail = format!("with an item for each strength the run has {n_items} items; a run may have {max_items}");
        return Err(Problem::new(Code::TooManyItems, detail));
    }
    let own = own.iter().map(|(input, list)| Ok((*input, of_input(run, list, n_variants(run, list)?))));
    Ok(Variants { of_others: of_input(run, &[], n_others), own: own.collect::<Result<_, Problem>>()? })
}

/// Number of items that an input with these interventions becomes.
fn n_variants(run: &[ReadIntervention], own: &[ReadIntervention]) -> Result<usize, Problem> {
    let mut lists = run.iter().chain(own).filter_map(|one| Some((one, one.n_strengths?)));
    let Some((first, n)) = lists.next() else { return Ok(1) };
    match lists.find(|(_, other)| *other != n) {
        None => Ok(n),
        Some((one, other)) => {
            let detail = format!(
                "{other} strengths are listed here and {n} in {}: the i-th item takes the i-th of each, so give equally many",
                first.pointer
            );
            Err(Problem::at(Code::InvalidValue, format!("{}/strength", one.pointer), detail))
        }
    }
}

fn of_input(run: &[ReadIntervention], own: &[ReadIntervention], n: usize) -> Arc<[Vec<u32>]> {
    let with_strength = |i: u32| {
        let index = move |one: &ReadIntervention| one.first + if one.n_strengths.is_some() { i } else { 0 };
        run.iter().chain(own).map(index).collect()
    };
    (0..).take(n).map(with_strength).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(first: u32, n_strengths: Option<usize>, pointer: &str) -> ReadIntervention {
        ReadIntervention { first, n_strengths, pointer: pointer.to_owned() }
    }

    #[test]
    fn an_item_has_one_strength_of_each_list() {
        let run = [read(0, None, "/interventions/0"), read(1, Some(3), "/interventions/1")];
        let own = BTreeMap::from([(1, vec![read(4, Some(3), "/items/1/interventions/0"), read(7, None, "")])]);
        let found = variants(&run, &own, 3, 9).unwrap();
        assert_eq!(found.of(0), [[0, 1], [0, 2], [0, 3]]);
        assert_eq!(found.of(1), [[0, 1, 4, 7], [0, 2, 5, 7], [0, 3, 6, 7]]);
        assert_eq!((found.of(2), found.n_items(3)), (found.of(0), 9));
        assert_eq!(variants(&run, &own, 3, 8).unwrap_err().code, Code::TooManyItems);
    }

    #[test]
    fn inputs_without_a_list_of_strengths_stay_one_item() {
        let own = BTreeMap::from([(0, vec![read(0, Some(2), "")]), (2, vec![read(2, None, "")])]);
        let found = variants(&[], &own, 3, 10).unwrap();
        assert_eq!((found.of(0), found.of(1), found.of(2)), (&[vec![0], vec![1]][..], &[vec![]][..], &[vec![2]][..]));
        assert_eq!(found.n_items(3), 4);
    }

    #[test]
    fn lists_of_an_input_are_equally_long() {
        let run = [read(0, Some(2), "/interventions/0")];
        let own = BTreeMap::from([(0, vec![read(2, Some(3), "/items/0/interventions/0")])]);
        let problem = variants(&run, &own, 1, 10).unwrap_err();
        assert_eq!(
            (problem.code, problem.errors[0].pointer.as_str()),
            (Code::InvalidValue, "/items/0/interventions/0/strength")
        );
    }
}
