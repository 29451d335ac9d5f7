//! Finds a checkpoint: a folder, a GGUF file, or a hub name, which is looked up in the local cache or downloaded. It opens no files.

use std::{
    env,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo,
    api::{
        Progress,
        sync::{ApiBuilder, ApiError, ApiRepo},
    },
};

use super::{
    LoadOptions,
    error::LoadError,
    load_progress::{LoadProgress, LoadStage},
};

/// A checkpoint on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
}

/// Vocabulary files; a checkpoint needs at least one of them.
const VOCABULARIES: &[&str] = &["tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model"];

/// Optional files.
const OPTIONAL: &[&str] = &[
    "generation_config.json",
    "merges.txt",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// The folder of additional chat templates.
const TEMPLATES: &str = "additional_chat_templates/";

impl Location {
    /// The checkpoint at a path; `None` if nothing is there.
    ///
    /// # Errors
    /// When it is neither a folder nor a `.gguf` file.
    pub fn at(path: &Path) -> Result<Option<Self>, LoadError> {
        if path.is_dir() {
            return Ok(Some(Self::Folder(path.to_owned())));
        }
        if !path.is_file() {
            return Ok(None);
        }
        match path.extension() {
            Some(e) if e.eq_ignore_ascii_case("gguf") => Ok(Some(Self::Gguf(path.to_owned()))),
            _ => Err(LoadError::file(path, "is neither a folder nor a .gguf file")),
        }
    }

    /// The folder or file.
    #[must_use]
    pub fn path(&self) -> &Path {
        let (Self::Folder(path) | Self::Gguf(path)) = self;
        path
    }
}

/// Finds `path_or_hub`, downloading it when it is a hub name that is not in the local cache.
///
/// # Errors
/// When there is nothing of that name, or a download fails.
pub fn locate(path_or_hub: &str, options: &LoadOptions) -> Result<Location, LoadError> {
    let path = Path::new(path_or_hub);
    match Location::at(path)? {
        Some(found) => Ok(found),
        None if is_hub_name(path_or_hub) => from_hub(path_or_hub, options),
        None => Err(LoadError::file(path, "does not exist")),
    }
}

/// The checkpoint of a hub name: from the local cache, or downloaded. Paths are not looked at.
///
/// # Errors
/// When it is not in the cache and downloads are off, or a download fails.
pub fn from_hub(name: &str, options: &LoadOptions) -> Result<Location, LoadError> {
    let cache = Cache::new(
        cache_folder(options)
            .ok_or_else(|| LoadError::new(name, "there is no home directory for the hub cache; set HF_HOME"))?,
    );
    if let Some(folder) = cached(&cache, name) {
        return Ok(Location::Folder(folder));
    }
    let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|v| env::var(v).is_ok_and(|v| is_true(&v)));
    if options.offline || offline {
        let place = cache.path().display();
        return Err(LoadError::new(name, format!("is not in the hub cache {place} and downloads are off")));
    }
    options.progress.begin(LoadStage::Downloading, 0);
    download(cache, name, &options.progress).map(Location::Folder)
}

/// Whether this is `org/name`, with the characters that the hub allows.
#[must_use]
pub fn is_hub_name(name: &str) -> bool {
    let plain = |s: &str| {
        !s.is_empty()
            && !s.starts_with(['.', '-'])
            && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    name.split_once('/').is_some_and(|(org, name)| plain(org) && plain(name) && name != "..")
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

/// The hub cache, as `huggingface_hub` finds it.
fn cache_folder(options: &LoadOptions) -> Option<PathBuf> {
    let from = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    options
        .hub_cache
        .clone()
        .or_else(|| from("HF_HUB_CACHE"))
        .or_else(|| from("HF_HOME").map(|p| p.join("hub")))
        .or_else(|| from("XDG_CACHE_HOME").map(|p| p.join("huggingface/hub")))
        .or_else(|| from("HOME").map(|p| p.join(".cache/huggingface/hub")))
}

/// The cached snapshot of a repository, if it is complete.
fn cached(cache: &Cache, name: &str) -> Option<PathBuf> {
    let repo = cache.repo(Repo::model(name.to_owned()));
    let folder = repo.get("config.json")?.parent()?.to_owned();
    let weights = ["model.safetensors", "model.safetensors.index.json"].iter().any(|f| folder.join(f).exists());
    let complete = weights
        && VOCABULARIES.iter().any(|f| folder.join(f).exists())
        && shards(&folder).is_none_or(|names| names.iter().all(|n| folder.join(n).exists()));
    complete.then_some(folder)
}

/// The file names in the index of a sharded checkpoint.
fn shards(folder: &Path) -> Option<Vec<String>> {
    if folder.join("model.safetensors").exists() {
        return None;
    }
    let text = std::fs::read(folder.join("model.safetensors.index.json")).ok()?;
    let index: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let mut names: Vec<String> =
        index.get("weight_map")?.as_object()?.values().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// Counts the bytes of a download.
struct Counted<'a>(&'a LoadProgress);

impl Progress for Counted<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        tracing::info!(file = filename, bytes = size, "downloading");
        self.0.expect(size as u64);
    }

    fn update(&mut self, size: usize) {
        self.0.add(size as u64);
    }

    fn finish(&mut self) {}
}

fn download(cache: Cache, name: &str, progress: &LoadProgress) -> Result<PathBuf, LoadError> {
    tracing::info!(model = name, "downloading from the hub");
    let mut builder = ApiBuilder::from_cache(cache.clone())
        .with_progress(false)
        .with_user_agent("residuum", env!("CARGO_PKG_VERSION"));
    if let Ok(endpoint) = env::var("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint);
    }
    if let Ok(token) = env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    let error = |file: &str, e: &ApiError| LoadError::new(name, format!("{file} cannot be downloaded: {e}"));
    let repo: ApiRepo = builder.build().map_err(|e| LoadError::new(name, e))?.model(name.to_owned());
    let available: Vec<String> = match repo.info() {
        Ok(info) => info.siblings.into_iter().map(|s| s.rfilename).collect(),
        Err(e) => return Err(LoadError::new(name, format!("cannot be looked up on the hub: {e}"))),
    };
    let has = |file: &str| available.iter().any(|f| f == file);
    let known = cache.repo(Repo::model(name.to_owned()));
    let get = |file: &str| {
        progress.check()?;
        match known.get(file) {
            Some(path) => Ok(path),
            None => repo.download_with_progress(file, Counted(progress)).map_err(|e| error(file, &e)),
        }
    };
    let folder = get("config.json")?.parent().map(Path::to_owned).unwrap_or_default();
    if !VOCABULARIES.iter().any(|f| has(f)) {
        return Err(LoadError::new(name, format!("has none of {} on the hub", VOCABULARIES.join(", "))));
    }
    let templates = available.iter().map(String::as_str).filter(|f| f.starts_with(TEMPLATES) && f.ends_with(".jinja"));
    for file in VOCABULARIES.iter().chain(OPTIONAL).copied().filter(|f| has(f)).chain(templates) {
        get(file)?;
    }
    if has("model.safetensors") {
        get("model.safetensors")?;
        return Ok(folder);
    }
    if !has("model.safetensors.index.json") {
        return Err(LoadError::new(name, "has no safetensors weights on the hub"));
    }
    get("model.safetensors.index.json")?;
    for shard in shards(&folder).unwrap_or_default() {
        get(&shard)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_names_are_told_from_paths() {
        assert!(is_hub_name("HuggingFaceTB/SmolLM2-135M"));
        for path in ["models/../x", "/abs", "a/b/c", "name", "./a", "a/", "a/.hidden", "org/na me"] {
            assert!(!is_hub_name(path), "{path}");
        }
    }

    #[test]
    fn a_complete_snapshot_is_found_without_the_network() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("models--org--tiny");
        let snapshot = repo.join("snapshots/abc");
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir_all(repo.join("refs")).unwrap();
        std::fs::write(repo.join("refs/main"), "abc").unwrap();
        let options = LoadOptions { offline: true, hub_cache: Some(dir.path().to_owned()), ..LoadOptions::default() };
        for file in ["config.json", "tokenizer.json"] {
            std::fs::write(snapshot.join(file), "{}").unwrap();
        }
        assert!(locate("org/tiny", &options).unwrap_err().to_string().contains("not in the hub cache"));
        std::fs::write(snapshot.join("model.safetensors"), "").unwrap();
        assert_eq!(locate("org/tiny", &options), Ok(Location::Folder(snapshot)));
    }
}
