//! Projections of vectors onto directions.

use serde::{Deserialize, Serialize};

/// A measure of a vector x along a direction d.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Projection {
    /// x·d.
    Dot,
    /// x·d / (‖x‖ ‖d‖), in [-1, 1]; undefined when either is zero.
    Cosine,
    /// x·d / ‖d‖, the signed length of the projection of x onto d; undefined when d is zero.
    Scalar,
}

impl Projection {
    /// Every measure, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::Dot, Self::Cosine, Self::Scalar];

    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dot => "dot",
            Self::Cosine => "cosine",
            Self::Scalar => "scalar",
        }
    }
}

/// A direction and its length, in float64.
#[derive(Debug, Clone, Copy)]
pub struct Projector<'a> {
    direction: &'a [f32],
    norm: f64,
}

impl<'a> Projector<'a> {
    /// Onto `direction`.
    #[must_use]
    pub fn onto(direction: &'a [f32]) -> Self {
        Self { direction, norm: dot(direction, direction).sqrt() }
    }

    /// The length of the direction.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// The measure of `x`, which must have as many numbers as the direction. `None` if it is undefined or not finite.
    ///
    /// ```
    /// use residuum_analysis::{Projection, Projector};
    /// let onto = Projector::onto(&[0.0, 2.0]);
    /// assert_eq!(onto.of(Projection::Dot, &[3.0, 4.0]), Some(8.0));
    /// assert_eq!(onto.of(Projection::Scalar, &[3.0, 4.0]), Some(4.0));
    /// assert_eq!(onto.of(Projection::Cosine, &[3.0, 4.0]), Some(0.8));
    /// assert_eq!(onto.of(Projection::Cosine, &[0.0, 0.0]), None);
    /// ```
    #[must_use]
    pub fn of(&self, measure: Projection, x: &[f32]) -> Option<f64> {
        let along = dot(x, self.direction);
        let value = match measure {
            Projection::Dot => along,
            Projection::Scalar => along / self.norm,
            // 0/0 is NaN, which becomes `None`.
            Projection::Cosine => (along / (dot(x, x).sqrt() * self.norm)).clamp(-1.0, 1.0),
        };
        value.is_finite().then_some(value)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}
