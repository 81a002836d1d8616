//! Rows for people on a terminal, and for programs elsewhere.

use std::fmt::Write;

/// Rows with a heading.
#[derive(Clone, Debug)]
pub struct Table {
    kind: &'static str,
    rows: Vec<Vec<String>>,
    /// How many of the rows are headings.
    headings: usize,
}

impl Table {
    /// `kind` is the first field of each plain line, so that lines of several tables can be told apart.
    pub fn new<const N: usize>(kind: &'static str, heading: [&str; N]) -> Self {
        Self { kind, rows: vec![row(heading)], headings: 1 }
    }

    pub fn push<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(row(cells));
    }

    pub fn is_empty(&self) -> bool {
        self.rows.len() <= self.headings
    }

    /// Columns as wide as their widest cell, two spaces apart, below their heading; the last is not padded.
    pub fn aligned(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let cells: Vec<String> = cells.collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }

    /// A line for each row, without a heading, its kind and cells apart by tabs.
    pub fn plain(&self) -> String {
        let mut text = String::new();
        for row in self.rows.iter().skip(self.headings) {
            let _ = writeln!(text, "{}\t{}", self.kind, row.join("\t"));
        }
        text
    }

    /// For a terminal or for anything else.
    pub fn render(&self, terminal: bool) -> String {
        if terminal { self.aligned() } else { self.plain() }
    }
}

/// Cells never break a line or reach a terminal as commands: they come from mail, too.
fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|cell| printable(cell)).collect()
}

/// A text with its control characters replaced.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A time span as people say it.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A size in bytes as people say it.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        10_485_760..10_737_418_240 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_for_people_and_for_programs() {
        let mut table = Table::new("worker", ["NAME", "STATE"]);
        assert!(table.is_empty());
        table.push(["pc-1", "ready"]);
        table.push(["a-long-name", "not\x1b[31m\tready"]);
        assert_eq!(
            table.render(true),
            "NAME         STATE\npc-1         ready\na-long-name  not?[31m?ready\n"
        );
        assert_eq!(
            table.render(false),
            "worker\tpc-1\tready\nworker\ta-long-name\tnot?[31m?ready\n"
        );
    }

    #[test]
    fn spans_and_sizes() {
        for (seconds, words) in [(0, "0 s"), (61, "1 min"), (3_700, "1 h 1 min"), (200_000, "2 d")]
        {
            assert_eq!(span(seconds), words);
        }
        assert_eq!(size(500), "500 B");
        assert_eq!(size(20_480), "20 KiB");
        assert_eq!(size(20 << 20), "20 MiB");
    }
}
