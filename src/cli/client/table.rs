//! Tables for people: aligned columns that fit the terminal.

use super::{
    output::{Output, Style},
    visible::{columns, cut},
};

/// Spaces between two columns.
const GAP: usize = 2;
/// Columns that a shrunk text keeps as long as other columns can be left out.
const GOOD_TEXT: usize = 24;
/// Columns that a shrunk text keeps.
const MIN_TEXT: usize = 8;

/// A column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    title: String,
    /// Numbers stand at the right.
    right: bool,
    /// Texts are cut where the terminal is too narrow.
    shrinks: bool,
    /// The column is left out where the terminal is still too narrow.
    optional: bool,
}

impl Column {
    fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), right: false, shrinks: false, optional: false }
    }

    /// Words and ids, which are never cut.
    pub(super) fn word(title: impl Into<String>) -> Self {
        Self::new(title)
    }

    /// Numbers.
    pub(super) fn number(title: impl Into<String>) -> Self {
        Self { right: true, ..Self::new(title) }
    }

    /// Texts, which are cut where the terminal is too narrow.
    pub(super) fn text(title: impl Into<String>) -> Self {
        Self { shrinks: true, ..Self::new(title) }
    }

    /// The column may be left out on a narrow terminal.
    pub(super) fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// A cell.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell with a style. The text must be safe for terminals.
    pub(super) const fn styled(text: String, style: Style) -> Self {
        Self { text, style }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, style: Style::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// A table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) const fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub(super) fn push(&mut self, row: Vec<Cell>) {
        debug_assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, each with a line break. Columns in which nothing stands are left out.
    pub(super) fn render(&self, out: &Output) -> String {
        let mut widths = self.widths(out.width);
        if let Some(last) = widths.iter().rposition(|width| *width > 0)
            && !self.columns[last].right
        {
            // nothing is aligned with the end of the last column
            widths[last] = widths[last].max(1);
        }
        let titles = self.columns.iter().map(|c| Cell::styled(c.title.clone(), Style::Faint)).collect();
        let lines = std::iter::once(&titles).chain(&self.rows);
        lines.map(|row: &Vec<Cell>| self.line(row, &widths, out)).collect()
    }

    fn line(&self, row: &[Cell], widths: &[usize], out: &Output) -> String {
        let mut line = String::new();
        let mut pending = 0;
        for ((cell, column), width) in row.iter().zip(&self.columns).zip(widths) {
            if *width == 0 {
                continue;
            }
            let text = cut(&cell.text, *width);
            let space = width.saturating_sub(columns(&text));
            let (before, after) = if column.right { (space, 0) } else { (0, space) };
            line += &" ".repeat(pending + before);
            line += &out.paint(cell.style, &text);
            pending = after + GAP;
        }
        line.truncate(line.trim_end_matches(' ').len());
        line.push('\n');
        line
    }

    /// The width of each column; 0 for one that is left out.
    fn widths(&self, available: Option<usize>) -> Vec<usize> {
        let natural = |i: usize, column: &Column| {
            let widest = self.rows.iter().filter_map(|row| row.get(i)).map(|cell| columns(&cell.text)).max();
            match widest.unwrap_or(0) {
                0 if !self.rows.is_empty() => 0,
                wide => wide.max(columns(&column.title)),
            }
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(|(i, column)| natural(i, column)).collect();
        let Some(available) = available else { return widths };
        loop {
            let over = total(&widths).saturating_sub(available);
            if over == 0 || self.shrink(&mut widths, over, GOOD_TEXT) {
                return widths;
            }
            // the last of the optional columns goes, and the texts get their width back
            let Some(gone) = (0..widths.len()).rev().find(|i| self.columns[*i].optional && widths[*i] > 0) else {
                let over = total(&widths).saturating_sub(available);
                self.shrink(&mut widths, over, MIN_TEXT);
                return widths;
            };
            let left_out: Vec<bool> = widths.iter().enumerate().map(|(i, w)| *w == 0 || i == gone).collect();
            widths =
                self.columns.iter().enumerate().map(|(i, c)| if left_out[i] { 0 } else { natural(i, c) }).collect();
        }
    }

    /// Takes this many columns from texts, the widest first, and leaves each at least `least`. False if that is not
    /// enough; texts are then as narrow as they may be.
    fn shrink(&self, widths: &mut [usize], mut over: usize, least: usize) -> bool {
        while over > 0 {
            let widest =
                (0..widths.len()).filter(|i| self.columns[*i].shrinks && widths[*i] > least).max_by_key(|i| widths[*i]);
            let Some(widest) = widest else { return false };
            widths[widest] -= 1;
            over -= 1;
        }
        true
    }
}

fn total(widths: &[usize]) -> usize {
    let shown = widths.iter().filter(|width| **width > 0).count();
    widths.iter().sum::<usize>() + GAP * shown.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec![
            Column::word("id"),
            Column::number("tokens"),
            Column::text("text"),
            Column::text("label"),
            Column::word("model").optional(),
        ]);
        table.push(vec!["a1".into(), "12".into(), "a short text".into(), "".into(), "tiny".into()]);
        table.push(vec![
            "b22".into(),
            "7".into(),
            "日本語 and much more of it, up to the end".into(),
            "".into(),
            "m".into(),
        ]);
        table
    }

    #[test]
    fn columns_are_aligned_and_empty_ones_are_left_out() {
        let lines = "id   tokens  text                                       model\n\
                     a1       12  a short text                               tiny\n\
                     b22       7  日本語 and much more of it, up to the end  m\n";
        assert_eq!(table().render(&Output::plain(None)), lines);
    }

    #[test]
    fn a_narrow_terminal_cuts_texts_then_drops_columns_and_never_an_id() {
        for width in 30..70 {
            let lines = table().render(&Output::plain(Some(width)));
            assert!(lines.lines().all(|line| columns(line) <= width), "{width}\n{lines}");
            assert!(lines.contains("b22"));
        }
        let narrow = table().render(&Output::plain(Some(30)));
        assert!(narrow.contains("日本語 and much …") && !narrow.contains("model"), "{narrow}");
        // nothing is left to give: the id stays whole
        assert!(table().render(&Output::plain(Some(5))).contains("b22"));
    }

    #[test]
    fn styles_do_not_count_as_columns() {
        let mut table = Table::new(vec![Column::word("status"), Column::number("n")]);
        table.push(vec![Cell::styled("completed".to_owned(), Style::Good), "1".into()]);
        let out = Output { colour: true, ..Output::plain(Some(20)) };
        assert_eq!(
            table.render(&out),
            "\u{1b}[2mstatus\u{1b}[0m     \u{1b}[2mn\u{1b}[0m\n\u{1b}[32mcompleted\u{1b}[0m  1\n"
        );
    }
}
