//! Query parameters of the tensor routes.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::format::Format;
use residuum_domain::{Cache, Code, Dtype, Part, Positions, Problem};

/// How `values` is written in a JSON response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Nested arrays of numbers.
    #[default]
    Nested,
    /// Little-endian elements as one base64 string.
    Base64,
}

/// Query parameters of the tensor routes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TensorQuery {
    /// One position; drops the position axis: an integer (negative numbers count from the end), `last` or `mean`.
    #[param(example = "last")]
    pub position: Option<String>,
    /// Several positions; keeps the position axis: `all`, `0,2,4` or `start:end`; of a text that was continued also
    /// `prompt` or `generated`.
    #[param(example = "0,2,4")]
    pub positions: Option<String>,
    /// Type of the values in the response; the stored type if left out.
    #[param(value_type = Option<DtypeParam>)]
    pub dtype: Option<Dtype>,
    /// `json`, `npy`, `safetensors` or `raw`; takes precedence over the `Accept` header.
    pub format: Option<Format>,
    /// How a JSON response writes the values.
    pub encoding: Option<Encoding>,
    /// Only for the layer routes: name of the hook, without the layer.
    #[param(example = "resid_post")]
    pub hook: Option<String>,
}

/// Type of the values in a response.
#[derive(ToSchema)]
#[schema(as = Dtype)]
#[expect(dead_code, reason = "only describes Dtype for the specification")]
pub enum DtypeParam {
    /// IEEE binary32.
    #[schema(rename = "float32")]
    Float32,
    /// IEEE binary16.
    #[schema(rename = "float16")]
    Float16,
    /// The upper half of a binary32.
    #[schema(rename = "bfloat16")]
    Bfloat16,
}

/// Requested positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedPositions {
    /// The same of every cache.
    Positions(Positions),
    /// A part of the text, which begins elsewhere in every cache.
    Part(Part),
}

/// The parameters, parsed.
#[derive(Debug, Clone)]
pub struct TensorSpec {
    /// Requested positions; `None` for all that are stored.
    pub wanted: Option<WantedPositions>,
    /// Requested type.
    pub dtype: Option<Dtype>,
    /// Format in the query.
    pub format: Option<Format>,
    /// How JSON writes the values.
    pub encoding: Encoding,
}

impl TensorQuery {
    /// Parses the parameters and checks that they fit together.
    ///
    /// # Errors
    /// [`Code::InvalidQuery`] naming the parameter.
    pub fn spec(&self) -> Result<TensorSpec, Problem> {
        let wanted = match (&self.position, &self.positions) {
            (Some(_), Some(_)) => {
                return Err(Problem::at(Code::InvalidQuery, "position", "give position or positions, not both"));
            }
            (Some(one), None) => Some(WantedPositions::Positions(one_position(one)?)),
            (None, Some(many)) => Some(match many.as_str() {
                "prompt" => WantedPositions::Part(Part::Prompt),
                "generated" => WantedPositions::Part(Part::Generated),
                _ => WantedPositions::Positions(many_positions(many)?),
            }),
            (None, None) => None,
        };
        let encoding = self.encoding.unwrap_or_default();
        Ok(TensorSpec { wanted, dtype: self.dtype, format: self.format, encoding })
    }
}

impl TensorSpec {
    /// The requested positions of a cache; `None` for all that are stored.
    ///
    /// # Errors
    /// [`Code::PositionOutOfRange`] for what is generated, if nothing was.
    pub fn positions(&self, cache: &Cache) -> Result<Option<Positions>, Problem> {
        match &self.wanted {
            None => Ok(None),
            Some(WantedPositions::Positions(positions)) => Ok(Some(positions.clone())),
            Some(WantedPositions::Part(part)) => cache.part(*part).map(Some),
        }
    }
}

fn one_position(text: &str) -> Result<Positions, Problem> {
    let wrong = |e: &str| Problem::at(Code::InvalidQuery, "position", e.to_owned());
    match text.parse().map_err(wrong)? {
        p @ (Positions::Last | Positions::Mean | Positions::One(_)) => Ok(p),
        _ => Err(wrong("position takes one position: an integer, last or mean; for several use positions")),
    }
}

fn many_positions(text: &str) -> Result<Positions, Problem> {
    let wrong = |e: &str| Problem::at(Code::InvalidQuery, "positions", e.to_owned());
    match text.parse().map_err(wrong)? {
        Positions::Last => Ok(Positions::List(vec![-1])),
        Positions::One(p) => Ok(Positions::List(vec![p])),
        Positions::Mean => Err(wrong("the mean is one row; request it with position=mean")),
        p => Ok(p),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(position: Option<&str>, positions: Option<&str>) -> Result<TensorSpec, Problem> {
        let (position, positions) = (position.map(str::to_owned), positions.map(str::to_owned));
        TensorQuery { position, positions, dtype: None, format: None, encoding: None, hook: None }.spec()
    }

    #[test]
    fn position_drops_the_axis_and_positions_keeps_it() {
        let wanted = |position, positions| spec(position, positions).unwrap().wanted;
        let same = |positions| Some(WantedPositions::Positions(positions));
        assert_eq!(wanted(Some("-1"), None), same(Positions::One(-1)));
        assert_eq!(wanted(None, Some("-1")), same(Positions::List(vec![-1])));
        assert_eq!(wanted(None, Some("1:")), same(Positions::Range { start: Some(1), end: None }));
        assert_eq!(wanted(None, Some("generated")), Some(WantedPositions::Part(Part::Generated)));
        assert_eq!(wanted(None, None), None);
        for (one, many) in [
            (Some("0,1"), None),
            (Some("prompt"), None),
            (Some("x"), None),
            (None, Some("mean")),
            (Some("1"), Some("2")),
        ] {
            assert_eq!(spec(one, many).unwrap_err().code, Code::InvalidQuery);
        }
    }
}
