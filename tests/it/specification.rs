//! The specification that the server serves, and whether an answer is one that it lists.

use std::{collections::BTreeSet, sync::OnceLock};

use axum::http::{Method, header};
use residuum::api::openapi;
use serde_json::Value;

use crate::answer::Answer;

/// The specification that the server serves.
pub fn specification() -> &'static Value {
    static SPEC: OnceLock<Value> = OnceLock::new();
    SPEC.get_or_init(|| serde_json::from_str(openapi::json()).unwrap())
}

/// Every operation of the specification: method, path template and operation object.
pub fn operations() -> impl Iterator<Item = (Method, &'static str, &'static Value)> {
    let paths = specification()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap();
        methods.iter().filter_map(move |(method, operation)| {
            let method = method.to_uppercase().parse().ok()?;
            operation.get("operationId").map(|_| (method, path.as_str(), operation))
        })
    })
}

/// Fails on any answer that the specification does not list.
pub fn check_listed(method: &Method, path: &str, answer: &Answer) {
    let spec = specification();
    if method == Method::OPTIONS {
        return;
    }
    let method = if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    let paths = spec["paths"].as_object().unwrap();
    let Some(operation) = paths.iter().find_map(|(template, item)| matches(template, path).then(|| &item[&method]))
    else {
        return;
    };
    if operation.is_null() {
        // the key is checked before the method
        assert!([401, 403, 405].contains(&answer.status.as_u16()), "{method} {path} answered {}", answer.status);
        return;
    }
    let listed: BTreeSet<&String> = operation["responses"].as_object().unwrap().keys().collect();
    assert!(
        listed.contains(&answer.status.as_str().to_owned()),
        "{method} {path} answered {} and lists {listed:?}: {:?}",
        answer.status,
        answer.body
    );
    let mut response = &operation["responses"][answer.status.as_str()];
    if let Some(shared) = response["$ref"].as_str() {
        response = spec.pointer(shared.trim_start_matches('#')).unwrap_or_else(|| panic!("{shared} is not there"));
    }
    if let (Some(content), Some(sent)) = (response["content"].as_object(), answer.headers.get(header::CONTENT_TYPE)) {
        let sent = sent.to_str().unwrap().split(';').next().unwrap();
        assert!(content.keys().any(|k| k.split(';').next() == Some(sent)), "{method} {path} answered {sent}");
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(path).all(|(t, p)| t.starts_with('{') || *t == p)
}
