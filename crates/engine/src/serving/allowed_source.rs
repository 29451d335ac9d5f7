//! Where models and autoencoders may be loaded from while the server runs: a folder of the operator's, and the hub.
//!
//! Whatever is not allowed gets one answer, so that nobody learns from it what else lies on the disk.

use std::{
    ffi::OsStr,
    fs,
    path::{Component, Path, PathBuf},
};

use residuum_domain::{Code, Problem};
use residuum_model::{LoadError, Location, is_hub_name, sae};

/// Longest source, in bytes.
const MAX_SOURCE: usize = 1000;
/// Folders below that of a checkpoint whose files are looked at.
const MAX_DEPTH: usize = 3;

/// What `source` of a request may name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedSources {
    models_dir: Option<PathBuf>,
    allow_hub: bool,
}

/// A source that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A checkpoint below the models folder.
    Local {
        /// Where it is.
        location: Location,
        /// Its path in the models folder.
        shown: String,
    },
    /// A hub name.
    Hub(String),
}

impl Found {
    /// What clients are shown of it.
    pub(crate) fn shown(&self) -> &str {
        match self {
            Self::Local { shown, .. } => shown,
            Self::Hub(name) => name,
        }
    }
}

impl AllowedSources {
    /// Everything below `models_dir`, and hub names if `allow_hub`.
    ///
    /// # Errors
    /// When `models_dir` is not a folder.
    pub fn new(models_dir: Option<&Path>, allow_hub: bool) -> std::io::Result<Self> {
        let models_dir = models_dir.map(fs::canonicalize).transpose()?;
        if models_dir.as_ref().is_some_and(|dir| !dir.is_dir()) {
            return Err(std::io::Error::from(std::io::ErrorKind::NotADirectory));
        }
        Ok(Self { models_dir, allow_hub })
    }

    /// The model that `source` names. Blocks.
    ///
    /// # Errors
    /// [`Code::LoadingOff`], or [`Code::UnknownSource`], whatever the reason.
    pub(crate) fn model(&self, source: &str) -> Result<Found, Problem> {
        if self.models_dir.is_none() && !self.allow_hub {
            let detail = "this server loads no models while it runs; start it with --models-dir DIR, with --allow-hub, or \
                          with both";
            return Err(Problem::new(Code::LoadingOff, detail));
        }
        let local = self.inside(source).and_then(|(path, shown)| Some((model_at(&path)?, shown)));
        match local {
            Some((location, shown)) => Ok(Found::Local { location, shown }),
            None if self.allow_hub && is_hub_name(source) => Ok(Found::Hub(source.to_owned())),
            None => {
                let expected = match (self.models_dir.is_some(), self.allow_hub) {
                    (true, true) => {
                        "give the path of a Hugging Face folder or a .gguf file in the models folder, or a hub name, \
                         org/name"
                    }
                    (true, false) => "give the path of a Hugging Face folder or a .gguf file in the models folder",
                    _ => "give a hub name, org/name",
                };
                Err(Problem::at(
                    Code::UnknownSource,
                    "/source",
                    format!("no model can be loaded from there; {expected}"),
                ))
            }
        }
    }

    /// The folder of the autoencoder that `source` names, and its path in the models folder. Blocks.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub(crate) fn sae(&self, source: &str) -> Result<(PathBuf, String), Problem> {
        if self.models_dir.is_none() {
            let detail = "this server loads no autoencoders by path; start it with --models-dir DIR, or upload cfg.json and \
                          the weights as multipart/form-data";
            return Err(Problem::new(Code::LoadingOff, detail));
        }
        let is_sae = |path: &Path| path.join(sae::SETTINGS).is_file() && path.join(sae::WEIGHTS).is_file();
        self.inside(source).filter(|(path, _)| is_sae(path)).ok_or_else(|| {
            let detail = "no autoencoder can be loaded from there; give the path of a folder with cfg.json and \
                          sae_weights.safetensors in the models folder";
            Problem::at(Code::UnknownSource, "/source", detail)
        })
    }

    /// The real path of something in the models folder, whose files all lie there too, and its path in that folder.
    fn inside(&self, source: &str) -> Option<(PathBuf, String)> {
        let root = self.models_dir.as_deref()?;
        if source.is_empty() || source.len() > MAX_SOURCE || source.contains('\0') {
            return None;
        }
        let given = Path::new(source);
        let relative = if given.is_absolute() { given.strip_prefix(root).ok()? } else { given };
        if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return None;
        }
        let path = fs::canonicalize(root.join(relative)).ok()?;
        let inside = path != root && path.starts_with(root) && files_inside(&path, root, MAX_DEPTH);
        inside.then(|| (path, relative.to_string_lossy().into_owned()))
    }
}

/// Whether everything in a folder lies below `root`, links followed.
fn files_inside(path: &Path, root: &Path, depth: usize) -> bool {
    let Ok(entries) = fs::read_dir(path) else { return true };
    for entry in entries {
        let Ok(entry) = entry else { return false };
        // a link to nothing leads nowhere
        let Ok(real) = fs::canonicalize(entry.path()) else { continue };
        if !real.starts_with(root) {
            return false;
        }
        if depth > 0 && real.is_dir() && !files_inside(&real, root, depth - 1) {
            return false;
        }
    }
    true
}

/// The checkpoint at a path, if it looks like one.
fn model_at(path: &Path) -> Option<Location> {
    match Location::at(path).ok()?? {
        Location::Folder(folder) => {
            let weights = ["model.safetensors", "model.safetensors.index.json"];
            let is_model =
                folder.join("config.json").is_file() && weights.iter().any(|file| folder.join(file).is_file());
            is_model.then_some(Location::Folder(folder))
        }
        file @ Location::Gguf(_) => Some(file),
    }
}

/// The reason of a failed load for clients: without the paths of this machine. What lies at `path` is called `shown`.
pub(crate) fn reason(error: &LoadError, path: Option<&Path>, shown: &str) -> String {
    let mut text = error.to_string();
    if let Some(path) = path.map(|path| path.display().to_string()).filter(|path| path.len() > 1) {
        text = text.replace(&path, shown);
    }
    without_paths(&text)
}

/// The text with each absolute path in it replaced by its last part.
fn without_paths(text: &str) -> String {
    let is_end = |c: char| c.is_whitespace() || "\"'`(),;:[]{}".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = &rest[..rest.find(is_end).unwrap_or(rest.len())];
        match Path::new(word).file_name().and_then(OsStr::to_str) {
            Some(name) if word.starts_with('/') => out.push_str(name),
            _ => out.push_str(word),
        }
        rest = &rest[word.len()..];
        if let Some(c) = rest.chars().next() {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn model(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::write(folder.join(file), "{}").unwrap();
        }
    }

    #[test]
    fn only_models_below_the_folder_are_found_and_all_else_is_answered_alike() {
        let temp = tempfile::tempdir().unwrap();
        let (root, outside) = (temp.path().join("models"), temp.path().join("outside"));
        model(&root.join("org/a"));
        model(&outside);
        fs::write(root.join("b.gguf"), "").unwrap();
        fs::write(root.join("notes.txt"), "").unwrap();
        fs::create_dir(root.join("empty")).unwrap();
        symlink(root.join("org/a"), root.join("alias")).unwrap();
        symlink(&outside, root.join("leak")).unwrap();
        model(&root.join("half"));
        fs::remove_file(root.join("half/model.safetensors")).unwrap();
        symlink(outside.join("model.safetensors"), root.join("half/model.safetensors")).unwrap();
        let sources = AllowedSources::new(Some(&root), false).unwrap();
        let real = fs::canonicalize(&root).unwrap();
        let found = |source: &str| sources.model(source).map(|found| found.shown().to_owned());
        assert_eq!(found("org/a"), Ok("org/a".to_owned()));
        assert_eq!(found("b.gguf"), Ok("b.gguf".to_owned()));
        assert_eq!(found(&format!("{}/org/a", real.display())), Ok("org/a".to_owned()));
        let Ok(Found::Local { location, .. }) = sources.model("alias") else { panic!("a link inside is followed") };
        assert_eq!(location, Location::Folder(real.join("org/a")));
        let refused = [
            "",
            ".",
            "..",
            "../outside",
            "org/../org/a",
            "leak",
            "half",
            "empty",
            "notes.txt",
            "no/such",
            "org/none",
            "/etc",
            "/etc/passwd",
            "b.gguf\0",
            &outside.display().to_string(),
            "models/org/a",
        ];
        let answers: Vec<Problem> = refused.iter().map(|source| sources.model(source).unwrap_err()).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
        assert_eq!(answers[0].code, Code::UnknownSource);
    }

    #[test]
    fn hub_names_need_their_flag_and_no_flag_at_all_says_so() {
        let hub = AllowedSources::new(None, true).unwrap();
        assert_eq!(hub.model("org/name"), Ok(Found::Hub("org/name".to_owned())));
        assert_eq!(hub.model("/etc/passwd").unwrap_err().code, Code::UnknownSource);
        assert_eq!(hub.sae("x").unwrap_err().code, Code::LoadingOff);
        let off = AllowedSources::default().model("org/name").unwrap_err();
        assert!(off.code == Code::LoadingOff && off.detail.contains("--models-dir"), "{off}");
        assert!(AllowedSources::new(Some(Path::new("/no/such/folder")), false).is_err());
    }

    #[test]
    fn reasons_show_no_path_of_the_machine() {
        let error =
            LoadError::new("/srv/models/org/a/config.json", "is not in /var/cache/hub (os error 2): `a/b` stays");
        let text = reason(&error, Some(Path::new("/srv/models/org/a")), "org/a");
        assert_eq!(text, "org/a/config.json: is not in hub (os error 2): `a/b` stays");
        assert_eq!(without_paths("\"/a/b\",/c/d.x:"), "\"b\",d.x:");
    }
}
