//! From interventions as they are written to changes and their numbers.

use std::{ops::Range, sync::Arc};

use serde_json::{Map, Value, json};

use super::{
    InterventionDto,
    dto::{OpName, PatchSource, SetValue},
    parts::RowPart,
};
use crate::api::{dto::selector::CacheSelector, state::ApiState};
use residuum_analysis::rows::{Preparation, Prepared};
use residuum_domain::{
    CaptureRequest, Code, Edit, Edits, Hook, HookName, ModelInfo, Op, Parts, Positions, PositionsRequest, Problem,
    Selection, Site, TenantId, TokensRequest, hook::UnknownHook,
};
use residuum_engine::questions::{
    Chosen, blocking, read_id,
    row_reader::{RowsOf, read_rows},
};
use residuum_engine::{Asked, Interventions};

/// Interventions of one run.
const MAX_INTERVENTIONS: usize = 256;
/// Numbers that all of them take together: 128 MiB, kept with the run.
const MAX_NUMBERS: usize = 32 << 20;
/// Caches of one mean.
const MAX_CACHES: usize = 100_000;

/// Reads interventions against a model, fetching directions, means and patches from the store. Problems point into
/// `/interventions`.
///
/// # Errors
/// [`Code::UnknownHook`], [`Code::LayerOutOfRange`], [`Code::ShapeMismatch`], [`Code::InvalidBody`], [`Code::InvalidValue`],
/// [`Code::UnknownDirection`], [`Code::UnknownCache`], [`Code::HookNotStored`], [`Code::PositionOutOfRange`],
/// [`Code::ResultTooLarge`]; the store's own.
pub async fn resolve(
    state: &ApiState,
    tenant: TenantId,
    info: &ModelInfo,
    asked: Vec<InterventionDto>,
) -> Result<Interventions, Problem> {
    if asked.len() > MAX_INTERVENTIONS {
        let detail = format!("{} interventions are too many; a run takes {MAX_INTERVENTIONS}", asked.len());
        return Err(Problem::at(Code::InvalidValue, "/interventions", detail));
    }
    let mut made = Made { edits: Vec::new(), numbers: Vec::new(), asked: Vec::new() };
    for (i, dto) in asked.into_iter().enumerate() {
        let pointer = format!("/interventions/{i}");
        let reader = Reader { state, tenant, info, dto: &dto };
        reader.read(i, &pointer, &mut made).await.map_err(|p| p.under(&pointer))?;
        if made.numbers.len() > MAX_NUMBERS {
            let detail =
                format!("the interventions take more than {MAX_NUMBERS} numbers; patch fewer layers or positions");
            return Err(Problem::at(Code::ResultTooLarge, pointer, detail));
        }
    }
    let edits = Edits::new(made.edits, made.numbers).map_err(|why| {
        tracing::error!(why, "interventions were read wrongly");
        Problem::new(Code::Internal, "the interventions could not be read")
    })?;
    Ok(Interventions { edits: Arc::new(edits), asked: made.asked })
}

/// What has been read so far.
struct Made {
    edits: Vec<Edit>,
    numbers: Vec<f32>,
    asked: Vec<Asked>,
}

impl Made {
    fn keep(&mut self, numbers: &[f32]) -> Range<usize> {
        let start = self.numbers.len();
        self.numbers.extend_from_slice(numbers);
        start..self.numbers.len()
    }
}

/// One intervention and what it is read against. Problems point into the intervention.
struct Reader<'a> {
    state: &'a ApiState,
    tenant: TenantId,
    info: &'a ModelInfo,
    dto: &'a InterventionDto,
}

impl Reader<'_> {
    async fn read(&self, i: usize, pointer: &str, made: &mut Made) -> Result<(), Problem> {
        let dto = self.dto;
        let hooks = self.hooks()?;
        let site = hooks[0].site();
        dto.check_fields(site.is_attention_map())?;
        self.check_site(site)?;
        let part = RowPart::of(dto, site, &self.info.row_shape(site))?;
        let first = made.numbers.len();
        let mut described = self.described(&hooks);
        let edit = |hook: Hook, parts, op| Edit { hook, intervention: i, parts, op };
        let edits: Vec<Edit> = match dto.op {
            OpName::Knockout => hooks.iter().map(|h| edit(*h, part.each(), Op::Mask)).collect(),
            OpName::Zero => self.fill(0.0, &part, &hooks, edit),
            OpName::Scale => {
                let factor = finite(dto.factor, "factor")?;
                let parts = if site.is_attention_map() { part.each() } else { part.whole() };
                hooks.iter().map(|h| edit(*h, parts.clone(), Op::Scale { factor })).collect()
            }
            OpName::Set if dto.number().is_some() => {
                self.one_of(&["value", "direction", "vector"])?;
                self.fill(finite(dto.number(), "value")?, &part, &hooks, edit)
            }
            OpName::Add | OpName::ProjectOut | OpName::Set => {
                let vectors = self.vectors(&hooks, &part).await?;
                let strength =
                    if dto.op == OpName::Add { finite(dto.strength.or(Some(1.0)), "strength")? } else { 1.0 };
                let mut edits = Vec::with_capacity(hooks.len());
                for (hook, vector) in hooks.iter().zip(vectors) {
                    let (parts, op) = self.vector_op(&part, vector, strength, made)?;
                    edits.push(edit(*hook, parts, op));
                }
                edits
            }
            OpName::MeanAblate => {
                let (means, n_caches) = self.means(&hooks).await?;
                described.insert("n_caches".to_owned(), json!(n_caches));
                let set = |(hook, mean): (&Hook, Vec<f32>)| {
                    let vector = made.keep(&part.gather(&mean));
                    edit(*hook, part.whole(), Op::Set { vector })
                };
                hooks.iter().zip(means).map(set).collect()
            }
            OpName::Patch => {
                let tables = self.tables(&hooks, &part).await?;
                let replace = |(hook, (table, n_rows, n_keys)): (&Hook, (Vec<f32>, usize, usize))| {
                    let table = made.keep(&table);
                    let parts = if n_keys > 0 { part.each() } else { part.whole() };
                    edit(*hook, parts, Op::Replace { table, n_rows, n_keys })
                };
                hooks.iter().zip(tables).map(replace).collect()
            }
        };
        made.edits.extend(edits);
        if made.numbers.len() > first {
            let bytes: &[u8] = bytemuck::cast_slice(&made.numbers[first..]);
            described.insert("numbers_blake3".to_owned(), json!(blake3::hash(bytes).to_hex().to_string()));
        }
        let queries = if dto.to.is_some() { ("to", &dto.to) } else { ("positions", &dto.positions) };
        made.asked.push(Asked {
            tokens: queries.1.clone().unwrap_or(TokensRequest::All),
            tokens_pointer: format!("{pointer}/{}", queries.0),
            keys: dto.from.clone().unwrap_or(TokensRequest::All),
            keys_pointer: format!("{pointer}/from"),
            described,
        });
        Ok(())
    }

    /// The hooks, all of one site, ascending.
    fn hooks(&self) -> Result<Vec<Hook>, Problem> {
        let knockout = self.dto.op == OpName::Knockout;
        let name = match &self.dto.hook {
            Some(name) => name.clone(),
            None if knockout => Site::AttnScores.name().to_owned(),
            None => Site::ResidPost.name().to_owned(),
        };
        let layers = self.dto.layers.clone().unwrap_or_default();
        let full = matches!(name.parse::<HookName>(), Ok(HookName::Full(_)));
        if full && self.dto.layers.is_some() {
            let detail =
                format!("`{}` names its layer itself; leave out layers or the layer in the name", shown(&name));
            return Err(Problem::at(Code::InvalidBody, "/layers", detail));
        }
        let request = CaptureRequest { hooks: vec![name], layers, ..CaptureRequest::default() };
        let at_hook = |mut p: Problem| {
            p.errors.iter_mut().filter(|e| e.pointer == "/hooks/0").for_each(|e| e.pointer = "/hook".to_owned());
            p
        };
        let hooks = request.resolve(self.info).map_err(at_hook)?;
        if knockout && hooks[0].site() != Site::AttnScores {
            let detail = "a knockout masks attention scores: leave out the hook, or name `attn.hook_attn_scores`";
            return Err(Problem::at(Code::InvalidValue, "/hook", detail));
        }
        Ok(hooks.to_vec())
    }

    /// Refuses what a site cannot have done to it.
    fn check_site(&self, site: Site) -> Result<(), Problem> {
        let refuse = |detail: String| Err(Problem::at(Code::InvalidValue, "/hook", detail));
        if site.is_index() {
            return refuse(format!("`{}` holds indices; change `mlp.hook_router_logits` instead", site.name()));
        }
        let of_vectors = matches!(self.dto.op, OpName::Add | OpName::ProjectOut | OpName::MeanAblate)
            || (self.dto.op == OpName::Set && self.dto.number().is_none());
        if site.is_attention_map() && of_vectors {
            let detail = "attention maps take zero, scale, set with a number, patch and, before the softmax, knockout";
            return refuse(format!("`{}` does not go with `{}`: {detail}", site.name(), self.dto.op.name()));
        }
        Ok(())
    }

    fn fill(&self, value: f32, part: &RowPart, hooks: &[Hook], edit: impl Fn(Hook, Parts, Op) -> Edit) -> Vec<Edit> {
        let parts = if hooks[0].site().is_attention_map() { part.each() } else { part.whole() };
        hooks.iter().map(|h| edit(*h, parts.clone(), Op::Fill { value })).collect()
    }

    /// Refuses all but one of these fields.
    fn one_of(&self, fields: &[&str]) -> Result<(), Problem> {
        let given = |field: &&&str| match **field {
            "direction" => self.dto.direction.is_some(),
            "vector" => self.dto.vector.is_some(),
            _ => self.dto.value.is_some(),
        };
        if fields.iter().filter(given).count() == 1 {
            return Ok(());
        }
        let detail = format!("`{}` takes exactly one of {}", self.dto.op.name(), fields.join(", "));
        Err(Problem::at(Code::InvalidBody, format!("/{}", fields[0]), detail))
    }

    /// One vector a hook.
    async fn vectors(&self, hooks: &[Hook], part: &RowPart) -> Result<Vec<Vec<f32>>, Problem> {
        let dto = self.dto;
        let fields: &[&str] =
            if dto.op == OpName::Set { &["value", "direction", "vector"] } else { &["direction", "vector"] };
        self.one_of(fields)?;
        let own = match (&dto.vector, &dto.value) {
            (Some(vector), _) => Some((vector.clone(), "/vector")),
            (None, Some(SetValue::Vector(vector))) => Some((vector.clone(), "/value")),
            (None, _) => None,
        };
        let vectors = match (own, &dto.direction) {
            (Some((vector, pointer)), _) => {
                part.fit(&vector).map_err(|p| Problem::at(p.code, pointer, p.detail))?;
                vec![vector; hooks.len()]
            }
            (None, Some(direction)) => {
                let (mut found, mut refused) = (None, None);
                for width in part.lengths() {
                    match direction
                        .direction("/direction")?
                        .resolve(&self.state.questions, self.tenant, hooks, width, (0, "/direction"))
                        .await
                    {
                        Ok(direction) => found = found.or(Some(direction.vectors)),
                        Err(p) if p.code == Code::ShapeMismatch => refused = refused.or(Some(p)),
                        Err(p) => return Err(p),
                    }
                }
                match (found, refused) {
                    (Some(vectors), _) => vectors,
                    (None, Some(refused)) => return Err(refused),
                    (None, None) => Vec::new(),
                }
            }
            (None, None) => Vec::new(),
        };
        if vectors.iter().flatten().any(|x| !x.is_finite()) {
            return Err(Problem::at(Code::InvalidValue, "/direction", "the vector holds NaN or infinity"));
        }
        Ok(vectors)
    }

    /// What a vector does, with the parts it is for.
    fn vector_op(
        &self,
        part: &RowPart,
        vector: Vec<f32>,
        strength: f32,
        made: &mut Made,
    ) -> Result<(Parts, Op), Problem> {
        let (parts, mut vector) = part.fit(&vector)?;
        if self.dto.op == OpName::ProjectOut {
            let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
            if length == 0.0 {
                let detail = "the direction is zero where it would be projected out";
                return Err(Problem::at(Code::InvalidValue, "/direction", detail));
            }
            #[expect(clippy::cast_possible_truncation, reason = "the activations are float32")]
            vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
        vector.iter_mut().for_each(|x| *x *= strength);
        let span = made.keep(&vector);
        Ok((
            parts,
            match self.dto.op {
                OpName::Add => Op::Add { vector: span },
                OpName::ProjectOut => Op::ProjectOut { direction: span },
                _ => Op::Set { vector: span },
            },
        ))
    }

    /// The mean over everything that the caches stored at each hook, and how many caches there are.
    async fn means(&self, hooks: &[Hook]) -> Result<(Vec<Vec<f32>>, usize), Problem> {
        let Some(selector) = &self.dto.caches else {
            return Err(Problem::at(Code::InvalidBody, "/caches", "mean_ablate takes the mean of `caches`"));
        };
        let store = self.state.engine.store();
        let chosen = selector.selector("/caches")?.choose(store, self.tenant, "/caches", MAX_CACHES).await?;
        check_stored(&chosen, hooks)?;
        let mut means = Vec::with_capacity(hooks.len());
        for hook in hooks {
            let rows = chosen.rows(store, *hook, &RowsOf::Positions)?;
            let mean = self
                .state
                .questions
                .analyse(move || Ok(Prepared::new(rows, Preparation::default())?.column_means()?))
                .await?;
            check_width(mean.len(), self.info, *hook, "/caches")?;
            if mean.iter().any(|x| !x.is_finite()) {
                return Err(Problem::at(
                    Code::InvalidValue,
                    "/caches",
                    format!("{hook} holds NaN or infinity in a cache"),
                ));
            }
            #[expect(clippy::cast_possible_truncation, reason = "the activations are float32")]
            means.push(mean.into_iter().map(|x| x as f32).collect());
        }
        Ok((means, chosen.caches.len()))
    }

    /// The values to patch in at each hook: a table, its rows, and its keys where it is an attention map's.
    async fn tables(&self, hooks: &[Hook], part: &RowPart) -> Result<Vec<(Vec<f32>, usize, usize)>, Problem> {
        let Some(source) = &self.dto.source else {
            return Err(Problem::at(Code::InvalidBody, "/source", "patch takes its values from `source`"));
        };
        let store = self.state.engine.store();
        let named = read_id(&source.cache, "/source/cache")?;
        let chosen = Chosen::of_ids(store, self.tenant, vec![(named, "/source/cache".to_owned())]).await?;
        let own = source_hooks(source, hooks)?;
        check_stored(&chosen, &own)?;
        let positions = self.source_positions(source)?;
        let is_map = hooks[0].site().is_attention_map();
        let mut tables = Vec::with_capacity(hooks.len());
        for hook in own {
            let cache = Arc::clone(&chosen.caches[0]);
            let width: usize = cache.cache.row_shapes[cache.cache.hook_index(hook)?].iter().product();
            check_width(width, self.info, hooks[0], "/source")?;
            let at = |p: Problem| Problem::at(p.code, "/source/positions", p.detail);
            let selection = Selection::of(&cache.cache, cache.cache.hook_index(hook)?, Some(&positions)).map_err(at)?;
            let n_keys = if is_map { cache.cache.token_ids.len() } else { 0 };
            let (n_served, store) = (selection.n_served(), store.clone());
            let rows = blocking(move || read_rows(&store, &cache, &selection)).await?;
            let n_rows = n_served / (width * n_keys.max(1)).max(1);
            let table = if is_map {
                let head = n_rows * n_keys;
                part.heads().iter().flat_map(|h| &rows[h * head..(h + 1) * head]).copied().collect()
            } else {
                rows.chunks_exact(width).flat_map(|row| part.gather(row)).collect()
            };
            tables.push((table, n_rows, n_keys));
        }
        Ok(tables)
    }

    /// Positions of the source: as named, or the same as those that are patched.
    fn source_positions(&self, source: &PatchSource) -> Result<Positions, Problem> {
        if let Some(positions) = &source.positions {
            return Ok(positions.clone());
        }
        match self.dto.to.as_ref().or(self.dto.positions.as_ref()) {
            None | Some(TokensRequest::All | TokensRequest::Prompt) => Ok(Positions::All),
            Some(TokensRequest::At(PositionsRequest::Known(same))) => Ok(same.clone()),
            Some(_) => {
                let detail = "say which positions of the source are patched in: those here are not named by number";
                Err(Problem::at(Code::InvalidBody, "/source/positions", detail))
            }
        }
    }

    /// What the intervention does, without the long numbers.
    fn described(&self, hooks: &[Hook]) -> Map<String, Value> {
        let dto = self.dto;
        let mut fields = Map::new();
        fields.insert("op".to_owned(), json!(dto.op));
        let names: Vec<String> = hooks.iter().map(ToString::to_string).collect();
        fields.insert("hooks".to_owned(), json!(names));
        let mut note = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        note("heads", dto.heads.as_ref().map(|h| json!(h)));
        note("neurons", dto.neurons.as_ref().map(|n| json!(n)));
        note("strength", (dto.op == OpName::Add).then(|| json!(dto.strength.unwrap_or(1.0))));
        note("value", dto.number().map(|n| json!(n)));
        note("factor", dto.factor.map(|f| json!(f)));
        let direction = dto.direction.as_ref().and_then(|d| serde_json::to_value(d).ok());
        note("direction", direction.map(without_numbers));
        note("source", dto.source.as_ref().map(|s| json!(s)));
        let caches = dto.caches.as_ref().map(|caches| match caches {
            CacheSelector::Ids(ids) if ids.len() <= 100 => json!(ids),
            CacheSelector::Ids(_) => Value::Null,
            CacheSelector::Filter(filter) => json!(filter),
        });
        note("caches", caches);
        fields
    }
}

/// A direction with the length of its vector instead of the vector.
fn without_numbers(mut direction: Value) -> Value {
    if let Some(fields) = direction.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        if let Some(vector) = fields.get_mut("vector") {
            *vector = json!({"d": vector.as_array().map_or(0, Vec::len)});
        }
    }
    direction
}

/// The hooks of the source, one for each that is patched.
fn source_hooks(source: &PatchSource, hooks: &[Hook]) -> Result<Vec<Hook>, Problem> {
    let unknown = |e: UnknownHook| Problem::at(Code::UnknownHook, "/source/hook", e.to_string());
    let site = match source.hook.as_deref().map(str::parse).transpose().map_err(unknown)? {
        Some(HookName::Full(_)) if source.layer.is_some() => {
            let detail = "the hook names its layer itself; leave out one of the two";
            return Err(Problem::at(Code::InvalidBody, "/source/layer", detail));
        }
        Some(HookName::Full(hook)) => {
            return if hook.site().is_attention_map() == hooks[0].site().is_attention_map() {
                Ok(vec![hook; hooks.len()])
            } else {
                Err(map_and_rows())
            };
        }
        Some(HookName::Short(site)) => site,
        None => hooks[0].site(),
    };
    if site.is_attention_map() != hooks[0].site().is_attention_map() {
        return Err(map_and_rows());
    }
    let own = |hook: &Hook| match (site.in_block(), source.layer.or(hook.layer())) {
        (true, Some(layer)) => Ok(Hook::block(site, layer)),
        (false, _) if source.layer.is_none() => Ok(Hook::global(site)),
        (true, None) => Err(Problem::at(Code::InvalidBody, "/source/layer", "say which layer of the source")),
        (false, _) => Err(Problem::at(Code::InvalidBody, "/source/layer", format!("`{}` has no layer", site.name()))),
    };
    hooks.iter().map(own).collect()
}

fn map_and_rows() -> Problem {
    Problem::at(Code::ShapeMismatch, "/source/hook", "an attention map is patched from an attention map")
}

/// Refuses caches that did not capture a hook.
fn check_stored(chosen: &Chosen, hooks: &[Hook]) -> Result<(), Problem> {
    for (cache, pointer) in chosen.caches.iter().zip(&chosen.pointers) {
        if let Some(missing) = hooks.iter().find(|h| cache.cache.hook_index(**h).is_err()) {
            return Err(Problem::at(Code::HookNotStored, pointer, format!("this cache did not capture {missing}")));
        }
    }
    Ok(())
}

/// Refuses activations of another width than the model's.
fn check_width(found: usize, info: &ModelInfo, hook: Hook, pointer: &str) -> Result<(), Problem> {
    let width: usize = info.row_shape(hook.site()).iter().product();
    if found == width {
        return Ok(());
    }
    let detail = format!("these activations have {found} values a position and {hook} of {} has {width}", info.id);
    Err(Problem::at(Code::ShapeMismatch, pointer, detail))
}

/// A number that is there and fits float32.
#[expect(clippy::cast_possible_truncation, reason = "what overflows is refused")]
fn finite(number: Option<f64>, field: &str) -> Result<f32, Problem> {
    let Some(number) = number else {
        return Err(Problem::at(Code::InvalidBody, format!("/{field}"), format!("`{field}` is missing")));
    };
    let narrow = number as f32;
    if narrow.is_finite() {
        return Ok(narrow);
    }
    Err(Problem::at(Code::InvalidValue, format!("/{field}"), format!("{number} does not fit float32")))
}

fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}
