//! Jinja's tests, where those of minijinja differ.

use minijinja::{
    Environment, Value,
    value::{Object, ValueKind},
};

use super::{
    numbers::remainder,
    objects::DictView,
    python::{is_callable, is_own_object},
};

/// Adds the tests.
pub fn add_to(environment: &mut Environment<'_>) {
    environment.add_test("callable", |value: &Value| is_callable(value));
    environment.add_test("iterable", |value: &Value| match value.kind() {
        ValueKind::Map => is_dict(value),
        kind => matches!(kind, ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Iterable),
    });
    environment.add_test("mapping", is_dict);
    let rest_is = |value: &Value, by: i64, wanted: i64| remainder(value, &Value::from(by)).map(|r| r == wanted.into());
    environment.add_test("odd", move |value: &Value| rest_is(value, 2, 1));
    environment.add_test("even", move |value: &Value| rest_is(value, 2, 0));
    environment.add_test("divisibleby", |value: &Value, by: &Value| remainder(value, by).map(|r| r == 0.into()));
    environment.add_test("sequence", |value: &Value| match value.kind() {
        ValueKind::Map => is_dict(value),
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq => true,
        ValueKind::Iterable => !is::<DictView>(value),
        _ => false,
    });
}

fn is_dict(value: &Value) -> bool {
    value.kind() == ValueKind::Map && !is_own_object(value, "Namespace") && !is_callable(value)
}

fn is<T: Object + 'static>(value: &Value) -> bool {
    value.downcast_object_ref::<T>().is_some()
}
