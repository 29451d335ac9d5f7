//! Numbers of a tensor for people: its shape and a few statistics.

use std::io::{BufReader, Read};

use ureq::http::HeaderMap;

use super::{
    call::Call,
    failure::{Failure, Outcome},
    output::Style,
    server::Client,
    table::{Column, Table},
    units::number,
    visible::visible,
};

/// Values shown of each row.
const SHOWN: usize = 4;
/// Most rows of the table.
const MAX_ROWS: usize = 200;

/// Statistics of values as they come.
#[derive(Debug, Default)]
struct Statistics {
    n: u64,
    n_not_finite: u64,
    sum: f64,
    squares: f64,
    min: Option<f32>,
    max: Option<f32>,
    first: Vec<f32>,
}

impl Statistics {
    fn add(&mut self, value: f32) {
        if self.first.len() < SHOWN {
            self.first.push(value);
        }
        if !value.is_finite() {
            self.n_not_finite += 1;
            return;
        }
        self.n += 1;
        self.sum += f64::from(value);
        self.squares += f64::from(value) * f64::from(value);
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of values")]
    fn mean(&self) -> f64 {
        if self.n == 0 { f64::NAN } else { self.sum / self.n as f64 }
    }
}

/// What the headers of a raw answer say.
#[derive(Debug, PartialEq, Eq)]
struct Described {
    hook: String,
    shape: Vec<usize>,
    axes: String,
}

impl Described {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let shape = text("residuum-shape")?.trim_matches(['[', ']', '(', ')']);
        let shape = shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok());
        let (hook, axes) = (
            text("residuum-hook").unwrap_or_default().to_owned(),
            text("residuum-axes").unwrap_or_default().to_owned(),
        );
        Some(Self { hook, shape: shape.collect::<Option<_>>()?, axes })
    }

    /// The number of rows of the table, and of values in each: the first axis is shown row by row if there are others.
    fn rows(&self) -> Option<(usize, usize)> {
        match self.shape[..] {
            [] => Some((1, 1)),
            [n] => Some((1, n)),
            [rows, ref rest @ ..] => Some((rows, rest.iter().try_fold(1_usize, |n, m| n.checked_mul(*m))?)),
        }
    }
}

/// Fetches a tensor and shows a table with a row for each index of its first axis.
///
/// # Errors
/// Those of the request; [`Failure::Other`] if the answer is shorter than its shape.
pub(super) fn show_summary(client: &Client, call: Call) -> Outcome {
    let response = client.send(&call.query("format", "raw"))?;
    let strange = || Failure::unexpected(&"its headers do not give a shape");
    let described = Described::of(response.headers()).ok_or_else(strange)?;
    let dtype = response.headers().get("residuum-dtype").and_then(|v| v.to_str().ok()).unwrap_or("float32").to_owned();
    let decode = decoder(&dtype).ok_or_else(|| Failure::unexpected(&format!("the type {dtype}")))?;
    let (n_rows, n_values) = described.rows().ok_or_else(strange)?;
    let mut reader = BufReader::new(response.into_body().into_reader());
    let mut rows = Vec::new();
    let mut element = [0; 4];
    for row in 0..n_rows {
        let mut statistics = Statistics::default();
        for _ in 0..n_values {
            let bytes = &mut element[..decode.0];
            reader.read_exact(bytes).map_err(|e| client.unread(&e))?;
            statistics.add((decode.1)(bytes));
        }
        // the rest is read, so that a connection can be used again, and not shown
        if row < MAX_ROWS {
            rows.push(statistics);
        }
    }
    let out = &client.out;
    let shape = described.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let axes = visible(&described.axes).replace(',', ", ");
    let hook = visible(&described.hook);
    out.line(&format!("{hook}  [{shape}]  {axes}  {}", visible(&dtype)))?;
    out.print(&table(&described, &rows).render(out))?;
    let more = n_rows.saturating_sub(rows.len());
    let hidden = if more > 0 { format!(" {more} more rows are not shown.") } else { String::new() };
    out.line(
        &out.paint(Style::Faint, &format!("To get the values: -o FILE.npy, -o FILE.safetensors or --json.{hidden}")),
    )
}

fn table(described: &Described, rows: &[Statistics]) -> Table {
    let first_axis = match described.axes.split(',').next().map(str::trim) {
        Some("pos") => "position".to_owned(),
        Some(axis) if !axis.is_empty() => visible(axis),
        _ => "row".to_owned(),
    };
    let mut table = Table::new(vec![
        Column::number(first_axis),
        Column::number("mean"),
        Column::number("norm"),
        Column::number("min"),
        Column::number("max"),
        Column::number("not finite"),
        Column::word("first values").optional(),
    ]);
    let float = |value: Option<f32>| value.map(|v| number(v.into())).unwrap_or_default();
    for (i, row) in rows.iter().enumerate() {
        let first: Vec<String> = row.first.iter().map(|v| number(f64::from(*v))).collect();
        table.push(vec![
            if described.shape.len() > 1 { i.to_string().into() } else { "".into() },
            number(row.mean()).into(),
            number(row.squares.sqrt()).into(),
            float(row.min).into(),
            float(row.max).into(),
            if row.n_not_finite > 0 { row.n_not_finite.to_string().into() } else { "".into() },
            first.join(" ").into(),
        ]);
    }
    table
}

/// The size of an element and how it is read.
type Decoder = (usize, fn(&[u8]) -> f32);

fn decoder(dtype: &str) -> Option<Decoder> {
    match dtype {
        "float32" => Some((4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        "float16" => Some((2, |b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())),
        "bfloat16" => Some((2, |b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_leave_out_what_is_not_finite() {
        let mut statistics = Statistics::default();
        [3.0, f32::NAN, -4.0, f32::INFINITY, 1.0].into_iter().for_each(|v| statistics.add(v));
        assert_eq!((statistics.n, statistics.n_not_finite, statistics.mean()), (3, 2, 0.0));
        assert_eq!((statistics.min, statistics.max, statistics.squares), (Some(-4.0), Some(3.0), 26.0));
        assert!(Statistics::default().mean().is_nan());
    }

    #[test]
    fn headers_give_the_shape_or_nothing() {
        let of = |shape: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("residuum-shape", shape.parse().unwrap());
            Described::of(&headers).and_then(|d| d.rows())
        };
        assert_eq!(of("30,576"), Some((30, 576)));
        assert_eq!((of("[2, 3, 4]"), of("7"), of("")), (Some((2, 12)), Some((1, 7)), Some((1, 1))));
        assert_eq!((of("x"), of("-1"), of("3,99999999999,99999999999")), (None, None, None));
        assert_eq!(Described::of(&HeaderMap::new()), None);
    }
}
