//! Bodies that are not JSON, and the headers of responses: what utoipa's attributes cannot say.

use serde_json::{Map, Value, json};

use super::visit::operations;

/// Headers of responses, for the components: name, description, example.
const HEADERS: [(&str, &str, &str); 11] = [
    ("ETag", "Strong entity tag of the representation", "\"5f0c8a1d2e3b4c5d6e7f8091a2b3c4d5\""),
    ("Accept-Ranges", "`bytes` if byte ranges can be requested", "bytes"),
    ("Content-Range", "The bytes that are sent, and the length of the whole", "bytes 0-1023/69120"),
    ("Content-Disposition", "A name for the file", "attachment; filename=\"blocks.12.hook_resid_post.npy\""),
    ("Residuum-Shape", "Sizes of the axes", "30,576"),
    ("Residuum-Dtype", "Type of the values that are sent", "float32"),
    ("Residuum-Axes", "Names of the axes", "layer,d_model"),
    ("Residuum-Hook", "The hook; its name without the layer for a stack of layers", "resid_post"),
    ("Residuum-Converted-From", "The stored type, if the format does not have it and another is sent", "bfloat16"),
    ("Residuum-Positions", "The positions, if the request did not give them by number", "1:4,6"),
    ("Retry-After", "Seconds after which to try again", "2"),
];

const EVENTS: &str = "text/event-stream";
const NPY: &str = "application/x-npy";

/// Describes binary bodies, event streams and headers.
pub fn describe(document: &mut Value) {
    for operation in operations(document) {
        if let Some(content) = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut) {
            describe_content(content);
        }
        let Some(responses) = operation["responses"].as_object_mut() else { continue };
        for response in responses.values_mut() {
            if let Some(content) = response.get_mut("content").and_then(Value::as_object_mut) {
                describe_content(content);
            }
        }
        describe_ranges(responses);
        add_headers(responses);
    }
    if let Some(shared) = document["components"]["responses"].as_object_mut() {
        for (name, response) in shared {
            if name.ends_with("TimedOut") {
                add_header(response, "Retry-After");
            }
        }
    }
    let header = |(name, description, example): (&str, &str, &str)| {
        (name.to_owned(), json!({"description": description, "schema": {"type": "string"}, "example": example}))
    };
    document["components"]["headers"] = Value::Object(HEADERS.into_iter().map(header).collect());
}

/// Gives each media type its schema: bytes if it is binary; for events the text of a stream, whose events have the
/// schema that the source names.
fn describe_content(content: &mut Map<String, Value>) {
    for (media, body) in content {
        if media == EVENTS {
            let event = body["schema"].take();
            *body = json!({"schema": {"type": "string", "contentMediaType": EVENTS, "contentSchema": event}});
        } else if is_binary(media) {
            body["schema"] = json!({"type": "string", "format": "binary"});
        }
    }
}

fn is_binary(media: &str) -> bool {
    !(media.contains("json") || media.contains("yaml") || media.starts_with("text/") || media.starts_with("multipart/"))
}

/// Parts of a body have the media types of the whole body that are binary.
fn describe_ranges(responses: &mut Map<String, Value>) {
    let binary = |whole: &Value| -> Map<String, Value> {
        let content = whole["content"].as_object().into_iter().flatten();
        content.filter(|(media, _)| is_binary(media)).map(|(media, body)| (media.clone(), body.clone())).collect()
    };
    let content = responses.get("200").map(binary);
    if let (Some(content), Some(part)) = (content, responses.get_mut("206")) {
        part["content"] = Value::Object(content);
    }
}

fn add_headers(responses: &mut Map<String, Value>) {
    let has_ranges = responses.contains_key("206");
    for (status, response) in responses {
        let sends = |media: &str| response["content"].get(media).is_some();
        let (tensor, bytes) =
            (sends(NPY), response["content"].as_object().is_some_and(|c| c.keys().any(|m| is_binary(m))));
        let export = bytes && sends("application/x-tar");
        let mut names = Vec::new();
        if has_ranges && matches!(status.as_str(), "200" | "206" | "304") {
            names.push("ETag");
        }
        if has_ranges && matches!(status.as_str(), "200" | "206") {
            names.push("Accept-Ranges");
        }
        if has_ranges && matches!(status.as_str(), "206" | "416") {
            names.push("Content-Range");
        }
        if bytes {
            names.push("Content-Disposition");
        }
        if tensor {
            names.extend(["Residuum-Shape", "Residuum-Dtype", "Residuum-Axes", "Residuum-Hook"]);
            names.extend(["Residuum-Converted-From", "Residuum-Positions"]);
        } else if export {
            names.extend(["Residuum-Dtype", "Residuum-Converted-From"]);
        }
        if matches!(status.as_str(), "429" | "503") {
            names.push("Retry-After");
        }
        names.into_iter().for_each(|name| add_header(response, name));
    }
}

/// Adds a header to a response that is written out; one that refers to the components has its headers there.
fn add_header(response: &mut Value, name: &str) {
    if response.get("$ref").is_none() {
        response["headers"][name] = json!({"$ref": format!("#/components/headers/{name}")});
    }
}
