//! Messages of a chat as OpenAI's API writes them, for templates that expect those of transformers.

use serde_json::{Map, Value};

use residuum_domain::{Code, Problem};

/// Converts messages for the model's template: parts of a content are joined, fields that are null are left out, and the
/// arguments of tool calls are parsed. Problems point into `/messages`.
///
/// # Errors
/// [`Code::InvalidBody`] and [`Code::InvalidField`] for messages of another form, [`Code::InvalidValue`] for content that is
/// not text.
pub fn for_template(messages: Vec<Map<String, Value>>) -> Result<Vec<Value>, Problem> {
    if messages.is_empty() {
        return Err(Problem::at(Code::EmptyInput, "/messages", "there is no message"));
    }
    let convert = |(i, message)| converted(message).map_err(|problem| problem.under(&format!("/messages/{i}")));
    messages.into_iter().enumerate().map(convert).collect()
}

fn converted(mut message: Map<String, Value>) -> Result<Value, Problem> {
    message.retain(|_, value| !value.is_null());
    match message.get("role") {
        Some(Value::String(role)) if !role.is_empty() => {}
        Some(_) => return Err(Problem::at(Code::InvalidField, "/role", "role must be a string that is not empty")),
        None => return Err(Problem::at(Code::InvalidBody, "/role", "missing field `role`")),
    }
    let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
    let calls_tools = calls.as_ref().is_some_and(|calls| !calls.is_empty());
    calls.into_iter().flatten().for_each(parse_arguments);
    let content = match message.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => joined(parts)?,
        Some(_) => {
            return Err(Problem::at(Code::InvalidField, "/content", "content must be a string or an array of parts"));
        }
        None if calls_tools => String::new(),
        None => return Err(Problem::at(Code::InvalidBody, "/content", "missing field `content`")),
    };
    // the order of fields is that in which templates print a message
    let mut whole = Map::new();
    whole.extend(message.remove_entry("role"));
    whole.insert("content".to_owned(), content.into());
    whole.extend(message);
    Ok(Value::Object(whole))
}

/// The texts of all parts, one after the other.
fn joined(parts: Vec<Value>) -> Result<String, Problem> {
    let text_of = |(i, part): (usize, Value)| {
        let at = |code, field: &str, detail: String| Err(Problem::at(code, format!("/content/{i}{field}"), detail));
        match (part.get("type").and_then(Value::as_str), part.get("text")) {
            (Some("text"), Some(Value::String(text))) => Ok(text.clone()),
            (Some("text"), _) => at(Code::InvalidField, "/text", "text must be a string".to_owned()),
            (Some(other), _) => {
                let other: String = other.chars().take(40).collect();
                at(Code::InvalidValue, "/type", format!("this server takes text only; the part is of type `{other}`"))
            }
            (None, _) => at(Code::InvalidBody, "", "a part is an object with `type` and `text`".to_owned()),
        }
    };
    parts.into_iter().enumerate().map(text_of).collect()
}

/// Templates write arguments as JSON themselves. OpenAI's API has them as JSON in a string.
fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call.pointer_mut("/function/arguments") else { return };
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    if let Some(object) = parsed.filter(Value::is_object) {
        *arguments = object;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn convert(messages: Value) -> Result<Value, Problem> {
        for_template(serde_json::from_value(messages).unwrap()).map(Value::Array)
    }

    #[test]
    fn parts_are_joined_and_nulls_left_out() {
        let messages = json!([
            {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Hi", "name": null}
        ]);
        let expected = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]);
        assert_eq!(convert(messages).unwrap(), expected);
    }

    #[test]
    fn arguments_of_tool_calls_are_objects() {
        let call = |arguments: Value| json!({"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}});
        let messages = json!([
            {"role": "assistant", "content": null, "tool_calls": [call(json!("{\"x\": 1}")), call(json!("not JSON"))]},
            {"role": "tool", "content": "2", "tool_call_id": "1"}
        ]);
        let expected = json!([
            {"role": "assistant", "content": "", "tool_calls": [call(json!({"x": 1})), call(json!("not JSON"))]},
            {"role": "tool", "content": "2", "tool_call_id": "1"}
        ]);
        assert_eq!(convert(messages).unwrap(), expected);
    }

    #[test]
    fn other_messages_are_refused_where_they_are_wrong() {
        for (messages, pointer) in [
            (json!([]), "/messages"),
            (json!([{"content": "x"}]), "/messages/0/role"),
            (json!([{"role": 7, "content": "x"}]), "/messages/0/role"),
            (json!([{"role": "user", "content": "x"}, {"role": "user"}]), "/messages/1/content"),
            (json!([{"role": "user", "content": 7}]), "/messages/0/content"),
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "/messages/0/content/0/type"),
            (json!([{"role": "user", "content": ["x"]}]), "/messages/0/content/0"),
            (json!([{"role": "assistant", "tool_calls": []}]), "/messages/0/content"),
        ] {
            assert_eq!(convert(messages.clone()).unwrap_err().errors[0].pointer, pointer, "{messages}");
        }
    }
}
