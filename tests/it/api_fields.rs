//! Every field of every body and every parameter of the specification: null means the default, a wrong type is reported
//! as such, and no extreme number or text causes a server error.

use axum::{body::Body, http::Method};
use serde_json::{Map, Value, json};

use crate::support::{Answer, D_MODEL, MODEL, TestApp, operations, request, specification};

type Schema = &'static Value;

/// A field somewhere in a body.
struct Place {
    pointer: String,
    schema: Schema,
    required: bool,
    /// The body with this value in the field, or without the field.
    body: Box<dyn Fn(Option<Value>) -> Value>,
}

/// Wraps a value into the body that contains it.
type Around = std::rc::Rc<dyn Fn(Value) -> Value>;

fn resolved(schema: Schema) -> Schema {
    match schema["$ref"].as_str() {
        Some(name) => resolved(specification().pointer(name.trim_start_matches('#')).unwrap()),
        None => schema,
    }
}

/// The forms of a value, with the parts of `oneOf` resolved recursively.
fn forms(schema: Schema) -> Vec<Schema> {
    let schema = resolved(schema);
    match schema["oneOf"].as_array() {
        Some(parts) => parts.iter().flat_map(forms).collect(),
        None => vec![schema],
    }
}

/// The properties of a form and which of them are required, with all parts of `allOf` merged.
fn properties(form: Schema) -> (Vec<(&'static str, Schema)>, Vec<&'static str>) {
    let parts: Vec<Schema> = form["allOf"].as_array().map_or(vec![form], |parts| parts.iter().map(resolved).collect());
    let of = |part: &Schema| {
        let fields = part["properties"].as_object();
        fields.into_iter().flatten().map(|(name, schema)| (name.as_str(), schema)).collect::<Vec<_>>()
    };
    let required = parts.iter().flat_map(|part| part["required"].as_array().into_iter().flatten());
    (parts.iter().flat_map(of).collect(), required.filter_map(Value::as_str).collect())
}

/// The kinds of JSON values, each with a value that no enum or range of the specification allows.
fn kinds() -> [(&'static str, Value); 6] {
    [
        ("boolean", json!(true)),
        ("integer", json!(-77)),
        ("number", json!(1.5)),
        ("string", json!("no such word")),
        ("array", json!([])),
        ("object", json!({"no_such_field": 1})),
    ]
}

fn allows(schema: Schema, kind: &str) -> bool {
    forms(schema).into_iter().any(|form| match &form["type"] {
        _ if form["allOf"].is_array() => kind == "object",
        // an enum allows its own words only
        Value::String(own) if own == "string" && form["enum"].is_array() => false,
        Value::String(own) => own == kind || (own == "number" && kind == "integer"),
        Value::Array(own) => own.iter().any(|own| own == kind || (own == "number" && kind == "integer")),
        _ => true,
    })
}

/// Ids of things that exist. They are used for all other fields, so that a request with one extreme value is not
/// refused early.
struct Known {
    cache: String,
    run: String,
}

impl Known {
    /// A value for a field of this name.
    fn sample(&self, name: &str, schema: Schema) -> Value {
        let form = forms(schema).into_iter().find(|form| form["type"] != "null").unwrap();
        let kind = form["type"].as_str().or_else(|| form["type"][0].as_str()).unwrap_or("object");
        match (name, kind) {
            ("model", "string") => json!(MODEL),
            ("run", "string") => json!(self.run),
            ("cache" | "reference", "string") => json!(self.cache),
            ("caches" | "positive" | "negative", _) => json!([self.cache]),
            ("direction", "string") => json!("known"),
            ("sae", "string") => json!("standard"),
            ("hook", "string") => json!("resid_post"),
            ("query", _) => json!({"vector": vec![1.0; D_MODEL]}),
            ("clean" | "corrupt", _) => json!([1, 2, 3]),
            ("vector" | "values", "array") => json!(vec![1.0; D_MODEL]),
            (_, _) if form["enum"].is_array() => form["enum"][0].clone(),
            (_, "string") => json!("a"),
            (_, "integer" | "number") => json!(1),
            (_, "boolean") => json!(true),
            (_, "array") => json!([self.sample("", &form["items"])]),
            _ => self.object(form),
        }
    }

    /// An object with its required fields.
    fn object(&self, form: Schema) -> Value {
        let (fields, required) = properties(form);
        let needed = fields.into_iter().filter(|(name, _)| required.contains(name));
        Value::Object(needed.map(|(name, schema)| (name.to_owned(), self.sample(name, schema))).collect())
    }

    /// All fields in a body of this schema.
    fn places(&self, schema: Schema, pointer: &str, around: &Around, all: &mut Vec<Place>) {
        // messages belong to the template, and free-form objects have no fields; positions nest without end
        if pointer.ends_with("/messages/0") || pointer.ends_with("/mean/mean") {
            return;
        }
        // with several forms, a field is not required: the value may have another form without it
        let n_objects = forms(schema).into_iter().filter(|form| !properties(form).0.is_empty()).count();
        for form in forms(schema) {
            if form["items"].is_object() {
                let outer = std::rc::Rc::clone(around);
                let inner: Around = std::rc::Rc::new(move |value| outer(json!([value])));
                self.places(&form["items"], &format!("{pointer}/0"), &inner, all);
            }
            let (fields, required) = properties(form);
            let base = self.object(form).as_object().unwrap().clone();
            for (name, schema) in fields {
                let (outer, base) = (std::rc::Rc::clone(around), base.clone());
                let with = move |value: Option<Value>| {
                    let mut fields: Map<String, Value> = base.clone();
                    match value {
                        Some(value) => fields.insert(name.to_owned(), value),
                        None => fields.shift_remove(name),
                    };
                    outer(Value::Object(fields))
                };
                let with = std::rc::Rc::new(with);
                let (pointer, body) = (format!("{pointer}/{name}"), std::rc::Rc::clone(&with));
                let place = Place {
                    pointer: pointer.clone(),
                    schema,
                    required: required.contains(&name) && n_objects == 1,
                    body: Box::new(move |value| body(value)),
                };
                all.push(place);
                self.places(schema, &pointer, &(std::rc::Rc::new(move |value| with(Some(value))) as Around), all);
            }
        }
    }
}

async fn server() -> (TestApp, Known) {
    let app = TestApp::with_saes("llama/gqa_tied", &["standard"]).await;
    let run = app.run(json!({"input": ["the cat", "a dog"], "capture": {"positions": "all"}, "tags": ["t"]})).await;
    let known =
        Known { cache: run["caches"][0].as_str().unwrap().to_owned(), run: run["id"].as_str().unwrap().to_owned() };
    let vectors = json!([{"layer": 1, "values": vec![1.0; D_MODEL]}]);
    let direction = json!({"method": "upload", "name": "known", "vectors": vectors});
    assert_eq!(app.post("/v1/directions", &direction).await.status, 201);
    (app, known)
}

/// The operations that take JSON, with paths of things that exist.
fn operations_with_bodies(known: &Known) -> Vec<(Method, String, Schema)> {
    let body = |(method, path, operation): (Method, &'static str, Schema)| {
        let schema = operation.pointer("/requestBody/content/application~1json/schema")?;
        Some((method, with_ids(path, known), schema))
    };
    operations().filter_map(body).collect()
}

fn with_ids(path: &str, known: &Known) -> String {
    let id = match path {
        _ if path.starts_with("/v1/runs") => &known.run,
        _ if path.starts_with("/v1/models") => MODEL,
        _ if path.starts_with("/v1/saes") => "standard",
        _ => &known.cache,
    };
    let path = path.replace("{id}", id).replace("{layer}", "1").replace("{direction}", "known");
    let path = path.replace("{hook}", "blocks.1.hook_resid_post");
    if path == "/v1/runs" { format!("{path}?dry_run=true") } else { path }
}

async fn send(app: &TestApp, method: &Method, uri: &str, body: &Value) -> Answer {
    if *method == Method::POST && uri == "/v1/directions" {
        // a name can be used once
        app.delete("/v1/directions/a").await;
    }
    let json = [("content-type", "application/json")];
    app.send(request(method.clone(), uri, &json, Body::from(body.to_string()))).await
}

/// The parts of an answer that tell the outcome.
fn outcome(answer: &Answer) -> (u16, Value) {
    let code = if answer.status.is_success() { Value::Null } else { json!(answer.refusal().code) };
    (answer.status.as_u16(), code)
}

/// Messages of the JSON parser that mean nothing to a client.
const PARSERS: [&str; 9] = [
    "untagged",
    "expected value",
    "variant",
    "struct",
    "invalid type",
    "at line",
    "usize",
    "f32",
    "data did not match",
];

#[tokio::test]
async fn null_is_the_default_and_a_wrong_type_is_reported() {
    let (app, known) = server().await;
    // collects all faults: there are many fields, and faults have few causes
    let (mut n_places, mut faults) = (0, Vec::new());
    let mut check = |right: bool, fault: String| {
        if !right {
            faults.push(fault);
        }
    };
    for (method, uri, schema) in operations_with_bodies(&known) {
        let mut places = Vec::new();
        known.places(schema, "", &(std::rc::Rc::new(|body| body) as Around), &mut places);
        n_places += places.len();
        for Place { pointer, schema, required, body } in places {
            let what = |body: &Value| format!("{method} {uri} {pointer}: {body}");
            let null = send(&app, &method, &uri, &body(Some(Value::Null))).await;
            if required {
                check(null.status.is_client_error(), what(&body(Some(Value::Null))));
            } else if method != Method::PATCH {
                let without = send(&app, &method, &uri, &body(None)).await;
                let (null, without) = (outcome(&null), outcome(&without));
                let fault = format!("{}: {null:?}, left out {without:?}", what(&body(Some(Value::Null))));
                check(null == without, fault);
            }
            for (kind, wrong) in kinds().into_iter().filter(|(kind, _)| !allows(schema, kind)) {
                let body = body(Some(wrong));
                let answer = send(&app, &method, &uri, &body).await;
                let refusal = answer.refusal();
                let place = refusal.pointers.first().map(String::as_str);
                let as_it_is = (answer.status.as_u16(), Some(refusal.code.as_str()), place);
                // an object of the wrong form may be read as another form, and then one of its fields is wrong
                let own = kind == "object" && place.is_some_and(|place| place.starts_with(&pointer));
                let right = as_it_is == (400, Some("invalid_field"), Some(&pointer)) || (own && answer.status == 400);
                check(right, format!("{}: {as_it_is:?}", what(&body)));
                let detail = &refusal.detail;
                check(PARSERS.iter().all(|word| !detail.contains(word)), format!("{}: {detail}", what(&body)));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(n_places > 250, "{n_places} fields are too few");
}

/// Extreme numbers and texts.
fn extremes() -> Vec<Value> {
    let text = |text: &str| json!(text);
    vec![
        json!(0),
        json!(-1),
        json!(u32::MAX),
        json!(1_000_000_000_000_u64),
        json!((1_u64 << 53) + 1),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(-0.0),
        json!(5e-324),
        json!(1e30),
        json!(f64::MAX),
        json!(-f64::MAX),
        json!([]),
        json!([u32::MAX, i64::MIN]),
        json!([1e300]),
        json!({}),
        text(""),
        text("\0"),
        text("99999999999999999999"),
        text("blocks.99999999999999999999.hook_resid_post"),
        text("9999-12-31T23:59:59.999999999Z"),
        text("-009999-01-01T00:00:00Z"),
        json!("\u{10ffff}".repeat(3000)),
    ]
}

#[tokio::test]
async fn no_extreme_value_of_a_body_causes_a_server_error() {
    let (app, known) = server().await;
    for (method, uri, schema) in operations_with_bodies(&known) {
        let mut places = Vec::new();
        known.places(schema, "", &(std::rc::Rc::new(|body| body) as Around), &mut places);
        for place in places {
            for extreme in extremes() {
                let body = (place.body)(Some(extreme));
                let answer = send(&app, &method, &uri, &body).await;
                assert!(answer.status.as_u16() < 500, "{method} {uri} {}: {body}: {:?}", place.pointer, answer.body);
            }
        }
    }
}

#[tokio::test]
async fn no_extreme_value_of_a_parameter_causes_a_server_error() {
    let (app, known) = server().await;
    for (method, path, operation) in operations() {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters.filter(|parameter| parameter["in"] == "query" || parameter["in"] == "path") {
            let name = parameter["name"].as_str().unwrap();
            for extreme in extremes() {
                let text = extreme.as_str().map_or_else(|| extreme.to_string(), str::to_owned);
                let written: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
                let uri = if parameter["in"] == "path" {
                    with_ids(&path.replace(&format!("{{{name}}}"), &written), &known)
                } else {
                    let path = with_ids(path, &known);
                    format!("{path}{}{name}={written}", if path.contains('?') { '&' } else { '?' })
                };
                // deleting what other requests need would make the result depend on their order
                if method == Method::DELETE && parameter["in"] != "path" {
                    continue;
                }
                let body = if method == Method::POST { json!({}) } else { Value::Null };
                let answer = send(&app, &method, &uri, &body).await;
                assert!(answer.status.as_u16() < 500, "{method} {uri}: {:?}", answer.body);
            }
        }
    }
}
