//! The visitor that counts the memory of values and passes them on from `serde_json` to the type of the body.

use std::borrow::Cow;

use serde::{
    Deserializer,
    de::{DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor},
};

use super::Part;
use crate::api::json::{Reading, json_error::Error};

/// Bytes that a map takes per entry, besides key and value.
const ENTRY: usize = 48;
/// Capacity of a `Vec` after its first element.
const FIRST: usize = 4;

/// A visitor between `serde_json` and the visitor of the type; counts memory.
pub(in crate::api::json) struct Counted<'r, V> {
    pub(in crate::api::json) visitor: V,
    pub(in crate::api::json) reading: &'r Reading,
}

macro_rules! passed_on {
    ($($method:ident($type:ty);)*) => {
        $(fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method::<Error>(value).map_err(|e| self.reading.keep_error(e))
        })*
    };
}

impl<V> Counted<'_, V> {
    fn count_memory<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        self.reading.count_memory(bytes).map_err(|e| self.reading.keep_error(e))
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Counted<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.visitor.expecting(f)
    }

    passed_on! {
        visit_bool(bool);
        visit_i64(i64);
        visit_u64(u64);
        visit_f64(f64);
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<V::Value, E> {
        self.count_memory(text.len())?;
        self.visitor.visit_str::<Error>(text).map_err(|e| self.reading.keep_error(e))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<V::Value, E> {
        self.count_memory(text.len())?;
        self.visitor.visit_borrowed_str::<Error>(text).map_err(|e| self.reading.keep_error(e))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none::<Error>().map_err(|e| self.reading.keep_error(e))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit::<Error>().map_err(|e| self.reading.keep_error(e))
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Part::new(inner, self.reading)).map_err(|e| self.reading.keep_error(e))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let elements = Elements { inner, reading: self.reading, index: 0 };
        self.visitor.visit_seq(elements).map_err(|e| self.reading.keep_error(e))
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let entries = Entries { inner, reading: self.reading, key: Cow::Borrowed("") };
        self.visitor.visit_map(entries).map_err(|e| self.reading.keep_error(e))
    }
}

/// The elements of an array.
struct Elements<'r, A> {
    inner: A,
    reading: &'r Reading,
    index: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let room = if self.index == 0 { FIRST } else { 1 };
        let seed = Counting { seed, reading: self.reading, bytes: room * size_of::<T::Value>() };
        let element = self.inner.next_element_seed(seed);
        let element = element.map_err(|e| self.reading.take_error(e).under(self.index))?;
        self.index += 1;
        Ok(element)
    }
}

/// The entries of an object with any keys.
struct Entries<'de, 'r, A> {
    inner: A,
    reading: &'r Reading,
    key: Cow<'de, str>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'de, '_, A> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(key) = self.inner.next_key_seed(Key).map_err(|e| self.reading.take_error(e))? else { return Ok(None) };
        self.reading.count_memory(key.len() + size_of::<K::Value>() + ENTRY)?;
        let read = seed.deserialize(IntoDeserializer::<Error>::into_deserializer(&*key));
        let read = read.map(Some);
        self.key = key;
        read
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let seed = Counting { seed, reading: self.reading, bytes: size_of::<T::Value>() };
        self.inner.next_value_seed(seed).map_err(|e| self.reading.take_error(e).under(&self.key))
    }
}

/// Deserializes a key, borrowed if possible.
pub(in crate::api::json) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// Deserializes a value and counts its memory once `serde_json` has found it.
struct Counting<'r, T> {
    seed: T,
    reading: &'r Reading,
    bytes: usize,
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Counting<'_, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        let Self { seed, reading, bytes } = self;
        let value = reading.count_memory(bytes).and_then(|()| seed.deserialize(Part::new(inner, reading)));
        value.map_err(|e| reading.keep_error(e))
    }
}
