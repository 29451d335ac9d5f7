//! Formats numbers as Python does; also Python's `%` for numbers.

use minijinja::{Error, Value, value::ValueKind};

use super::{
    padding::{middle, pad},
    python::{check_bytes, error, float, type_of},
};

/// A number.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// An integer.
    Whole(i128),
    /// A float.
    Float(f64),
}

impl Number {
    /// The number that a value is; `True` is 1.
    ///
    /// # Errors
    /// For a value that is not a number, and an integer beyond 128 bits.
    pub fn of(value: &Value) -> Result<Self, Error> {
        match value.kind() {
            ValueKind::Bool => Ok(Self::Whole(value.is_true().into())),
            ValueKind::Number if value.is_integer() => {
                let whole = i128::try_from(value.clone());
                whole.map(Self::Whole).map_err(|_| error("an integer of the chat template is too large"))
            }
            ValueKind::Number => f64::try_from(value.clone()).map(Self::Float),
            _ => Err(error(format!("a number is needed, not {}", type_of(value)))),
        }
    }

    /// The integer, if it is one.
    pub fn whole(self) -> Option<i128> {
        if let Self::Whole(n) = self { Some(n) } else { None }
    }

    fn float(self) -> f64 {
        match self {
            Self::Whole(n) => n as f64,
            Self::Float(x) => x,
        }
    }

    /// The number without its fraction.
    ///
    /// # Errors
    /// For infinities and NaN.
    pub fn truncated(self) -> Result<Self, Error> {
        match self {
            Self::Float(x) if !x.is_finite() => Err(error("infinity and NaN are no integers")),
            Self::Float(x) => Ok(Self::Whole(x.trunc() as i128)),
            whole => Ok(whole),
        }
    }
}

/// Python's `a % b` of numbers.
///
/// # Errors
/// For a zero divisor, and values that are not numbers.
pub fn remainder(a: &Value, b: &Value) -> Result<Value, Error> {
    let unsupported = |_| error(format!("`%` takes no {} and {}", type_of(a), type_of(b)));
    let zero = || error("division by zero");
    match (Number::of(a).map_err(unsupported)?, Number::of(b).map_err(unsupported)?) {
        (_, Number::Whole(0)) => Err(zero()),
        (Number::Whole(a), Number::Whole(b)) => {
            let rest = a.checked_rem(b).unwrap_or(0);
            let rest = if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest };
            Ok(i64::try_from(rest).map_or_else(|_| Value::from(rest), Value::from))
        }
        (a, b) => {
            let (a, b) = (a.float(), b.float());
            if b == 0.0 {
                return Err(zero());
            }
            let rest = a % b;
            let rest = if rest == 0.0 { 0.0_f64.copysign(b) } else { rest };
            Ok(Value::from(if (rest < 0.0) == (b < 0.0) || rest == 0.0 { rest } else { rest + b }))
        }
    }
}

/// Python's format specification: `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The fill character.
    pub fill: char,
    /// `<`, `>`, `^` or `=`.
    pub align: Option<char>,
    /// `+`, `-` or a space.
    pub sign: char,
    /// `#`.
    pub alternate: bool,
    /// `0` before the width.
    pub zero: bool,
    /// Minimum width.
    pub width: i64,
    /// The separator between groups of digits.
    pub grouping: Option<char>,
    /// Digits after the point.
    pub precision: Option<usize>,
    /// The type; `\0` if there is none.
    pub kind: char,
    /// Whether it comes from `%`, where the precision of an integer is its number of digits.
    pub percent: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            zero: false,
            width: 0,
            grouping: None,
            precision: None,
            kind: '\0',
            percent: false,
        }
    }
}

/// Largest number of digits after the point.
const MAX_PRECISION: usize = 1000;

impl Spec {
    /// Parses a specification.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut spec = Self::default();
        let mut rest: Vec<char> = text.chars().collect();
        let is_align = |c: Option<&char>| c.is_some_and(|c| "<>^=".contains(*c));
        if is_align(rest.get(1)) {
            spec.fill = rest[0];
            spec.align = Some(rest[1]);
            rest.drain(..2);
        } else if is_align(rest.first()) {
            spec.align = Some(rest.remove(0));
        }
        let mut rest = rest.into_iter().peekable();
        spec.sign = rest.next_if(|c| "+- ".contains(*c)).unwrap_or('-');
        spec.alternate = rest.next_if_eq(&'#').is_some();
        spec.zero = rest.next_if_eq(&'0').is_some();
        let digits = |rest: &mut std::iter::Peekable<std::vec::IntoIter<char>>| {
            let digits: String = std::iter::from_fn(|| rest.next_if(char::is_ascii_digit)).collect();
            if digits.is_empty() {
                Ok(None)
            } else {
                digits.parse::<i64>().map(Some).map_err(|_| error("a size in a format is too large"))
            }
        };
        spec.width = digits(&mut rest)?.unwrap_or(0);
        spec.grouping = rest.next_if(|c| matches!(c, ',' | '_'));
        if rest.next_if_eq(&'.').is_some() {
            let precision = digits(&mut rest)?.ok_or_else(|| error("a format lacks its precision"))?;
            spec.precision = usize::try_from(precision).ok();
        }
        spec.kind = rest.next().unwrap_or('\0');
        if rest.next().is_some() {
            return Err(error(format!("`{text}` is not a format")));
        }
        if spec.zero && spec.align.is_none() {
            spec.fill = '0';
        }
        Ok(spec)
    }

    /// Formats a number.
    ///
    /// # Errors
    /// For a type that does not apply to the number, and a result that is too large.
    pub fn write(&self, number: &Number) -> Result<String, Error> {
        let (negative, digits) = self.digits(*number)?;
        let sign = match self.sign {
            _ if negative => "-",
            '+' => "+",
            ' ' => " ",
            _ => "",
        };
        let prefix = match self.kind {
            'x' | 'X' | 'o' | 'b' if self.alternate => format!("{sign}0{}", self.kind),
            _ => sign.to_owned(),
        };
        let align = self.align.unwrap_or(if self.zero { '=' } else { '>' });
        if align == '=' {
            let width = self.width.saturating_sub(i64::try_from(prefix.chars().count()).unwrap_or(0));
            return Ok(prefix + &pad(&digits, "rjust", width, self.fill)?);
        }
        let whole = prefix + &digits;
        match align {
            '^' => middle(&whole, self.width, self.fill),
            '<' => pad(&whole, "ljust", self.width, self.fill),
            _ => pad(&whole, "rjust", self.width, self.fill),
        }
    }

    /// Whether the number is negative, and its digits without a sign.
    fn digits(&self, number: Number) -> Result<(bool, String), Error> {
        let precision = self.precision;
        if precision.is_some_and(|p| p > MAX_PRECISION) {
            return Err(error(format!(
                "a format has at most {MAX_PRECISION} digits after the point: this is too large"
            )));
        }
        let other = || error(format!("a number has no format `{}`", self.kind));
        match (number, self.kind) {
            (Number::Whole(n), 'd' | 'n' | '\0' | 'x' | 'X' | 'o' | 'b') => {
                let size = n.unsigned_abs();
                let digits = match self.kind {
                    'x' => format!("{size:x}"),
                    'X' => format!("{size:X}"),
                    'o' => format!("{size:o}"),
                    'b' => format!("{size:b}"),
                    _ => size.to_string(),
                };
                let digits = match precision {
                    None => digits,
                    Some(n) if self.percent => pad(&digits, "rjust", n as i64, '0')?,
                    Some(_) => return Err(error("integers have no precision")),
                };
                Ok((n < 0, self.grouped(&digits)))
            }
            (Number::Whole(n), 'c') => {
                let c = u32::try_from(n).ok().and_then(char::from_u32).ok_or_else(other)?;
                Ok((false, c.to_string()))
            }
            (number, 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%' | '\0' | 'n') => {
                let x = number.float();
                let shown = self.float(x.abs());
                let shown = if self.kind.is_uppercase() { shown.to_uppercase() } else { shown };
                check_bytes(shown.len())?;
                Ok((x.is_sign_negative() && !x.is_nan(), self.grouped(&shown)))
            }
            _ => Err(other()),
        }
    }

    /// Formats a float that is not negative.
    fn float(&self, x: f64) -> String {
        if !x.is_finite() {
            return float(x) + if self.kind == '%' { "%" } else { "" };
        }
        let precision = self.precision.unwrap_or(6);
        match self.kind {
            'e' | 'E' => scientific(x, precision),
            'f' | 'F' => format!("{x:.precision$}"),
            '%' => format!("{:.precision$}%", x * 100.0),
            '\0' if self.precision.is_none() => float(x),
            kind => {
                let digits = self.precision.unwrap_or(6).max(1);
                let exponent = scientific(x, digits - 1);
                let exponent: i64 = exponent.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
                let limit = digits as i64 - i64::from(kind == '\0');
                let shown = if (-4..limit).contains(&exponent) {
                    format!("{x:.*}", usize::try_from(digits as i64 - 1 - exponent).unwrap_or(0))
                } else {
                    scientific(x, digits - 1)
                };
                let shown = if self.alternate { shown } else { without_zeros(&shown) };
                if kind == '\0' && !shown.contains(['.', 'e']) { shown + ".0" } else { shown }
            }
        }
    }

    /// Inserts separators between the digits before the point.
    fn grouped(&self, digits: &str) -> String {
        let Some(mark) = self.grouping else { return digits.to_owned() };
        let size = if matches!(self.kind, 'x' | 'X' | 'o' | 'b') { 4 } else { 3 };
        let (whole, rest) = digits.split_at(digits.find(['.', 'e', 'E', '%']).unwrap_or(digits.len()));
        let mut out = String::with_capacity(digits.len() * 2);
        for (i, c) in whole.chars().enumerate() {
            if i > 0 && (whole.len() - i) % size == 0 {
                out.push(mark);
            }
            out.push(c);
        }
        out + rest
    }
}

/// Scientific notation, with one digit before the point and at least two in the exponent.
fn scientific(x: f64, precision: usize) -> String {
    let shown = format!("{x:.precision$e}");
    let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// Removes trailing zeros after the point.
fn without_zeros(shown: &str) -> String {
    let (digits, exponent) = shown.split_at(shown.find('e').unwrap_or(shown.len()));
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    format!("{digits}{exponent}")
}
