//! Columns for people.

use std::io::{self, Write};

/// Rows of equally many cells; the first row is the heading.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.map(str::to_owned)] }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// Writes the rows; a column in which no row but the heading says anything is left out.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = |column: usize| {
            let lengths = self.rows.iter().map(|row| row[column].chars().count());
            lengths.max().unwrap_or_default()
        };
        let says_something =
            |column: &usize| self.rows.iter().skip(1).any(|row| !row[*column].is_empty());
        let columns: Vec<(usize, usize)> =
            (0..N).filter(says_something).map(|column| (column, width(column))).collect();
        for row in &self.rows {
            let cells = columns.iter().map(|&(column, width)| format!("{:<width$}", row[column]));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_ones_are_left_out() {
        let mut table = Table::new(["A", "EMPTY", "B"]);
        table.row(["é".to_owned(), String::new(), "1".to_owned()]);
        table.row(["long".to_owned(), String::new(), String::new()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A     B\né     1\nlong\n");
    }
}
