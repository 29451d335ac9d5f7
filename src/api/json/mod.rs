//! JSON bodies, read strictly, within bounds, and with errors that people understand.
//!
//! [`Text::read`] is serde over `serde_json` with four rules of its own:
//! * an object is read from an object only, never from an array of its fields;
//! * a field that is null is a field that was left out, so it has its default (changes, where null removes, are named in
//!   [`KEEPS_NULLS`]); objects of free form, such as metadata, keep theirs;
//! * what a body becomes in memory is counted while it is read, and reading stops at the bound;
//! * an error names the field by a JSON pointer and says what would be right.

mod deserializer;
mod json_error;
mod names;

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Visitor},
};
use serde_json::value::RawValue;

use self::{deserializer::Part, json_error::Error};
use residuum_domain::{Code, Problem};

/// Bodies in which null is a value: it removes what is there.
const KEEPS_NULLS: [&str; 1] = ["CachePatchDto"];

/// Marks a value of several forms for [`Part`], which takes it for an object's only if it is one.
const FORMS: &str = "residuum::api::json::forms";

/// Bytes of memory that a body may become, for each of its bytes. Numbers, the densest that a body usefully has, take
/// eight bytes for two. What is counted is what is used: a list that grows has as much again, and half of that while it moves.
const BYTES_PER_BYTE: u64 = 5;

/// Times what is used that a list takes while it grows: as much again that is free, and what it moves from.
const GROWTH: u64 = 3;

/// Bytes of memory that a small body may become.
const SMALL: u64 = 32 << 20;

/// Most bytes of memory that one byte of a body can become: nested arrays, of which each has room for four values.
const WORST_BYTES_PER_BYTE: u64 = 128;

/// Bytes of memory that reading `n_bytes` of JSON takes at most, with what lists hold while they grow.
pub fn reading_takes(n_bytes: usize) -> u64 {
    most_memory(n_bytes).saturating_mul(GROWTH)
}

/// Bytes of memory that `n_bytes` of JSON may become.
fn most_memory(n_bytes: usize) -> u64 {
    let n_bytes = n_bytes as u64;
    (n_bytes * WORST_BYTES_PER_BYTE).min(SMALL.max(n_bytes * BYTES_PER_BYTE))
}

/// A JSON text whose syntax is right.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    raw: &'a RawValue,
    most: u64,
}

impl<'a> Text<'a> {
    /// Checks the syntax.
    ///
    /// # Errors
    /// [`Code::InvalidJson`], with line and column.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Problem> {
        let raw = serde_json::from_slice(bytes)
            .map_err(|e| Problem::new(Code::InvalidJson, format!("the body is not valid JSON: {e}")))?;
        Ok(Self { raw, most: most_memory(bytes.len()) })
    }

    /// The value.
    ///
    /// # Errors
    /// [`Code::InvalidField`] and [`Code::InvalidBody`] with a pointer; [`Code::BodyTooLarge`] for what would take too much
    /// memory.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        self.read_without(None)
    }

    /// The value, as if one field of the outermost object were not there.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_without<T: DeserializeOwned>(self, field: Option<&str>) -> Result<T, Problem> {
        let reading = Reading { left: Cell::new(self.most), most: self.most, failure: RefCell::default() };
        let mut inner = serde_json::Deserializer::from_str(self.raw.get());
        T::deserialize(Part { inner: &mut inner, reading: &reading, without: field }).map_err(Into::into)
    }
}

/// What the parts of one reading share.
struct Reading {
    /// Bytes of memory that are left to it.
    left: Cell<u64>,
    most: u64,
    /// The error on its way out, while `serde_json` passes on one of its own.
    failure: RefCell<Option<Error>>,
}

impl Reading {
    /// Counts memory that is about to be taken.
    fn pay(&self, bytes: usize) -> Result<(), Error> {
        match self.left.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(Error::too_large(self.most)),
        }
    }

    /// Keeps an error, and makes one for `serde_json` to pass on.
    fn put<E: serde::de::Error>(&self, error: Error) -> E {
        *self.failure.borrow_mut() = Some(error);
        E::custom("an error that is kept")
    }

    /// The error that was kept, or else the one that `serde_json` found.
    fn take(&self, found: impl fmt::Display) -> Error {
        self.failure.borrow_mut().take().unwrap_or_else(|| Error::found(&found.to_string()))
    }
}

/// Reads a value that has several forms, which `visitor` tells apart. One that is an object has the fields of `T`, which may be
/// null.
///
/// # Errors
/// Those of the visitor.
pub fn one_of<'de, T: Deserialize<'de>, D: Deserializer<'de>, V: Visitor<'de>>(
    deserializer: D,
    visitor: V,
) -> Result<V::Value, D::Error> {
    deserializer.deserialize_struct(FORMS, names::fields_of::<T>(), visitor)
}

#[cfg(test)]
mod tests;
