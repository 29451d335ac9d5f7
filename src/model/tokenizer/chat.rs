//! Chat templates: Jinja as transformers runs it (`utils/chat_template_utils.py`), without a loader and with a limit
//! on the work a template may do.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde, ValueKind},
};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::{Map, Value};

use super::marks;
use crate::domain::{Code, Problem};

/// Instructions a template may run, and bytes it may write, together.
const FUEL: u64 = 5_000_000;

/// Parts and bytes of a value that may be written as a whole. Lists can share their parts, so that a few instructions build one
/// that never ends.
const MAX_PARTS: usize = 5_000_000;
/// Lists in lists of a value that may be written.
const MAX_DEPTH: usize = 200;

/// Bytes of a template.
const MAX_SOURCE: usize = 1 << 20;

/// Bytes of stack that a template runs on. What it may nest within its fuel is freed, and compared, by recursion; pages are
/// taken only as they are touched.
const STACK: usize = 1 << 30;

/// The name under which the template is compiled; without an extension nothing is escaped.
const NAME: &str = "chat";

/// Stands behind a last message that is left open. Its space tells whether the template trims messages.
const OPEN: &str = "\u{fdd3} ";

/// Variables that are not the client's to set.
const RESERVED: &[&str] = &["messages", "add_generation_prompt", "continue_final_message"];

/// How a rendered chat ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChatEnd {
    /// With the assistant's turn opened, unless the last message is the assistant's.
    #[default]
    ByRole,
    /// With the last message.
    Closed,
    /// With the assistant's turn opened.
    Prompt,
    /// Within the last message, so that it can be continued.
    Open,
}

/// A compiled template, or why it could not be compiled.
pub struct ChatTemplate {
    environment: Result<Environment<'static>, String>,
    roles: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// Compiles a template; `roles` are the special tokens it may use by name (`bos_token`, …).
    pub fn new(source: String, roles: BTreeMap<String, String>) -> Self {
        let mut environment = Environment::new();
        if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
            environment.set_syntax(syntax);
        }
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_formatter(|out, state, value| {
            check_size(value)?;
            escape_formatter(out, state, value)
        });
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        let compiled = if source.len() > MAX_SOURCE {
            Err(format!("the chat template has {} bytes; at most {MAX_SOURCE} are read", source.len()))
        } else {
            let mut compile = || environment.add_template_owned(NAME, without_generation_tags(&source));
            on_large_stack(|| compile().map_err(|e| message(&e)))
        };
        Self { environment: compiled.map(|()| environment), roles }
    }

    /// Renders `messages`. Pointers are relative to the request.
    ///
    /// # Errors
    /// [`Code::ChatTemplateFailed`] with what the template said; [`Code::InvalidValue`] for a last message without
    /// text that is to be left open, and for a variable that is not the client's to set.
    pub fn render(&self, messages: &[Value], end: ChatEnd, kwargs: &Map<String, Value>) -> Result<String, Problem> {
        let prompt = match end {
            ChatEnd::ByRole => messages.last().and_then(|m| m.get("role")).is_none_or(|role| role != "assistant"),
            ChatEnd::Prompt => true,
            ChatEnd::Closed => false,
            ChatEnd::Open => return self.render_open(messages, kwargs),
        };
        self.run(messages, prompt, kwargs)
    }

    /// Where each of `messages` is in `rendered`, in characters: what it says, without white space at its ends. `None`
    /// where the template does not show it.
    pub fn spans(
        &self,
        messages: &[Value],
        end: ChatEnd,
        kwargs: &Map<String, Value>,
        rendered: &str,
    ) -> Vec<Option<Range<usize>>> {
        match self.render(&marks::marked(messages), end, kwargs) {
            Ok(marked) => marks::spans(&marked, rendered, messages.len()),
            Err(_) => vec![None; messages.len()],
        }
    }

    /// Leaves the last message open as transformers does: a tag behind its text, and the rendering up to the tag.
    fn render_open(&self, messages: &[Value], kwargs: &Map<String, Value>) -> Result<String, Problem> {
        let mut messages = messages.to_vec();
        let nothing = || {
            let detail = "the last message has no text to continue";
            Problem::at(Code::InvalidValue, "/continue_final_message", detail)
        };
        let last = messages.last_mut().and_then(|m| marks::texts(m).pop()).ok_or_else(nothing)?;
        let said = last.trim().to_owned();
        last.push_str(OPEN);
        let mut rendered = self.run(&messages, false, kwargs)?;
        let Some(end) = rendered.rfind(OPEN.trim_end()).filter(|_| rendered.contains(&said)) else {
            let detail = "the chat template does not show the last message as it is, so it cannot be continued";
            return Err(Problem::at(Code::ChatTemplateFailed, "/messages", detail));
        };
        let trims = !rendered[end..].starts_with(OPEN);
        rendered.truncate(end);
        if trims {
            rendered.truncate(rendered.trim_end().len());
        }
        Ok(rendered)
    }

    fn run(&self, messages: &[Value], prompt: bool, kwargs: &Map<String, Value>) -> Result<String, Problem> {
        let failed = |reason: &str| Problem::at(Code::ChatTemplateFailed, "/messages", reason.to_owned());
        let environment = self.environment.as_ref().map_err(|e| failed(e))?;
        let mut context: Map<String, Value> = Map::new();
        context.insert("tools".to_owned(), Value::Null);
        context.insert("documents".to_owned(), Value::Null);
        context.extend(self.roles.iter().map(|(role, token)| (role.clone(), token.clone().into())));
        for (name, value) in kwargs {
            if RESERVED.contains(&name.as_str()) {
                let detail = format!("`{name}` is a field of its own, not one of template_kwargs");
                return Err(Problem::at(Code::InvalidValue, format!("/template_kwargs/{name}"), detail));
            }
            context.insert(name.clone(), value.clone());
        }
        context.insert("messages".to_owned(), messages.iter().map(as_templates_read_it).collect());
        context.insert("add_generation_prompt".to_owned(), prompt.into());
        let render = || environment.get_template(NAME)?.render(minijinja::Value::from(Serde(&context)));
        // an error may hold values of the template: it is read, and dropped, where they can be
        on_large_stack(|| render().map_err(|e| message(&e))).map_err(|reason| failed(&reason))
    }
}

/// Runs `work` where it may recurse deeply; on this thread if the system has no room for such a stack.
fn on_large_stack<T: Send>(work: impl FnMut() -> T + Send) -> T {
    // the closure is lost with a thread that cannot be started
    let work = Mutex::new(work);
    let work = || (work.lock().unwrap_or_else(PoisonError::into_inner))();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("chat".to_owned()).stack_size(STACK);
        match thread.spawn_scoped(scope, work) {
            Ok(running) => running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => work(),
        }
    })
}

/// Refuses a value that is too large or too deep to be written as a whole.
fn check_size(value: &minijinja::Value) -> Result<(), Error> {
    let large = || Error::new(ErrorKind::InvalidOperation, "a value of the chat template is too large to be written");
    let mut left = MAX_PARTS;
    let mut open = vec![(value.clone(), 0)];
    while let Some((value, depth)) = open.pop() {
        let size = value.as_str().map_or(1, str::len).max(1);
        left = left.checked_sub(size).filter(|_| depth <= MAX_DEPTH).ok_or_else(large)?;
        if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map) {
            continue;
        }
        if value.len().is_some_and(|n| n > left) {
            return Err(large());
        }
        for part in value.try_iter()? {
            if value.kind() == ValueKind::Map {
                open.push((value.get_item(&part)?, depth + 1));
            }
            open.push((part, depth + 1));
        }
    }
    Ok(())
}

/// What a template error says, without its place in the source.
fn message(error: &Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "the chat template runs too long on these messages".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    }
}

/// A null field of a message counts as missing, and its reasoning goes by several names, of which templates read one.
fn as_templates_read_it(message: &Value) -> Value {
    let Some(fields) = message.as_object() else { return message.clone() };
    let mut all = fields.clone();
    all.retain(|_, value| !value.is_null());
    let reasoning = ["reasoning_content", "thinking", "reasoning"].iter().find_map(|k| all.get(*k).cloned());
    if let Some(reasoning) = reasoning {
        all.entry("thinking").or_insert_with(|| reasoning.clone());
        all.insert("reasoning_content".to_owned(), reasoning);
    }
    Value::Object(all)
}

/// `{% generation %}` marks what an assistant said and changes nothing in the text: it becomes a block that is
/// always taken.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start..start + length];
        out.push_str(&rest[..start]);
        match tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches('-').trim() {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[start + length..];
    }
    out.push_str(rest);
    out
}

fn raise_exception(message: String) -> Result<String, Error> {
    let message = Some(message).filter(|m| !m.trim().is_empty());
    let message = message.unwrap_or_else(|| "the chat template refuses these messages and does not say why".to_owned());
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(format: String) -> Result<String, Error> {
    let now = jiff::Zoned::now();
    jiff::fmt::strtime::format(format, &now).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// Widest indentation of [`tojson`].
const MAX_INDENT: usize = 16;

/// Python's `json.dumps(value, ensure_ascii=False, indent, separators, sort_keys)`.
fn tojson(value: minijinja::Value, options: Kwargs) -> Result<String, Error> {
    let bad = |e: String| Error::new(ErrorKind::InvalidOperation, e);
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let style = Dumps {
        indent,
        item: separators
            .as_ref()
            .and_then(|s| s.first().cloned())
            .unwrap_or_else(|| if indent.is_some() { ",".to_owned() } else { ", ".to_owned() }),
        key: separators.as_ref().and_then(|s| s.get(1).cloned()).unwrap_or_else(|| ": ".to_owned()),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    if style.indent.is_some_and(|width| width > MAX_INDENT) {
        return Err(bad(format!("tojson indents by at most {MAX_INDENT}")));
    }
    check_size(&value)?;
    let value = serde_json::to_value(&value).map_err(|e| bad(e.to_string()))?;
    let mut out = String::new();
    style.write(&value, 0, &mut out);
    Ok(out)
}

/// How `json.dumps` lays out its text.
struct Dumps {
    indent: Option<usize>,
    item: String,
    key: String,
    sorted: bool,
    ascii: bool,
}

impl Dumps {
    fn write(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Array(items) if !items.is_empty() => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    self.before(i, depth + 1, out);
                    self.write(item, depth + 1, out);
                }
                self.line(depth, out);
                out.push(']');
            }
            Value::Object(fields) if !fields.is_empty() => {
                let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
                if self.sorted {
                    fields.sort_by_key(|(k, _)| *k);
                }
                out.push('{');
                for (i, (key, item)) in fields.into_iter().enumerate() {
                    self.before(i, depth + 1, out);
                    self.text(key, out);
                    out.push_str(&self.key);
                    self.write(item, depth + 1, out);
                }
                self.line(depth, out);
                out.push('}');
            }
            Value::String(s) => self.text(s, out),
            other => out.push_str(&other.to_string()),
        }
    }

    fn before(&self, i: usize, depth: usize, out: &mut String) {
        if i > 0 {
            out.push_str(&self.item);
        }
        self.line(depth, out);
    }

    fn line(&self, depth: usize, out: &mut String) {
        if let Some(width) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    }

    fn text(&self, s: &str, out: &mut String) {
        let quoted = Value::from(s).to_string();
        if !self.ascii {
            out.push_str(&quoted);
            return;
        }
        for c in quoted.chars() {
            if c.is_ascii() {
                out.push(c);
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|u| out.push_str(&format!("\\u{u:04x}")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: Value) -> Result<String, Problem> {
        let roles = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
        let kwargs = Map::from_iter([("flag".to_owned(), json!({"b": [1, 2.5], "a": "é\n"}))]);
        ChatTemplate::new(source.to_owned(), roles).render(messages.as_array().unwrap(), ChatEnd::Prompt, &kwargs)
    }

    #[test]
    fn templates_see_what_transformers_gives_them() {
        let source = "{{ bos_token }}{% for m in messages %}\n  {% if m['role'].startswith('u') %}\n{{ m.content.strip() }}\n  {% endif %}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}{% if tools is not none %}tools{% endif %}";
        let messages = json!([{"role": "user", "content": " hi "}, {"role": "x", "content": "y"}]);
        assert_eq!(render(source, messages).unwrap(), "<s>hi\n>");
    }

    #[test]
    fn tojson_is_pythons() {
        let dumps = |call: &str| render(&format!("{{{{ flag | tojson{call} }}}}"), json!([])).unwrap();
        assert_eq!(dumps(""), r#"{"b": [1, 2.5], "a": "é\n"}"#);
        assert_eq!(dumps("(sort_keys=true, ensure_ascii=true)"), r#"{"a": "\u00e9\n", "b": [1, 2.5]}"#);
        assert_eq!(dumps("(indent=2)"), "{\n  \"b\": [\n    1,\n    2.5\n  ],\n  \"a\": \"é\\n\"\n}");
    }

    #[test]
    fn generation_marks_are_transparent() {
        let source = "{% generation %}a{%- endgeneration -%} b{{ 'generation' }}";
        assert_eq!(render(source, json!([])).unwrap(), "abgeneration");
    }

    #[test]
    fn what_a_template_raises_reaches_the_client() {
        let problem = render("{{ raise_exception('roles must alternate') }}", json!([])).unwrap_err();
        assert_eq!((problem.code, problem.detail.as_str()), (Code::ChatTemplateFailed, "roles must alternate"));
        let problem =
            render("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}", json!([]));
        assert_eq!(problem.unwrap_err().detail, "the chat template runs too long on these messages");
        assert_eq!(render("{% if %}", json!([])).unwrap_err().code, Code::ChatTemplateFailed);
        assert_eq!(render("{% include 'other' %}", json!([])).unwrap_err().code, Code::ChatTemplateFailed);
    }

    /// Pieces that templates are made of, also such as do not belong together.
    const PIECES: [&str; 34] = [
        "{% for m in messages %}",
        "{% endfor %}",
        "{% if m.role == 'user' %}",
        "{% elif true %}",
        "{% else %}",
        "{% endif %}",
        "{{ m.content }}",
        "{{ m['content'] | trim }}",
        "{{ messages | tojson }}",
        "{{ loop.index0 % 2 }}",
        "{% set x = messages %}",
        "{% set x = [x, x] %}",
        "{% set ns = namespace(x='ab') %}",
        "{% set ns.x = ns.x ~ ns.x %}",
        "{{ x[1:] }}",
        "{{ x[::-1] }}",
        "{{ -x }}",
        "{{ x // 0 }}",
        "{{ 9223372036854775807 + 1 }}",
        "{{ 2 ** 100 }}",
        "{{ 'a' * 1000 }}",
        "{{ 'é'[0:1] }}",
        "{% macro f(a) %}",
        "{% endmacro %}",
        "{{ f(1) }}",
        "{{ raise_exception(x) }}",
        "{{ strftime_now('%Q%%%') }}",
        "{{",
        "}}",
        "{%- generation -%}",
        "{% endgeneration %}",
        "{% raw %}",
        "{# ",
        "é\u{202e}\0",
    ];

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]
        #[test]
        fn any_template_renders_or_is_refused(pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..14)) {
            let messages = json!([{"role": "user", "content": "{{ é"}, {"role": "assistant"}, {"role": 3, "content": [{"type": "text", "text": ""}]}]);
            match render(&pieces.concat(), messages) {
                Ok(text) => assert!(text.len() < 32 << 20),
                Err(problem) => {
                    assert_eq!(problem.code, Code::ChatTemplateFailed);
                    assert!(!problem.detail.is_empty() && problem.detail.len() < 1000, "{}", problem.detail);
                }
            }
        }
    }

    #[test]
    fn hostile_templates_end() {
        let doubling =
            "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(60) %}{% set ns.x = DOUBLE %}{% endfor %}x";
        let mut templates: Vec<String> =
            ["ns.x ~ ns.x", "ns.x + ns.x", "[ns.x, ns.x] | join", "ns.x.replace('a', 'aa')"]
                .into_iter()
                .map(|double| doubling.replace("DOUBLE", double))
                .collect();
        // sixty lists, each with the one before twice
        let shared = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
        let deep = "{% set ns = namespace(x=[1]) %}{% for i in range(10) %}{% for j in range(10000) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
        let written = ["{{ ns.x }}", "{% set y %}{{ ns.x }}{% endset %}", "{{ ns.x | tojson }}", "{{ {'a': ns.x} }}"];
        templates.extend([shared, deep].into_iter().flat_map(|v| written.iter().map(move |w| format!("{v}{w}"))));
        let others = [
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% macro f(x) %}{{ f([x, x]) }}{% endmacro %}{{ f(1) }}",
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "{{ 'a' * 10000000000 }}",
            "{{ 'a' | indent(10000000000, true) }}",
            "{{ [1] | tojson(indent=10000000000) }}",
            "{{ range(10000000000) }}",
            "{% include '/etc/passwd' %}",
            "{% extends '/etc/passwd' %}",
            "{% import '/etc/passwd' as x %}{{ x }}",
        ];
        templates.extend(others.map(str::to_owned));
        templates.push(format!("{{{{ {}1{} }}}}", "[".repeat(20_000), "]".repeat(20_000)));
        templates.push("x".repeat(MAX_SOURCE + 1));
        for template in templates {
            let shown = &template[..template.len().min(300)];
            let problem = render(&template, json!([])).expect_err(shown);
            assert_eq!(problem.code, Code::ChatTemplateFailed, "{shown}");
            assert!(!problem.detail.contains("passwd:") && problem.detail.len() < 500, "{}", problem.detail);
        }
        assert_eq!(render(&format!("{deep}ok"), json!([])).unwrap(), "ok", "and what is built is taken down");
        let negated = format!("{{{{ {}1 }}}}", "-".repeat(100_000));
        assert_eq!(render(&negated, json!([])).unwrap(), "1", "also while it is read");
    }

    #[test]
    fn what_clients_say_is_text_and_no_template() {
        let source = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
        let said = "{{ 7 * 7 }}{% raise %}{% include 'x' %}<&>'\"";
        let rendered = render(source, json!([{"role": said, "content": said}])).unwrap();
        assert_eq!(rendered, format!("{said}:{said};"));
    }

    #[test]
    fn template_kwargs_cannot_replace_the_messages() {
        let template = ChatTemplate::new("x".to_owned(), BTreeMap::new());
        let kwargs = Map::from_iter([("messages".to_owned(), json!([]))]);
        let problem = template.render(&[], ChatEnd::Prompt, &kwargs).unwrap_err();
        assert_eq!(problem.errors[0].pointer, "/template_kwargs/messages");
    }

    #[test]
    fn a_last_message_is_left_open() {
        let open = |source: &str, messages: Value| {
            let template = ChatTemplate::new(source.to_owned(), BTreeMap::new());
            template.render(messages.as_array().unwrap(), ChatEnd::Open, &Map::new())
        };
        let plain = "{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}!{% endif %}";
        let trims = "{% for m in messages %}<{{ m.content | trim }}>{% endfor %}";
        let chat = || json!([{"content": "Paris"}, {"content": "The city of "}]);
        assert_eq!(open(plain, chat()).unwrap(), "<Paris><The city of ");
        assert_eq!(open(trims, chat()).unwrap(), "<Paris><The city of");
        // The last message says what an earlier one says.
        assert_eq!(open(plain, json!([{"content": "a"}, {"content": "a"}])).unwrap(), "<a><a");
        let blocks = "{% for b in messages[0].content %}{{ b.text }};{% endfor %}";
        let two = json!([{"content": [{"text": "a"}, {"text": "b"}]}]);
        assert_eq!(open(blocks, two).unwrap(), "a;b");
        assert_eq!(open(plain, json!([{"content": null}])).unwrap_err().code, Code::InvalidValue);
        assert_eq!(open(plain, json!([])).unwrap_err().code, Code::InvalidValue);
        assert_eq!(open("fixed", chat()).unwrap_err().code, Code::ChatTemplateFailed);
    }

    #[test]
    fn an_open_message_has_its_span_too() {
        let source = "{% for m in messages %}<{{ m.content }}>{% endfor %}";
        let template = ChatTemplate::new(source.to_owned(), BTreeMap::new());
        let messages = [json!({"content": "Paris"}), json!({"content": " The city of "})];
        let rendered = template.render(&messages, ChatEnd::Open, &Map::new()).unwrap();
        let spans = template.spans(&messages, ChatEnd::Open, &Map::new(), &rendered);
        assert_eq!(rendered, "<Paris>< The city of ");
        assert_eq!(spans, [Some(1..6), Some(9..20)]);
    }

    #[test]
    fn a_null_field_is_a_missing_one() {
        let source = "{{ messages[0].tool_calls is defined }}{{ messages[0].thinking }}";
        let messages = json!([{"tool_calls": null, "thinking": null, "reasoning": "so"}]);
        assert_eq!(render(source, messages).unwrap(), "Falseso");
    }
}
