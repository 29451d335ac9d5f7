//! Objects that become structs: a field that is null counts as left out.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Part, visit::Key};
use crate::api::json::{Reading, json_error::Error};

/// A visitor of an object, between `serde_json` and the type.
pub(in crate::api::json) struct Object<'r, V> {
    pub(in crate::api::json) visitor: V,
    pub(in crate::api::json) reading: &'r Reading,
    /// Fields that count as left out if they are null.
    pub(in crate::api::json) may_be_null: &'static [&'static str],
    pub(in crate::api::json) without: Option<&'r str>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Object<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let Self { visitor, reading, may_be_null, without } = self;
        let fields = Fields { inner, reading, may_be_null, without, next: None };
        visitor.visit_map(fields).map_err(|e| reading.keep_error(e))
    }
}

struct Fields<'de, 'r, A> {
    inner: A,
    reading: &'r Reading,
    may_be_null: &'static [&'static str],
    without: Option<&'r str>,
    /// Key and value of the field whose value is read next.
    next: Option<(Cow<'de, str>, &'de RawValue)>,
}

impl<'de, A: MapAccess<'de>> Fields<'de, '_, A> {
    fn is_left_out(&self, key: &str, value: &RawValue) -> bool {
        self.without == Some(key) || (value.get() == "null" && self.may_be_null.contains(&key))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fields<'de, '_, A> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        loop {
            let Some(key) = self.inner.next_key_seed(Key).map_err(|e| self.reading.take_error(e))? else {
                return Ok(None);
            };
            let value: &'de RawValue = self.inner.next_value().map_err(|e| self.reading.take_error(e))?;
            if self.is_left_out(&key, value) {
                continue;
            }
            let read = seed.deserialize(IntoDeserializer::<Error>::into_deserializer(&*key)).map(Some);
            self.next = Some((key, value));
            return read;
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let Some((key, value)) = self.next.take() else {
            return Err(serde::de::Error::custom("a value was read before its key"));
        };
        let mut inner = serde_json::Deserializer::from_str(value.get());
        seed.deserialize(Part::new(&mut inner, self.reading)).map_err(|e| e.under(key))
    }
}
