//! Reads one intervention: which edits of which hooks it means, and their numbers.

use serde_json::{Map, Value, json};

use super::{
    Change, Intervention, Strength, VectorSource,
    made_edits::Made,
    row_part::RowPart,
    stored_values::{StoredValues, Table},
    variants::ReadIntervention,
};
use crate::{Asked, questions::Questions};
use residuum_domain::{
    CaptureRequest, Code, Hook, HookName, ModelInfo, Op, Parts, Problem, Site, TenantId, TokensRequest,
};

/// Reads one intervention. Problems point into the intervention.
pub struct Reader<'a> {
    /// The store and the autoencoders.
    pub questions: &'a Questions,
    /// The tenant whose caches and directions may be used.
    pub tenant: TenantId,
    /// The model.
    pub info: &'a ModelInfo,
    /// The intervention.
    pub intervention: &'a Intervention,
}

impl Reader<'_> {
    /// Reads the intervention that stands at `pointer`, and adds its edits to `made` with their numbers and tokens, once
    /// for each strength.
    ///
    /// # Errors
    /// Those of [`Questions::with_interventions`].
    pub async fn read(&self, pointer: &str, made: &mut Made) -> Result<ReadIntervention, Problem> {
        let hooks = self.hooks()?;
        let site = hooks[0].site();
        self.check_tokens(site.is_attention_map())?;
        self.check_site(site)?;
        let asked = self.intervention;
        let part = RowPart::of(asked.heads.as_deref(), asked.neurons.as_deref(), site, &self.info.row_shape(site))?;
        let first = u32::try_from(made.asked.len()).unwrap_or(u32::MAX);
        let mut described = self.described(&hooks);
        let mut n_strengths = None;
        if let Change::Add { vector, strength } = &asked.change {
            let vectors = self.vectors(vector, &hooks, &part).await?;
            let strengths = match strength {
                Strength::One(strength) => std::slice::from_ref(strength),
                Strength::Each(strengths) => {
                    n_strengths = Some(strengths.len());
                    strengths
                }
            };
            for strength in strengths {
                let start = made.numbers.len();
                described.insert("strength".to_owned(), json!(strength));
                let added = |vector: &Vec<f32>| self.vector_op(&part, vector, *strength, made);
                let edits = vectors.iter().map(added).collect::<Result<_, _>>()?;
                self.push(&hooks, edits, start, described.clone(), pointer, made)?;
            }
        } else {
            let start = made.numbers.len();
            let edits = self.edits(&hooks, &part, made, &mut described).await?;
            self.push(&hooks, edits, start, described, pointer, made)?;
        }
        Ok(ReadIntervention { first, n_strengths, pointer: pointer.to_owned() })
    }

    /// Adds edits whose numbers begin at `start` to `made`.
    fn push(
        &self,
        hooks: &[Hook],
        edits: Vec<(Parts, Op)>,
        start: usize,
        mut described: Map<String, Value>,
        pointer: &str,
        made: &mut Made,
    ) -> Result<(), Problem> {
        let asked = self.intervention;
        if made.numbers.len() > start {
            let bytes: &[u8] = bytemuck::cast_slice(&made.numbers[start..]);
            described.insert("numbers_blake3".to_owned(), json!(blake3::hash(bytes).to_hex().to_string()));
        }
        let queries = if asked.to.is_some() { ("to", &asked.to) } else { ("positions", &asked.positions) };
        let asked = Asked {
            tokens: queries.1.clone().unwrap_or(TokensRequest::All),
            tokens_pointer: format!("{pointer}/{}", queries.0),
            keys: asked.from.clone().unwrap_or(TokensRequest::All),
            keys_pointer: format!("{pointer}/from"),
            described,
        };
        made.push(hooks, edits, asked)
    }

    /// The edits at each hook, and the parts of its rows that they change.
    async fn edits(
        &self,
        hooks: &[Hook],
        part: &RowPart,
        made: &mut Made,
        described: &mut Map<String, Value>,
    ) -> Result<Vec<(Parts, Op)>, Problem> {
        // heads of an attention map are changed one by one
        let parts = || if hooks[0].site().is_attention_map() { part.each() } else { part.whole() };
        let stored = StoredValues { questions: self.questions, tenant: self.tenant, info: self.info, hooks };
        Ok(match &self.intervention.change {
            Change::Knockout => vec![(part.each(), Op::Mask); hooks.len()],
            Change::Zero => vec![(parts(), Op::Fill { value: 0.0 }); hooks.len()],
            Change::Fill(value) => vec![(parts(), Op::Fill { value: *value }); hooks.len()],
            Change::Scale(factor) => vec![(parts(), Op::Scale { factor: *factor }); hooks.len()],
            Change::Add { vector, .. } | Change::ProjectOut(vector) | Change::Set(vector) => {
                let vectors = self.vectors(vector, hooks, part).await?;
                vectors.iter().map(|vector| self.vector_op(part, vector, 1.0, made)).collect::<Result<_, _>>()?
            }
            Change::MeanAblate(selector) => {
                let (means, n_caches) = stored.means(selector).await?;
                described.insert("n_caches".to_owned(), json!(n_caches));
                let set = |mean: Vec<f32>| Ok((part.whole(), Op::Set { vector: made.keep(&part.gather(&mean))? }));
                means.into_iter().map(set).collect::<Result<_, Problem>>()?
            }
            Change::Patch(source) => {
                let same = self.intervention.to.as_ref().or(self.intervention.positions.as_ref());
                let tables = stored.tables(source, same, part).await?;
                let replace = |Table { values, n_rows, n_keys }: Table| {
                    let parts = if n_keys > 0 { part.each() } else { part.whole() };
                    Ok((parts, Op::Replace { table: made.keep(&values)?, n_rows, n_keys }))
                };
                tables.into_iter().map(replace).collect::<Result<_, Problem>>()?
            }
        })
    }

    /// The hooks, all of one site, in ascending order.
    fn hooks(&self) -> Result<Vec<Hook>, Problem> {
        let knockout = matches!(self.intervention.change, Change::Knockout);
        let name = match &self.intervention.hook {
            Some(name) => name.clone(),
            None if knockout => Site::AttnScores.name().to_owned(),
            None => Site::ResidPost.name().to_owned(),
        };
        let layers = self.intervention.layers.clone().unwrap_or_default();
        let full = matches!(name.parse::<HookName>(), Ok(HookName::Full(_)));
        if full && self.intervention.layers.is_some() {
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

    /// Refuses fields that select tokens but do not suit the hook.
    fn check_tokens(&self, on_map: bool) -> Result<(), Problem> {
        let asked = self.intervention;
        for (field, given) in [("from", asked.from.is_some()), ("to", asked.to.is_some())] {
            if given && !on_map {
                let detail = format!("`{field}` selects edges of attention maps; other hooks take `positions`");
                return Err(Problem::at(Code::InvalidBody, format!("/{field}"), detail));
            }
        }
        if asked.to.is_some() && asked.positions.is_some() {
            let detail = "`to` and `positions` both select queries: give one";
            return Err(Problem::at(Code::InvalidBody, "/positions", detail));
        }
        Ok(())
    }

    /// Refuses an operation that is not possible at a site.
    fn check_site(&self, site: Site) -> Result<(), Problem> {
        let refuse = |detail: String| Err(Problem::at(Code::InvalidValue, "/hook", detail));
        if site.is_index() {
            return refuse(format!("`{}` holds indices; change `mlp.hook_router_logits` instead", site.name()));
        }
        let change = &self.intervention.change;
        if site.is_attention_map() && change.takes_vector() {
            let detail =
                "attention maps support zero, scale, set with a number, patch and, before the softmax, knockout";
            return refuse(format!("`{}` does not support `{}`: {detail}", site.name(), change.name()));
        }
        Ok(())
    }

    /// One vector for each hook, of a length that suits the changed part.
    async fn vectors(&self, source: &VectorSource, hooks: &[Hook], part: &RowPart) -> Result<Vec<Vec<f32>>, Problem> {
        let vectors = match source {
            VectorSource::Numbers { values, pointer } => {
                part.fit(values).map_err(|p| Problem::at(p.code, *pointer, p.detail))?;
                vec![values.clone(); hooks.len()]
            }
            VectorSource::Direction(direction) => {
                let (mut found, mut refused) = (None, None);
                for width in part.lengths() {
                    match direction.resolve(self.questions, self.tenant, hooks, width, (0, "/direction")).await {
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
        };
        if vectors.iter().flatten().any(|x| !x.is_finite()) {
            return Err(Problem::at(Code::InvalidValue, "/direction", "the vector holds NaN or infinity"));
        }
        Ok(vectors)
    }

    /// The operation of a vector, and the parts of the row that it changes. `strength` is that of a vector that is added.
    fn vector_op(
        &self,
        part: &RowPart,
        vector: &[f32],
        strength: f64,
        made: &mut Made,
    ) -> Result<(Parts, Op), Problem> {
        let (parts, mut vector) = part.fit(vector)?;
        let op = match &self.intervention.change {
            Change::Add { .. } => {
                #[expect(clippy::cast_possible_truncation, reason = "the activations are float32")]
                vector.iter_mut().for_each(|x| *x *= strength as f32);
                Op::Add { vector: made.keep(&vector)? }
            }
            Change::ProjectOut(_) => {
                let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
                if length == 0.0 {
                    let detail = "the direction is zero in the changed part, so it cannot be projected out";
                    return Err(Problem::at(Code::InvalidValue, "/direction", detail));
                }
                #[expect(clippy::cast_possible_truncation, reason = "the activations are float32")]
                vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
                Op::ProjectOut { direction: made.keep(&vector)? }
            }
            _ => Op::Set { vector: made.keep(&vector)? },
        };
        Ok((parts, op))
    }

    /// Description for the receipt, without long lists of numbers.
    fn described(&self, hooks: &[Hook]) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("op".to_owned(), json!(self.intervention.change.name()));
        let names: Vec<String> = hooks.iter().map(ToString::to_string).collect();
        fields.insert("hooks".to_owned(), json!(names));
        fields.extend(self.intervention.described.clone());
        fields
    }
}

fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}
