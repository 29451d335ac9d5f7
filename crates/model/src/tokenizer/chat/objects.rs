//! Python's objects that minijinja does not have: views of a dict, ranges, and the groups of `groupby`. They hold values and list
//! their items; other files create, compare and write them.

use std::{fmt, sync::Arc};

use minijinja::{
    Value,
    value::{Enumerator, Object, ObjectRepr, Tuple},
};

/// Python's `range`.
#[derive(Debug)]
pub struct Range {
    /// The first number.
    pub start: i64,
    /// The end, which is not part of it.
    pub stop: i64,
    /// From one number to the next; not zero.
    pub step: i64,
    /// How many numbers it has.
    pub n: usize,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            1 => write!(f, "range({}, {})", self.start, self.stop),
            step => write!(f, "range({}, {}, {step})", self.start, self.stop),
        }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let i = key.as_usize().filter(|i| *i < self.n)?;
        Some(Value::from(self.start + i as i64 * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.n)
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A group of `groupby`: a pair whose parts have names.
#[derive(Debug)]
pub struct Group {
    /// The value that its items share.
    pub grouper: Value,
    /// Its items.
    pub list: Vec<Value>,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), key.as_usize()) {
            (Some("grouper"), _) | (_, Some(0)) => Some(self.grouper.clone()),
            (Some("list"), _) | (_, Some(1)) => Some(Value::from(self.list.clone())),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

/// Which part of a dict a [`DictView`] shows.
#[derive(Debug, Clone, Copy)]
pub enum View {
    /// Pairs of a key and its value.
    Items,
    /// The keys.
    Keys,
    /// The values.
    Values,
}

/// The result of `dict.items()`, `.keys()` and `.values()`.
#[derive(Debug)]
pub struct DictView {
    /// The dict.
    pub of: Value,
    /// Which part of it.
    pub kind: View,
}

impl DictView {
    /// The start of its `repr`, up to its items.
    pub fn opens(&self) -> &'static str {
        match self.kind {
            View::Items => "dict_items(",
            View::Keys => "dict_keys(",
            View::Values => "dict_values(",
        }
    }
}

impl Object for DictView {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let (of, kind) = (self.of.clone(), self.kind);
        let Ok(keys) = self.of.try_iter() else { return Enumerator::Empty };
        let n = self.of.len().unwrap_or(0);
        let items = keys.map(move |key| match kind {
            View::Keys => key,
            View::Values => of.get_item(&key).unwrap_or_default(),
            View::Items => {
                let value = of.get_item(&key).unwrap_or_default();
                Value::from(Tuple::from([key, value]))
            }
        });
        Enumerator::Iter(Box::new(Sized { items, left: n }))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.of.len()
    }
}

/// An iterator that knows how many items it has.
struct Sized<I> {
    items: I,
    left: usize,
}

impl<I: Iterator> Iterator for Sized<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.left = self.left.saturating_sub(1);
        self.items.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
