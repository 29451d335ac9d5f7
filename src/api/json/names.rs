//! Finds the names of a struct's fields, by calling its `Deserialize` with a deserializer that only notes them.

use serde::{Deserialize, Deserializer, de::Visitor, forward_to_deserialize_any};

/// The names of the fields of `T`; none if `T` is not a struct.
pub(super) fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // it always fails: there is no value
    drop(T::deserialize(Names { fields: &mut fields }));
    fields
}

struct Names<'n> {
    fields: &'n mut &'static [&'static str],
}

#[derive(Debug, thiserror::Error)]
#[error("there is no value")]
struct NoValue;

impl serde::de::Error for NoValue {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = NoValue;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, NoValue> {
        *self.fields = fields;
        Err(NoValue)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NoValue> {
        Err(NoValue)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
