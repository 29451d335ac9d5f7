//! Parses JSON bodies strictly, in bounded memory, and with errors that clients understand.
//!
//! [`Text::read`] deserializes with serde and `serde_json`, with four additional rules:
//! * a struct is read from an object only, never from an array of its fields;
//! * a field that is null counts as left out, so it has its default. Exceptions: types in [`KEEPS_NULLS`], where null
//!   removes a value, and objects with any keys, such as metadata;
//! * the memory of the parsed value is counted meanwhile, and parsing stops at the bound;
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

/// Types of bodies in which null is a value: it removes what is stored.
const KEEPS_NULLS: [&str; 1] = ["CachePatchDto"];

/// Name by which [`one_of`] marks a value of several forms for [`Part`].
const FORMS: &str = "residuum::api::json::forms";

/// Bytes of memory that a parsed body may take, for each of its bytes. The densest useful bodies are lists of numbers:
/// two bytes of text become a number of eight. Only used memory is counted, see [`GROWTH`].
const BYTES_PER_BYTE: u64 = 5;

/// A growing list takes up to this many times its used memory: it has unused capacity, and the old list while it is
/// moved.
const GROWTH: u64 = 3;

/// Bytes of memory that any parsed body may take, however small the body is.
const SMALL: u64 = 32 << 20;

/// Maximum bytes of memory that one byte of a body can become. The worst case is nested arrays, each with a capacity of
/// four values.
const MAX_BYTES_PER_BYTE: u64 = 128;

/// Maximum bytes of memory that parsing `n_bytes` of JSON takes, including unused capacity of lists.
pub fn max_parsing_memory(n_bytes: usize) -> u64 {
    max_used_memory(n_bytes).saturating_mul(GROWTH)
}

/// Maximum bytes of used memory of a value parsed from `n_bytes` of JSON.
fn max_used_memory(n_bytes: usize) -> u64 {
    let n_bytes = n_bytes as u64;
    (n_bytes * MAX_BYTES_PER_BYTE).min(SMALL.max(n_bytes * BYTES_PER_BYTE))
}

/// A JSON text with valid syntax.
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
        Ok(Self { raw, most: max_used_memory(bytes.len()) })
    }

    /// Deserializes the value.
    ///
    /// # Errors
    /// [`Code::InvalidField`] and [`Code::InvalidBody`] with a pointer; [`Code::BodyTooLarge`] if the value would take
    /// too much memory.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        self.read_without(None)
    }

    /// Deserializes the value without one field of the outermost object.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_without<T: DeserializeOwned>(self, field: Option<&str>) -> Result<T, Problem> {
        let reading = Reading { left: Cell::new(self.most), most: self.most, failure: RefCell::default() };
        let mut inner = serde_json::Deserializer::from_str(self.raw.get());
        T::deserialize(Part { inner: &mut inner, reading: &reading, without: field }).map_err(Into::into)
    }
}

/// What the parts of one body share while it is parsed.
struct Reading {
    /// Bytes of memory that the value may still take.
    left: Cell<u64>,
    most: u64,
    /// The first error, kept here because `serde_json` can only pass on errors of its own type.
    failure: RefCell<Option<Error>>,
}

impl Reading {
    /// Counts memory that is about to be allocated.
    fn count_memory(&self, bytes: usize) -> Result<(), Error> {
        match self.left.get().checked_sub(bytes as u64) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(Error::too_large(self.most)),
        }
    }

    /// Keeps an error, and returns a placeholder for `serde_json` to pass on.
    fn keep_error<E: serde::de::Error>(&self, error: Error) -> E {
        *self.failure.borrow_mut() = Some(error);
        E::custom("an error that is kept")
    }

    /// The error that was kept, or if there is none, the one that `serde_json` found.
    fn take_error(&self, found: impl fmt::Display) -> Error {
        self.failure.borrow_mut().take().unwrap_or_else(|| Error::found(&found.to_string()))
    }
}

/// Deserializes a value that has several forms, which `visitor` tells apart. If the value is an object, it has the
/// fields of `T`, and null fields count as left out.
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
