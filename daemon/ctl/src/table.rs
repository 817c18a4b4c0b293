//! Aligned columns for a terminal. Names and numbers in them come from callers: whatever could move the cursor or change
//! colours is made visible instead.

use std::io::Write;

use unicode_width::UnicodeWidthStr;

/// Which side a column is aligned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A table with a head.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// The columns; a name that begins with `>` is aligned to the right, as figures are.
    pub(crate) fn new(columns: &[&'static str]) -> Self {
        let column = |name: &&'static str| match name.strip_prefix('>') {
            Some(name) => (name, Side::Right),
            None => (*name, Side::Left),
        };
        Self { head: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| harmless(&cell)).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes head and rows.
    pub(crate) fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let head: Vec<String> = self.head.iter().map(|(name, _)| (*name).to_owned()).collect();
        let all = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        for row in all() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate().take(widths.len()) {
                let padding = " ".repeat(widths[column] - cell.width());
                match self.head[column].1 {
                    Side::Left => line.push_str(&format!("{cell}{padding}  ")),
                    Side::Right => line.push_str(&format!("{padding}{cell}  ")),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Pairs of name and value, one a line, the values aligned.
pub(crate) fn write_pairs(out: &mut dyn Write, pairs: &[(&str, String)]) -> std::io::Result<()> {
    let width = pairs.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    for (name, value) in pairs {
        writeln!(out, "{name}{}  {}", " ".repeat(width - name.width()), harmless(value))?;
    }
    Ok(())
}

/// The text with control characters, and those that turn the direction of writing, replaced by a visible mark.
pub(crate) fn harmless(text: &str) -> String {
    let turning = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turning(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table) -> String {
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let mut table = Table::new(&["NAME", ">BYTES", "STATE"]);
        table.row(["Ann".into(), "7".into(), "ok".into()]);
        table.row(["山田".into(), "1234567".into(), String::new()]);
        assert_eq!(written(&table), "NAME    BYTES  STATE\nAnn         7  ok\n山田  1234567\n");
    }

    #[test]
    fn a_callers_name_cannot_drive_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["\u{1b}[2Jgone\n\u{202e}x".into()]);
        assert_eq!(written(&table), "NAME\n\u{fffd}[2Jgone\u{fffd}\u{fffd}x\n");
    }
}
