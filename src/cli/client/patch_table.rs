//! The result of a sweep: a table of shades on a terminal, numbers elsewhere.

use serde::Deserialize;
use serde_json::Value;

use super::{
    failure::{Failure, Outcome},
    output::Output,
    units::number,
    visible::{columns, cut, visible, visible_token},
};

/// Columns of a cell with a number and its gap.
const CELL: usize = 5;
/// Columns of a cell without a number.
const SHADE: usize = 2;
/// Cells with the greatest effect that are named if the sweep has too many axes for a table.
const NAMED: usize = 20;

/// What is shown of the answer.
#[derive(Debug, Deserialize)]
pub(super) struct PatchAnswer {
    hook: String,
    op: String,
    metric: String,
    answer: Named,
    #[serde(default)]
    against: Option<Named>,
    clean_tokens: Vec<String>,
    axes: Vec<String>,
    layers: Vec<usize>,
    #[serde(default)]
    positions: Option<Vec<u32>>,
    #[serde(default)]
    to: Option<Vec<u32>>,
    #[serde(default)]
    from: Option<Vec<u32>>,
    #[serde(default)]
    heads: Option<Vec<u32>>,
    #[serde(default)]
    clean: Option<f64>,
    #[serde(default)]
    corrupt: Option<f64>,
    effect: Value,
    #[serde(default)]
    normalized: Option<Value>,
    #[serde(default)]
    n_cells: u64,
}

#[derive(Debug, Deserialize)]
struct Named {
    token: String,
}

/// An axis besides that of layers.
struct Axis {
    name: &'static str,
    places: Vec<u32>,
    /// The places are positions of tokens.
    is_position: bool,
}

impl PatchAnswer {
    /// The axes after that of layers.
    fn axes(&self) -> Vec<Axis> {
        let axis = |name, places: &Option<Vec<u32>>, is_position| {
            places.clone().map(|places| Axis { name, places, is_position })
        };
        let all = [
            axis("position", &self.positions, true),
            axis("query", &self.to, true),
            axis("key", &self.from, true),
            axis("head", &self.heads, false),
        ];
        all.into_iter().flatten().collect()
    }

    /// The numbers that are shown: the share of the effect that was restored, or else the effect itself.
    fn shown(&self) -> (&Value, &'static str) {
        match &self.normalized {
            Some(normalized) if !normalized.is_null() => (normalized, "share of the difference restored"),
            _ => (&self.effect, "effect on the metric"),
        }
    }
}

/// Shows the result of a sweep.
///
/// # Errors
/// [`Failure::Other`] if the numbers do not have the shape of the axes.
pub(super) fn show(answer: &PatchAnswer, out: &Output) -> Outcome {
    let against = answer.against.as_ref().map(|t| format!(" against {}", visible_token(&t.token))).unwrap_or_default();
    let metric = |value: Option<f64>| value.map_or_else(|| "null".to_owned(), number);
    let mut head = format!(
        "{} of {}{against}: clean {}",
        visible(&answer.metric),
        visible_token(&answer.answer.token),
        metric(answer.clean)
    );
    if answer.corrupt.is_some() {
        head += &format!(", corrupt {}", metric(answer.corrupt));
    }
    out.line(&head)?;
    let (values, what) = answer.shown();
    let axes = answer.axes();
    if axes.len() + 1 != answer.axes.len() {
        return Err(Failure::unexpected(&"axes without places"));
    }
    match &axes[..] {
        [] => out.print(&by_layer(answer, values)?)?,
        [axis] => {
            let rows = grid(values, answer.layers.len(), axis.places.len())?;
            out.print(&heat(&answer.layers, axis, &rows, &answer.clean_tokens, out))?;
        }
        _ => out.print(&greatest(answer, &axes, values))?,
    }
    let (op, hook) = (visible(&answer.op), visible(&answer.hook));
    let colours = if out.colour && axes.len() == 1 { "; blue above 0, red below" } else { "" };
    out.legend(&format!("{op} at {hook}, {} cells: {what}{colours}", answer.n_cells))
}

/// Numbers by layer and place; `None` for what is not finite.
type Grid = Vec<Vec<Option<f64>>>;

fn grid(values: &Value, n_rows: usize, n_columns: usize) -> Outcome<Grid> {
    let rows: Grid = serde_json::from_value(values.clone()).map_err(|e| Failure::unexpected(&e))?;
    if rows.len() != n_rows || rows.iter().any(|row| row.len() != n_columns) {
        return Err(Failure::unexpected(&"a table of another shape than its axes"));
    }
    Ok(rows)
}

/// A sweep over layers alone, a line each.
fn by_layer(answer: &PatchAnswer, values: &Value) -> Outcome<String> {
    let values: Vec<Option<f64>> = serde_json::from_value(values.clone()).map_err(|e| Failure::unexpected(&e))?;
    let most = values.iter().flatten().fold(0.0, |most: f64, v| most.max(v.abs()));
    let line = |(layer, value): (&usize, &Option<f64>)| {
        let text = value.map_or_else(|| "null".to_owned(), number);
        let bar = super::units::bar(value.map_or(0.0, |v| v.abs() / most), 20);
        format!("{layer:>5}  {text:>8}  {bar}").trim_end().to_owned() + "\n"
    };
    Ok(answer.layers.iter().zip(&values).map(line).collect())
}

/// A table of layers by places.
fn heat(layers: &[usize], axis: &Axis, rows: &Grid, tokens: &[String], out: &Output) -> String {
    let most = rows.iter().flatten().flatten().fold(0.0, |most: f64, v| most.max(v.abs()));
    let label = "layer".len() + 1;
    let available = out.width.map_or(usize::MAX, |width| width.saturating_sub(label));
    // numbers if they fit, or if there are no shades; else shades, in several blocks if need be
    let with_numbers = !out.colour || axis.places.len() * CELL <= available;
    let cell = if with_numbers { CELL } else { SHADE };
    let per_block = (available / cell).max(1);
    let mut text = String::new();
    let n = axis.places.len();
    for start in (0..n).step_by(per_block) {
        let block = start..n.min(start + per_block);
        if start > 0 {
            text.push('\n');
        }
        text += &header(axis, block.clone(), cell, label);
        for (layer, row) in layers.iter().zip(rows) {
            text += &format!("{layer:>5} ");
            for value in &row[block.clone()] {
                let shown = if with_numbers { short(*value) } else { String::new() };
                text += &out.with_codes(&shade(*value, most), &format!("{shown:>cell$}"));
            }
            text.push('\n');
        }
    }
    if axis.is_position {
        text += &tokens_of(axis, tokens, out.width);
    }
    text
}

/// The places above a table; only every fifth if the cells are narrow.
fn header(axis: &Axis, block: std::ops::Range<usize>, cell: usize, label: usize) -> String {
    let mut line = format!("{:>5} ", "layer");
    let mut used = label;
    for (i, place) in axis.places[block].iter().enumerate() {
        let column = label + (i + 1) * cell;
        let text = place.to_string();
        // numbers stand at the right of their cell; one that would touch the one before is left out
        let fits = column >= used + text.len() + usize::from(i > 0 && cell == SHADE);
        if fits && (cell > SHADE || i % 5 == 0) {
            line += &" ".repeat(column - used - text.len());
            line += &text;
            used = column;
        }
    }
    line.push('\n');
    line
}

/// The tokens at the places of an axis, so that their numbers mean something.
fn tokens_of(axis: &Axis, tokens: &[String], width: Option<usize>) -> String {
    let (width, mut line, mut lines) = (width.unwrap_or(100), axis.name.to_owned() + "s", String::new());
    for place in &axis.places {
        let token = tokens.get(*place as usize).map(|t| visible_token(t)).unwrap_or_default();
        let text = format!(" {place}:{}", cut(&token, 20));
        if columns(&line) + columns(&text) > width {
            lines += &line;
            lines.push('\n');
            line = " ".repeat(axis.name.len() + 1);
        }
        line += &text;
    }
    lines + &line + "\n"
}

/// A number in at most four characters: `0.52`, `-.52`, `12.3`, `-12`, `1e5`.
fn short(value: Option<f64>) -> String {
    let Some(value) = value else { return "null".to_owned() };
    if value.abs() < 0.005 {
        return "0.00".to_owned();
    }
    let texts = [2, 1, 0].map(|digits: usize| format!("{value:.digits$}").replace("-0.", "-."));
    texts.into_iter().find(|text| text.len() <= 4).unwrap_or_else(|| format!("{value:.0e}"))
}

/// The background of a value: from black to blue for what is above 0, to red for what is below.
fn shade(value: Option<f64>, most: f64) -> String {
    let Some(value) = value else { return "48;5;240;97".to_owned() };
    let share = if most > 0.0 { (value.abs() / most).clamp(0.0, 1.0) } else { 0.0 };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 255")]
    let strong = (share.sqrt() * 255.0) as u8;
    let faint = strong / 3;
    let (r, g, b) = if value >= 0.0 { (faint, strong / 2, strong) } else { (strong, strong / 4, faint) };
    let letters = if share > 0.6 && value >= 0.0 { 30 } else { 97 };
    format!("48;2;{r};{g};{b};{letters}")
}

/// The cells with the greatest effects of a sweep with more axes than a table has.
fn greatest(answer: &PatchAnswer, axes: &[Axis], values: &Value) -> String {
    let mut cells = Vec::new();
    collect(values, &mut Vec::new(), &mut cells);
    cells.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
    let mut lines = format!("the {} greatest effects:\n", NAMED.min(cells.len()));
    for (at, value) in cells.iter().take(NAMED) {
        let mut line = format!("{:>8}", number(*value));
        for (i, place) in at.iter().enumerate() {
            line += &match i.checked_sub(1).and_then(|i| axes.get(i)) {
                None => format!("  layer {}", answer.layers.get(*place).copied().unwrap_or(*place)),
                Some(axis) => {
                    let place = axis.places.get(*place).copied().unwrap_or_default();
                    let token = answer.clean_tokens.get(place as usize).filter(|_| axis.is_position);
                    let token = token.map(|t| format!(" {}", visible_token(t))).unwrap_or_default();
                    format!("  {} {place}{token}", axis.name)
                }
            };
        }
        lines += &line;
        lines.push('\n');
    }
    lines
}

/// Every finite number of nested arrays, with its indices.
fn collect(values: &Value, at: &mut Vec<usize>, cells: &mut Vec<(Vec<usize>, f64)>) {
    match values {
        Value::Array(parts) => {
            for (i, part) in parts.iter().enumerate() {
                at.push(i);
                collect(part, at, cells);
                at.pop();
            }
        }
        value => cells.extend(value.as_f64().map(|value| (at.clone(), value))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn axis(n: u32) -> Axis {
        Axis { name: "position", places: (0..n).collect(), is_position: true }
    }

    #[test]
    fn numbers_stand_under_their_places() {
        let rows = grid(&json!([[0.0, -0.5], [1.0, null]]), 2, 2).unwrap();
        let tokens = ["The".to_owned(), " \u{1b}".to_owned()];
        let text = heat(&[0, 15], &axis(2), &rows, &tokens, &Output::plain(None));
        assert_eq!(text, "layer     0    1\n    0  0.00 -.50\n   15  1.00 null\npositions 0:The 1:·␛\n");
        assert!(grid(&json!([[0.0], [1.0, 2.0]]), 2, 2).is_err() && grid(&json!("x"), 1, 1).is_err());
    }

    #[test]
    fn wide_tables_become_blocks_that_fit() {
        let rows: Grid = vec![vec![Some(0.25); 40]; 3];
        let tokens = vec!["日本".to_owned(); 40];
        for width in [20, 80, 140] {
            let text = heat(&[0, 1, 2], &axis(40), &rows, &tokens, &Output::plain(Some(width)));
            assert!(text.lines().all(|line| columns(line) <= width), "{text}");
            assert_eq!(text.matches("0.25").count(), 120);
        }
        let colour = Output { colour: true, ..Output::plain(Some(80)) };
        let text = heat(&[0], &axis(60), &vec![vec![Some(0.25); 60]], &tokens, &colour);
        assert!(text.contains("\u{1b}[48;2;") && !text.contains("0.25"));
        assert!(text.starts_with("layer  0"), "{text}");
    }

    #[test]
    fn the_greatest_cells_are_found() {
        let mut cells = Vec::new();
        collect(&json!([[[1.0, null]], [[-3.0, 2.0]]]), &mut Vec::new(), &mut cells);
        assert_eq!(cells, [(vec![0, 0, 0], 1.0), (vec![1, 0, 0], -3.0), (vec![1, 0, 1], 2.0)]);
        let numbers = [0.123, -0.123, -0.001, 9.994, -9.99, 12.34, -12.34, -123.4, 1e7].map(|v| short(Some(v)));
        assert_eq!(numbers, ["0.12", "-.12", "0.00", "9.99", "-10", "12.3", "-12", "-123", "1e7"]);
        assert_eq!(short(None), "null");
    }
}
