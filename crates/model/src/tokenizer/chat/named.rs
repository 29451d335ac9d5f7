//! The chat templates of a checkpoint, and the choice of one: the request may contain a template, or name one of the checkpoint's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use serde_json::{Map, Value};

use super::ChatTemplate;
use crate::error::LoadError;
use residuum_domain::{Code, Problem};

/// The file of the default template.
const DEFAULT_FILE: &str = "chat_template.jinja";
/// The folder of the others, one `NAME.jinja` each.
const OTHERS_FOLDER: &str = "additional_chat_templates";
/// The file of a processor's template.
const PROCESSOR_FILE: &str = "chat_template.json";

/// Sources of a checkpoint's chat templates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sources {
    /// No template.
    #[default]
    None,
    /// A single template without a name.
    One(String),
    /// Several templates by name; if there is only a default one, it is [`Self::One`].
    Named(BTreeMap<String, String>),
}

impl Sources {
    /// The templates of a folder, as transformers' tokenizers find them: separate files, or else those of
    /// `tokenizer_config.json`, which is `config`. If there are none, the one of `chat_template.json`, which transformers uses
    /// for processors.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of_folder(folder: &Path, config: &Map<String, Value>) -> Result<Self, LoadError> {
        let mut named = BTreeMap::new();
        let default = folder.join(DEFAULT_FILE);
        if default.is_file() {
            named.insert("default".to_owned(), read(&default)?);
        }
        for path in others(folder) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            named.insert(name, read(&path)?);
        }
        if !named.is_empty() {
            return Ok(Self::of_names(named, true));
        }
        let configured = config.get("chat_template").map(Self::of_json).unwrap_or_default();
        let processor = folder.join(PROCESSOR_FILE);
        if configured != Self::None || !processor.is_file() {
            return Ok(configured);
        }
        let json: Value = serde_json::from_str(&read(&processor)?).map_err(|e| LoadError::file(&processor, e))?;
        Ok(json.get("chat_template").map(Self::of_json).unwrap_or_default())
    }

    /// A template is one string, a list of objects with `name` and `template`, or an object of templates by name.
    fn of_json(value: &Value) -> Self {
        let text = |v: &Value| v.as_str().map(str::to_owned);
        match value {
            Value::String(source) => Self::One(source.clone()),
            Value::Array(list) => {
                let named = list.iter().filter_map(|t| Some((text(t.get("name")?)?, text(t.get("template")?)?)));
                Self::of_names(named.collect(), false)
            }
            Value::Object(named) => {
                Self::of_names(named.iter().filter_map(|(name, t)| Some((name.clone(), text(t)?))).collect(), false)
            }
            _ => Self::None,
        }
    }

    /// Templates by name; with `unnamed`, a single default one loses its name.
    pub fn of_names(mut named: BTreeMap<String, String>, unnamed: bool) -> Self {
        match named.len() {
            0 => Self::None,
            1 if unnamed => named.remove("default").map_or_else(|| Self::Named(named), Self::One),
            _ => Self::Named(named),
        }
    }
}

/// The files of a folder's templates that exist, except `chat_template.jinja`, in the order in which they are hashed.
pub fn other_files(folder: &Path) -> Vec<PathBuf> {
    let processor = folder.join(PROCESSOR_FILE);
    [processor].into_iter().filter(|p| p.is_file()).chain(others(folder)).collect()
}

/// The files of the named templates, sorted.
fn others(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join(OTHERS_FOLDER)) else { return Vec::new() };
    let jinja = |path: &PathBuf| path.extension().is_some_and(|e| e == "jinja") && path.is_file();
    let mut found: Vec<PathBuf> = entries.filter_map(Result::ok).map(|e| e.path()).filter(jinja).collect();
    found.sort();
    found
}

fn read(path: &Path) -> Result<String, LoadError> {
    std::fs::read_to_string(path).map_err(|e| LoadError::file(path, e))
}

/// The `chat_template` of a request: a template, or the name of one of the model's. A template is compiled once, for one model.
#[derive(Clone)]
pub struct GivenTemplate(Arc<Given>);

struct Given {
    source: String,
    compiled: OnceLock<ChatTemplate>,
}

impl GivenTemplate {
    /// From the `chat_template` of a request.
    #[must_use]
    pub fn new(source: String) -> Self {
        Self(Arc::new(Given { source, compiled: OnceLock::new() }))
    }
}

impl PartialEq for GivenTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl std::fmt::Debug for GivenTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GivenTemplate").field(&self.0.source).finish()
    }
}

/// The compiled templates of a checkpoint.
pub struct Templates {
    by_name: BTreeMap<String, ChatTemplate>,
    named: bool,
    roles: BTreeMap<String, String>,
}

/// The name of the template for chats with tools.
const WITH_TOOLS: &str = "tool_use";

impl Templates {
    /// Compiles the templates; `roles` are the special tokens they may use by name (`bos_token`, …).
    pub fn new(sources: Sources, roles: BTreeMap<String, String>) -> Self {
        let (sources, named) = match sources {
            Sources::None => (BTreeMap::new(), false),
            Sources::One(source) => (BTreeMap::from([("default".to_owned(), source)]), false),
            Sources::Named(sources) => (sources, true),
        };
        let compile = |source| ChatTemplate::new(source, roles.clone(), "/messages");
        let by_name = sources.into_iter().map(|(name, source)| (name, compile(source))).collect();
        Self { by_name, named, roles }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The template for a request, chosen as transformers does: the one it contains or names; with `tools`, the one named
    /// `tool_use`, if there is one; else the default one.
    ///
    /// # Errors
    /// [`Code::NoChatTemplate`] listing the templates there are.
    pub fn choose<'t>(
        &'t self,
        given: Option<&'t GivenTemplate>,
        kwargs: &Map<String, Value>,
    ) -> Result<&'t ChatTemplate, Problem> {
        if let Some(GivenTemplate(given)) = given {
            let by_name = self.by_name.get(&given.source).filter(|_| self.named);
            let compile = || ChatTemplate::new(given.source.clone(), self.roles.clone(), "/chat_template");
            return Ok(by_name.unwrap_or_else(|| given.compiled.get_or_init(compile)));
        }
        let tools = kwargs.get("tools").is_some_and(|tools| !tools.is_null());
        let with_tools = self.by_name.get(WITH_TOOLS).filter(|_| tools && self.named);
        with_tools.or_else(|| self.by_name.get("default")).ok_or_else(|| {
            let detail = if self.is_empty() {
                "the model has no chat template: send one as chat_template, or text instead of messages".to_owned()
            } else {
                let names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
                format!("the model has no default chat template: send as chat_template one of {}", names.join(", "))
            };
            Problem::at(Code::NoChatTemplate, "/messages", detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::ChatEnd, *};

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
        folder
    }

    fn sources(files: &[(&str, &str)], config: Value) -> Sources {
        Sources::of_folder(folder(files).path(), config.as_object().unwrap()).unwrap()
    }

    fn named<const N: usize>(templates: [(&str, &str); N]) -> Sources {
        Sources::Named(templates.map(|(name, source)| (name.to_owned(), source.to_owned())).into())
    }

    #[test]
    fn templates_are_found_as_transformers_finds_them() {
        let one = |source: &str| Sources::One(source.to_owned());
        let in_config = json!({"chat_template": "c"});
        assert_eq!(sources(&[], json!({})), Sources::None);
        assert_eq!(sources(&[], in_config.clone()), one("c"));
        assert_eq!(sources(&[(DEFAULT_FILE, "f")], in_config.clone()), one("f"));
        let tool_use = ("additional_chat_templates/tool_use.jinja", "t");
        assert_eq!(sources(&[tool_use, (DEFAULT_FILE, "f")], json!({})), named([("default", "f"), ("tool_use", "t")]));
        // if there are files, the configuration is not read
        assert_eq!(sources(&[tool_use], in_config.clone()), named([("tool_use", "t")]));
        let list = json!({"chat_template": [{"name": "default", "template": "d"}, {"name": "rag", "template": "r"}]});
        assert_eq!(sources(&[], list), named([("default", "d"), ("rag", "r")]));
        assert_eq!(sources(&[], json!({"chat_template": {"default": "d"}})), named([("default", "d")]));
        let processor = (PROCESSOR_FILE, "{\"chat_template\": \"p\"}");
        assert_eq!(sources(&[processor], json!({})), one("p"));
        assert_eq!(sources(&[processor], in_config), one("c"));
    }

    #[test]
    fn the_files_that_are_there_are_hashed() {
        let folder = folder(&[
            ("additional_chat_templates/b.jinja", ""),
            ("additional_chat_templates/a.jinja", ""),
            ("additional_chat_templates/readme.md", ""),
            (PROCESSOR_FILE, "{}"),
        ]);
        let names: Vec<_> =
            other_files(folder.path()).iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(names, [PROCESSOR_FILE, "a.jinja", "b.jinja"]);
        assert_eq!(other_files(tempfile::tempdir().unwrap().path()), Vec::<PathBuf>::new());
    }

    fn chosen(sources: Sources, given: Option<&str>, kwargs: Value) -> Result<String, Problem> {
        let given = given.map(|source| GivenTemplate::new(source.to_owned()));
        let kwargs = kwargs.as_object().unwrap();
        let roles = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
        Templates::new(sources, roles).choose(given.as_ref(), kwargs)?.render(&[], ChatEnd::Prompt, kwargs)
    }

    #[test]
    fn tools_choose_the_template_for_tools() {
        let both = || named([("default", "D"), ("tool_use", "T{{ tools | length }}"), ("rag", "R")]);
        assert_eq!(chosen(both(), None, json!({})).unwrap(), "D");
        assert_eq!(chosen(both(), None, json!({"tools": null})).unwrap(), "D");
        assert_eq!(chosen(both(), None, json!({"tools": [1, 2]})).unwrap(), "T2");
        assert_eq!(chosen(both(), Some("rag"), json!({"tools": [1]})).unwrap(), "R");
        assert_eq!(chosen(named([("default", "D")]), None, json!({"tools": []})).unwrap(), "D");
        let problem = chosen(named([("rag", "R"), ("tool_use", "T")]), None, json!({})).unwrap_err();
        assert_eq!(problem.code, Code::NoChatTemplate);
        assert!(problem.detail.ends_with("one of rag, tool_use"), "{}", problem.detail);
    }

    #[test]
    fn a_request_brings_a_template() {
        assert_eq!(chosen(Sources::None, Some("{{ bos_token }}x"), json!({})).unwrap(), "<s>x");
        assert_eq!(chosen(Sources::One("m".to_owned()), Some("default"), json!({})).unwrap(), "default");
        let problem = chosen(Sources::None, Some("{{ raise_exception('no') }}"), json!({})).unwrap_err();
        assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::ChatTemplateFailed, "/chat_template"));
        let problem = chosen(Sources::None, Some("{% if %}"), json!({})).unwrap_err();
        assert_eq!((problem.code, problem.errors[0].pointer.as_str()), (Code::ChatTemplateFailed, "/chat_template"));
        assert_eq!(chosen(Sources::None, None, json!({})).unwrap_err().code, Code::NoChatTemplate);
    }
}
