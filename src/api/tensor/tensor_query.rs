//! Query parameters of the tensor routes.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::format::Format;
use residuum_domain::{Code, Dtype, Positions, Problem};

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
    /// Several positions; keeps the position axis: `all`, `0,2,4` or `start:end`.
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

/// The parameters, parsed.
#[derive(Debug, Clone)]
pub struct TensorSpec {
    /// Requested positions; `None` for all that are stored.
    pub positions: Option<Positions>,
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
        let positions = match (&self.position, &self.positions) {
            (Some(_), Some(_)) => {
                return Err(Problem::at(Code::InvalidQuery, "position", "give position or positions, not both"));
            }
            (Some(one), None) => Some(one_position(one)?),
            (None, Some(many)) => Some(many_positions(many)?),
            (None, None) => None,
        };
        let encoding = self.encoding.unwrap_or_default();
        Ok(TensorSpec { positions, dtype: self.dtype, format: self.format, encoding })
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
        assert_eq!(spec(Some("-1"), None).unwrap().positions, Some(Positions::One(-1)));
        assert_eq!(spec(None, Some("-1")).unwrap().positions, Some(Positions::List(vec![-1])));
        assert_eq!(spec(None, Some("1:")).unwrap().positions, Some(Positions::Range { start: Some(1), end: None }));
        assert_eq!(spec(None, None).unwrap().positions, None);
        for (one, many) in [(Some("0,1"), None), (Some("x"), None), (None, Some("mean")), (Some("1"), Some("2"))] {
            assert_eq!(spec(one, many).unwrap_err().code, Code::InvalidQuery);
        }
    }
}
