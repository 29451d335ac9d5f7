//! Chat templates: Jinja as transformers runs it (`utils/chat_template_utils.py`), without a loader and with limits on the work and
//! the memory of a template.
//!
//! minijinja does most of it. Where it differs from Jinja and Python, [`source`] rewrites the template before it is compiled, and the
//! other files add methods, filters and tests. `scripts/make_chat_goldens.py` records the reference's output for well over a
//! thousand cases; `docs/CHAT_TEMPLATES.md` lists the remaining differences.

mod characters;
mod checks;
mod collections;
mod compare;
mod environment;
mod filters;
mod format;
mod globals;
mod html;
mod marks;
mod named;
mod numbers;
mod objects;
mod operators;
mod padding;
mod python;
mod source;
mod strings;
#[cfg(test)]
mod tests;
mod tojson;
mod walk;
mod wrap;

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use minijinja::{Environment, Error, ErrorKind, value::Serde};
use serde_json::{Map, Value};

pub use named::{GivenTemplate, Sources, Templates, other_files};
use residuum_domain::{Code, Problem};

/// Largest template, in bytes.
const MAX_SOURCE: usize = 1 << 20;

/// Largest rendered chat, in bytes.
const MAX_RENDERED: usize = 16 << 20;

/// Stack size of a template, in bytes. Nested values are compared and dropped recursively, and fuel alone allows very deep ones. Pages
/// of the stack are allocated only when they are used.
const STACK: usize = 1 << 30;

/// The name under which the template is compiled; since it has no extension, nothing is escaped.
const NAME: &str = "chat";

/// A tag after the last message, if it is to be continued. Its trailing space shows whether the template trims messages.
const OPEN: &str = "\u{fdd3} ";

/// Variables that clients cannot set.
const RESERVED: &[&str] = &["messages", "add_generation_prompt", "continue_final_message"];

/// How a rendered chat ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChatEnd {
    /// With the start of the assistant's turn, unless the last message is the assistant's.
    #[default]
    ByRole,
    /// With the last message.
    Closed,
    /// With the start of the assistant's turn.
    Prompt,
    /// Within the last message, so that it can be continued.
    Open,
}

/// A compiled template, or why it could not be compiled.
pub struct ChatTemplate {
    environment: Result<Environment<'static>, String>,
    roles: BTreeMap<String, String>,
    /// The field at fault when it fails, as a JSON pointer.
    pointer: &'static str,
}

impl ChatTemplate {
    /// Compiles a template. `roles` are the special tokens it may use by name (`bos_token`, …); `pointer` is the field of the
    /// request that errors name.
    pub fn new(source: String, roles: BTreeMap<String, String>, pointer: &'static str) -> Self {
        let compiled = if source.len() > MAX_SOURCE {
            Err(format!("the chat template has {} bytes; at most {MAX_SOURCE} are read", source.len()))
        } else {
            on_large_stack(|| environment::compile(NAME, &source).map_err(|e| message(&e)))
        };
        Self { environment: compiled, roles, pointer }
    }

    /// Renders `messages`. Pointers are relative to the request.
    ///
    /// # Errors
    /// [`Code::ChatTemplateFailed`] with the template's error; [`Code::InvalidValue`] if the last message is to be continued
    /// but has no text, and for a variable that clients cannot set.
    pub fn render(&self, messages: &[Value], end: ChatEnd, kwargs: &Map<String, Value>) -> Result<String, Problem> {
        let prompt = match end {
            ChatEnd::ByRole => messages.last().and_then(|m| m.get("role")).is_none_or(|role| role != "assistant"),
            ChatEnd::Prompt => true,
            ChatEnd::Closed => false,
            ChatEnd::Open => return self.render_open(messages, kwargs),
        };
        self.run(messages, prompt, kwargs)
    }

    /// The range of characters of each message's text in `rendered`, without white space at its ends; `None` if the template
    /// does not show it.
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

    /// Renders a chat whose last message is to be continued, as transformers does: puts a tag after its text, and cuts the
    /// rendering off at the tag.
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
            return Err(Problem::at(Code::ChatTemplateFailed, self.pointer, detail));
        };
        let trims = !rendered[end..].starts_with(OPEN);
        rendered.truncate(end);
        if trims {
            rendered.truncate(rendered.trim_end().len());
        }
        Ok(rendered)
    }

    fn run(&self, messages: &[Value], prompt: bool, kwargs: &Map<String, Value>) -> Result<String, Problem> {
        let failed = |reason: &str| Problem::at(Code::ChatTemplateFailed, self.pointer, reason.to_owned());
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
        let render = || {
            let mut out = Bounded::default();
            let template = environment.get_template(NAME)?;
            let rendered = template.render_captured_to(minijinja::Value::from(Serde(&context)), &mut out).map(drop);
            globals::clear_namespaces();
            rendered?;
            String::from_utf8(out.0).map_err(|e| Error::new(ErrorKind::WriteFailure, e.to_string()))
        };
        // an error may contain deeply nested values, so read and drop it on the large stack too
        on_large_stack(|| render().map_err(|e| message(&e))).map_err(|reason| failed(&reason))
    }
}

/// Runs `work` on a thread with a large stack; on this thread if the system cannot provide one.
fn on_large_stack<T: Send>(work: impl FnMut() -> T + Send) -> T {
    // if the thread cannot be started, the closure passed to it is lost, so pass a reference
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

/// Collects the output of a template, up to [`MAX_RENDERED`].
#[derive(Default)]
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED {
            return Err(std::io::Error::other("too large"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The message of a template error, without the position in the source.
fn message(error: &Error) -> String {
    match (error.kind(), error.detail()) {
        (ErrorKind::WriteFailure, _) => format!("the chat template writes more than {MAX_RENDERED} bytes"),
        (ErrorKind::OutOfFuel, _) => "the chat template runs too long on these messages".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    }
}

/// A message as templates expect it: null fields are removed, and reasoning is available under all names that templates use.
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
