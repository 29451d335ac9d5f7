//! The deserializer between `serde_json` and the type of a body. Implements the rules of [`super`].

mod fields;
mod visit;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IntoDeserializer, Unexpected, Visitor},
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

use super::{
    FORMS, KEEPS_NULLS, Reading,
    json_error::{self, Error},
};
use fields::Object;
use visit::Counted;

/// A part of a body; `D` is a deserializer of `serde_json` positioned at its start.
pub(in crate::api::json) struct Part<'r, D> {
    pub(super) inner: D,
    pub(super) reading: &'r Reading,
    /// Name of a field to leave out, if this is an object.
    pub(super) without: Option<&'r str>,
}

impl<'r, D> Part<'r, D> {
    pub(super) fn new(inner: D, reading: &'r Reading) -> Self {
        Self { inner, reading, without: None }
    }

    fn counted<V>(&self, visitor: V) -> Counted<'r, V> {
        Counted { visitor, reading: self.reading }
    }
}

impl<'de, D: Deserializer<'de>> Part<'_, D> {
    /// Deserializes an object; if this is not an object, gives back the visitor and the text.
    fn object<V: Visitor<'de>>(
        self,
        visitor: V,
        may_be_null: &'static [&'static str],
    ) -> Result<Result<V::Value, (V, &'de RawValue)>, Error> {
        let Self { inner, reading, without } = self;
        let raw = <&'de RawValue>::deserialize(inner).map_err(|e| reading.take_error(e))?;
        if !raw.get().starts_with('{') {
            return Ok(Err((visitor, raw)));
        }
        let mut inner = serde_json::Deserializer::from_str(raw.get());
        let object = Object { visitor, reading, may_be_null, without };
        inner.deserialize_map(object).map(Ok).map_err(|e| reading.take_error(e))
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Part<'_, D> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let counted = self.counted(visitor);
        self.inner.deserialize_any(counted).map_err(|e| self.reading.take_error(e))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let counted = self.counted(visitor);
        self.inner.deserialize_option(counted).map_err(|e| self.reading.take_error(e))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let counted = self.counted(visitor);
        self.inner.deserialize_ignored_any(counted).map_err(|e| self.reading.take_error(e))
    }

    /// An object with any keys. `serde_json` also makes an empty one of null, which is refused here.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self { inner, reading, .. } = self;
        let raw = <&'de RawValue>::deserialize(inner).map_err(|e| reading.take_error(e))?;
        if raw.get() == "null" {
            return Err(Error::invalid_type(Unexpected::Unit, &"an object"));
        }
        Part::new(&mut serde_json::Deserializer::from_str(raw.get()), reading).deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let reading = self.reading;
        let may_be_null = if KEEPS_NULLS.contains(&name) { &[] } else { fields };
        match self.object(visitor, may_be_null)? {
            Ok(value) => Ok(value),
            Err((visitor, raw)) if name == FORMS => {
                Part::new(&mut serde_json::Deserializer::from_str(raw.get()), reading).deserialize_any(visitor)
            }
            Err((_, raw)) => Err(Error::invalid_type(kind(raw), &"an object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_any(Word { visitor, variants })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct identifier
    }
}

/// Describes a value, for an error.
fn kind(raw: &RawValue) -> Unexpected<'_> {
    match raw.get().as_bytes().first() {
        Some(b'n') => Unexpected::Unit,
        Some(b't') => Unexpected::Bool(true),
        Some(b'f') => Unexpected::Bool(false),
        Some(b'"') => Unexpected::Other("a string"),
        Some(b'[') => Unexpected::Seq,
        _ => Unexpected::Other("a number"),
    }
}

/// Visits a string that names a variant of an enum without data.
struct Word<V> {
    visitor: V,
    variants: &'static [&'static str],
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Word<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&json_error::one_of(self.variants))
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<V::Value, E> {
        self.visitor.visit_enum(word.into_deserializer())
    }
}
