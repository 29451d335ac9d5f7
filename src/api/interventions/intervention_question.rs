//! Converts the interventions of a body to those that the engine resolves against a model.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::intervention_body::{InterventionDto, NumberOrList, OpName, PatchSource};
use crate::api::dto::{run_body::CreateRun, selector::CacheSelector};
use residuum_domain::{Code, Problem};
use residuum_engine::questions::{
    interventions::{self, Change, Intervention, RunInterventions, Strength, VectorSource},
    read_id,
};

/// Maximum number of cache ids that provenance lists; longer lists are left out.
const MAX_LISTED: usize = 100;

/// The interventions of a posted run: those of every input, and those of single items.
pub struct PostedInterventions {
    run: Vec<InterventionDto>,
    items: BTreeMap<usize, Vec<InterventionDto>>,
}

impl PostedInterventions {
    /// Takes them out of the body.
    pub fn take(create: &mut CreateRun) -> Self {
        let items = create.items.iter_mut().flatten().enumerate();
        let items = items.map(|(i, item)| (i, std::mem::take(&mut item.interventions)));
        Self {
            items: items.filter(|(_, own)| !own.is_empty()).collect(),
            run: std::mem::take(&mut create.interventions),
        }
    }

    /// Converts them. Problems point into `/interventions` and `/items/…/interventions`.
    ///
    /// # Errors
    /// [`Code::InvalidBody`] for fields that the operation does not take or that it lacks, [`Code::InvalidValue`] for
    /// numbers that do not fit float32, and errors of selectors and directions.
    pub fn questions(self) -> Result<Option<RunInterventions>, Problem> {
        if self.run.is_empty() && self.items.is_empty() {
            return Ok(None);
        }
        let run = questions(self.run)?;
        let own = |(i, own)| Ok((i, questions(own).map_err(|p| p.under(&format!("/items/{i}")))?));
        Ok(Some(RunInterventions { run, own: self.items.into_iter().map(own).collect::<Result<_, Problem>>()? }))
    }
}

/// Converts a list of interventions. Problems point into `/interventions`.
fn questions(asked: Vec<InterventionDto>) -> Result<Vec<Intervention>, Problem> {
    let read = |(i, dto): (usize, InterventionDto)| dto.question().map_err(|p| p.under(&format!("/interventions/{i}")));
    asked.into_iter().enumerate().map(read).collect()
}

impl InterventionDto {
    /// Converts one intervention. Problems point into it.
    fn question(self) -> Result<Intervention, Problem> {
        self.check_fields()?;
        let change = self.change()?;
        let described = self.described();
        let Self { hook, layers, positions, heads, neurons, from, to, .. } = self;
        Ok(Intervention { change, hook, layers, positions, heads, neurons, from, to, described })
    }

    /// Refuses fields that the operation does not take.
    fn check_fields(&self) -> Result<(), Problem> {
        let own = self.op.fields();
        let given = [
            ("direction", self.direction.is_some()),
            ("vector", self.vector.is_some()),
            ("strength", self.strength.is_some()),
            ("value", self.value.is_some()),
            ("factor", self.factor.is_some()),
            ("caches", self.caches.is_some()),
            ("source", self.source.is_some()),
        ];
        let name = self.op.name();
        if let Some((field, _)) = given.iter().find(|(field, given)| *given && !own.contains(field)) {
            let detail = format!("`{field}` cannot be used with `{name}`, which takes {}", listed(own));
            return Err(Problem::at(Code::InvalidBody, format!("/{field}"), detail));
        }
        Ok(())
    }

    fn change(&self) -> Result<Change, Problem> {
        Ok(match self.op {
            OpName::Add => {
                let vector = self.vector(&["direction", "vector"])?;
                Change::Add { vector, strength: self.strength()? }
            }
            OpName::ProjectOut => Change::ProjectOut(self.vector(&["direction", "vector"])?),
            OpName::Set => {
                let fields = ["value", "direction", "vector"];
                match self.number() {
                    Some(number) => {
                        self.one_of(&fields)?;
                        Change::Fill(finite(Some(number), "value")?)
                    }
                    None => Change::Set(self.vector(&fields)?),
                }
            }
            OpName::Scale => Change::Scale(finite(self.factor, "factor")?),
            OpName::Zero => Change::Zero,
            OpName::MeanAblate => match &self.caches {
                Some(caches) => Change::MeanAblate(caches.selector("/caches")?),
                None => {
                    let detail = "mean_ablate needs `caches`, whose mean it takes";
                    return Err(Problem::at(Code::InvalidBody, "/caches", detail));
                }
            },
            OpName::Patch => match &self.source {
                Some(source) => Change::Patch(source.question()?),
                None => {
                    let detail = "patch needs `source`, whose values it takes";
                    return Err(Problem::at(Code::InvalidBody, "/source", detail));
                }
            },
            OpName::Knockout => Change::Knockout,
        })
    }

    /// `strength`, whose numbers must fit float32.
    fn strength(&self) -> Result<Strength, Problem> {
        match &self.strength {
            None => Ok(Strength::One(1.0)),
            Some(NumberOrList::Number(number)) => {
                finite(Some(*number), "strength")?;
                Ok(Strength::One(*number))
            }
            Some(NumberOrList::List(numbers)) if numbers.is_empty() => {
                let detail = "the list of strengths is empty, so the run would have no item";
                Err(Problem::at(Code::InvalidValue, "/strength", detail))
            }
            Some(NumberOrList::List(numbers)) => {
                for (i, number) in numbers.iter().enumerate() {
                    finite(Some(*number), &format!("strength/{i}"))?;
                }
                Ok(Strength::Each(numbers.clone()))
            }
        }
    }

    /// `value`, if it is a number.
    fn number(&self) -> Option<f64> {
        match self.value {
            Some(NumberOrList::Number(number)) => Some(number),
            Some(NumberOrList::List(_)) | None => None,
        }
    }

    /// The vector in one of `fields`.
    fn vector(&self, fields: &[&str]) -> Result<VectorSource, Problem> {
        self.one_of(fields)?;
        let numbers = |values: &[f32], pointer| VectorSource::Numbers { values: values.to_vec(), pointer };
        match (&self.vector, &self.value, &self.direction) {
            (Some(vector), ..) => Ok(numbers(vector, "/vector")),
            (None, Some(NumberOrList::List(vector)), _) => Ok(numbers(vector, "/value")),
            (None, _, Some(direction)) => Ok(VectorSource::Direction(direction.direction("/direction")?)),
            (None, _, None) => Err(self.not_one_of(fields)),
        }
    }

    /// Requires exactly one of these fields.
    fn one_of(&self, fields: &[&str]) -> Result<(), Problem> {
        let given = |field: &&&str| match **field {
            "direction" => self.direction.is_some(),
            "vector" => self.vector.is_some(),
            _ => self.value.is_some(),
        };
        if fields.iter().filter(given).count() == 1 { Ok(()) } else { Err(self.not_one_of(fields)) }
    }

    fn not_one_of(&self, fields: &[&str]) -> Problem {
        let detail = format!("`{}` takes exactly one of {}", self.op.name(), fields.join(", "));
        Problem::at(Code::InvalidBody, format!("/{}", fields[0]), detail)
    }

    /// What provenance stores besides the operation, the hooks and the strength; vectors are replaced by their length.
    fn described(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut note = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        };
        note("heads", self.heads.as_ref().map(|h| json!(h)));
        note("neurons", self.neurons.as_ref().map(|n| json!(n)));
        note("value", self.number().map(|n| json!(n)));
        note("factor", self.factor.map(|f| json!(f)));
        let direction = self.direction.as_ref().and_then(|d| serde_json::to_value(d).ok());
        note("direction", direction.map(without_numbers));
        note("source", self.source.as_ref().map(|s| json!(s)));
        let caches = self.caches.as_ref().map(|caches| match caches {
            CacheSelector::Ids(ids) if ids.len() <= MAX_LISTED => json!(ids),
            CacheSelector::Ids(_) => Value::Null,
            CacheSelector::Filter(filter) => json!(filter),
        });
        note("caches", caches);
        fields
    }
}

impl PatchSource {
    fn question(&self) -> Result<interventions::PatchSource, Problem> {
        let Self { cache, hook, layer, positions } = self;
        let cache = read_id(cache, "/source/cache")?;
        Ok(interventions::PatchSource { cache, hook: hook.clone(), layer: *layer, positions: positions.clone() })
    }
}

/// A direction whose vector is replaced by its length.
fn without_numbers(mut direction: Value) -> Value {
    if let Some(fields) = direction.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        if let Some(vector) = fields.get_mut("vector") {
            *vector = json!({"d": vector.as_array().map_or(0, Vec::len)});
        }
    }
    direction
}

/// Requires a number that fits float32.
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

fn listed(fields: &[&str]) -> String {
    if fields.is_empty() { "no fields of its own".to_owned() } else { fields.join(", ") }
}
