//! Receives an autoencoder that is uploaded as a form: its files are streamed to a folder of the store.

use axum::body::Body;
use multer::{Constraints, Field, Multipart, SizeLimit};

use crate::api::{pace::TooSlow, state::ApiState};
use residuum_domain::{Code, Problem};
use residuum_engine::{
    questions::blocking,
    serving::{NewSae, SaePlace},
};
use residuum_store::{SaeUpload, UploadedFile};

/// Largest `cfg.json`.
const MAX_CFG: u64 = 1 << 20;
/// Longest text of another field.
const MAX_TEXT: u64 = 1000;
/// Bytes of the body beside the files: names and boundaries.
const MAX_REST: u64 = 64 << 10;
/// Number of bytes that are written at once.
const CHUNK: usize = 1 << 20;

/// Names of the files in the folder.
const CFG: &str = "cfg.json";
const WEIGHTS: &str = "sae_weights.safetensors";

/// The fields that have arrived.
#[derive(Default)]
struct Form {
    id: Option<String>,
    model: Option<String>,
    force: Option<bool>,
    cfg: bool,
    weights: bool,
    n_bytes: u64,
}

/// Receives the form. If the client sends too slowly, leaves, or sends something else, nothing of it stays.
pub async fn receive(state: &ApiState, content_type: &str, body: Body) -> Result<NewSae, Problem> {
    let boundary = multer::parse_boundary(content_type)
        .map_err(|_| Problem::new(Code::UnsupportedMediaType, "multipart/form-data needs a boundary"))?;
    let most = state.config.max_import_bytes;
    let limits = SizeLimit::new()
        .whole_stream(most.saturating_add(MAX_CFG + MAX_REST))
        .per_field(MAX_TEXT)
        .for_field("cfg", MAX_CFG)
        .for_field("weights", most);
    let mut fields =
        Multipart::with_constraints(body.into_data_stream(), boundary, Constraints::new().size_limit(limits));
    let upload = state.engine.store().receive_sae().await?;
    let (mut upload, mut form) = (upload, Form::default());
    while let Some(field) = fields.next_field().await.map_err(|e| refused(&e))? {
        let name = field.name().unwrap_or_default().to_owned();
        if form.has(&name) {
            return Err(Problem::at(Code::InvalidBody, format!("/{name}"), "a field may be given only once"));
        }
        match name.as_str() {
            "id" => form.id = Some(text(field).await?),
            "model" => form.model = Some(text(field).await?),
            "force" => form.force = Some(flag(&text(field).await?)?),
            "cfg" => {
                (upload, form.n_bytes) = file(upload, CFG, field, form.n_bytes).await?;
                form.cfg = true;
            }
            "weights" => {
                // a client that is refused anyway should not have to send gigabytes first
                if let (Some(id), Some(model)) = (&form.id, &form.model) {
                    state.serving.check_new_sae(id, model)?;
                }
                (upload, form.n_bytes) = file(upload, WEIGHTS, field, form.n_bytes).await?;
                form.weights = true;
            }
            _ => {
                let known = "the fields are id, model, cfg, weights and force";
                let name: String = name.chars().take(100).collect();
                return Err(Problem::at(Code::InvalidBody, format!("/{name}"), format!("unknown field; {known}")));
            }
        }
    }
    // only now: a client that merely announces a large file must not cause eviction
    state.engine.make_room(form.n_bytes).await?;
    form.finish(upload)
}

impl Form {
    fn has(&self, name: &str) -> bool {
        match name {
            "id" => self.id.is_some(),
            "model" => self.model.is_some(),
            "force" => self.force.is_some(),
            "cfg" => self.cfg,
            "weights" => self.weights,
            _ => false,
        }
    }

    fn finish(self, upload: SaeUpload) -> Result<NewSae, Problem> {
        let missing = |name: &str| Problem::at(Code::InvalidBody, format!("/{name}"), "this field is required");
        let Self { id, model, force, cfg, weights, .. } = self;
        let (id, model) = (id.ok_or_else(|| missing("id"))?, model.ok_or_else(|| missing("model"))?);
        for (name, given) in [("cfg", cfg), ("weights", weights)] {
            if !given {
                return Err(missing(name));
            }
        }
        Ok(NewSae { id, model, place: SaePlace::Upload(upload), force: force.unwrap_or(false) })
    }
}

async fn text(field: Field<'_>) -> Result<String, Problem> {
    let name = field.name().unwrap_or_default().to_owned();
    let bytes = field.bytes().await.map_err(|e| refused(&e))?;
    String::from_utf8(bytes.into())
        .map_err(|_| Problem::at(Code::InvalidBody, format!("/{name}"), "this field must be text in UTF-8"))
}

fn flag(text: &str) -> Result<bool, Problem> {
    text.parse().map_err(|_| Problem::at(Code::InvalidField, "/force", "force is true or false"))
}

/// Streams a field to a file of the upload. Returns the bytes of all files so far.
async fn file(
    upload: SaeUpload,
    name: &'static str,
    mut field: Field<'_>,
    n_bytes: u64,
) -> Result<(SaeUpload, u64), Problem> {
    let (upload, mut file) = blocking(move || {
        let file = upload.file(name)?;
        Ok((upload, file))
    })
    .await?;
    let mut buffer = Vec::new();
    while let Some(bytes) = field.chunk().await.map_err(|e| refused(&e))? {
        buffer.extend_from_slice(&bytes);
        if buffer.len() >= CHUNK {
            (file, buffer) = append(file, buffer).await?;
        }
    }
    let (file, _) = append(file, buffer).await?;
    let n_bytes = n_bytes.saturating_add(file.len());
    blocking(move || file.finish()).await?;
    Ok((upload, n_bytes))
}

async fn append(mut file: UploadedFile, mut buffer: Vec<u8>) -> Result<(UploadedFile, Vec<u8>), Problem> {
    blocking(move || {
        file.append(&buffer)?;
        buffer.clear();
        Ok((file, buffer))
    })
    .await
}

/// The problem of a form that could not be read.
fn refused(error: &multer::Error) -> Problem {
    match error {
        multer::Error::FieldSizeExceeded { limit, field_name } => {
            let name = field_name.as_deref().unwrap_or_default();
            let detail = format!("this field has more than {limit} bytes, which it may have");
            Problem::at(Code::BodyTooLarge, format!("/{name}"), detail)
        }
        multer::Error::StreamSizeExceeded { limit } => {
            Problem::new(Code::BodyTooLarge, format!("the body has more than {limit} bytes, which it may have"))
        }
        multer::Error::StreamReadFailed(cause) if TooSlow::caused(&**cause) => {
            Problem::new(Code::RequestTimeout, "the body arrived too slowly; send it again")
        }
        multer::Error::StreamReadFailed(_) => Problem::new(Code::InvalidBody, "the body could not be read to its end"),
        _ => Problem::new(Code::InvalidBody, "the body is not valid multipart/form-data"),
    }
}
